# Secrets and the data directory.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  inherit (cfg) settings;
  names = import ../names.nix;
  secrets = import ../secrets.nix {inherit lib;};

  # Where a secret is named, and its file.
  secret =
    map (pair: {
      at = "settings.tls.certificates: the key";
      file = pair.key;
    })
    settings.tls.certificates
    ++ [
      {
        at = "settings.acme.eab_key_file:";
        file = settings.acme.eab_key_file;
      }
    ]
    ++ lib.mapAttrsToList (name: file: {
      at = "credentials.\"${name}\":";
      inherit file;
    })
    cfg.credentials;

  handedOver = map (secret: secret.name) (secrets.all cfg);
in {
  config.assertions = lib.mkIf cfg.enable (
    map ({
      at,
      file,
    }: {
      assertion = file == null || !secrets.isInStore file;
      message = ''services.gemmapod-signal.${at} ${toString file} would lie in the Nix store, where everybody on this host can read it: keep it outside, for example in /run/keys or with agenix or sops-nix, and write its path as a text, such as "/run/keys/NAME".'';
    })
    secret
    ++ [
      {
        assertion = lib.all (name: builtins.match "[A-Za-z0-9._-]+" name != null) (lib.attrNames cfg.credentials);
        message = ''services.gemmapod-signal.credentials: a name may have letters, digits, ".", "_" and "-" only, for it becomes the name of a file.'';
      }
      {
        assertion = lib.unique handedOver == handedOver;
        message = "services.gemmapod-signal.credentials: a name is taken by a file of the settings: names that begin with tls- and acme-eab-key are not free.";
      }
      {
        assertion = builtins.match "/var/lib/[A-Za-z0-9._/-]+" (toString settings.data_dir) != null && !lib.hasInfix ".." (toString settings.data_dir);
        message = ''services.gemmapod-signal.settings.data_dir = "${toString settings.data_dir}" is not below /var/lib, where systemd keeps the directory for a service without a user of its own: leave it out, and mount the place there: fileSystems."/var/lib/private/${names.service}" = { device = "${toString settings.data_dir}"; options = [ "bind" ]; }.'';
      }
    ]
  );
}
