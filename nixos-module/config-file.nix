# The configuration file: what the host changes of the settings, checked by the broker itself when the system is built.
{
  config,
  lib,
  pkgs,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
  secrets = import ./secrets.nix {inherit lib;};
  toml = import ./toml.nix {inherit lib;};
  described = lib.importJSON ./settings.json;

  # Keys with their defaults as nested sets, for those keys that have one.
  defaultsOf = list:
    lib.foldl' (defaults: setting:
      if setting.default == null
      then defaults
      else lib.recursiveUpdate defaults (lib.setAttrByPath (lib.splitString "." setting.key) setting.default))
    {}
    list;
  fields = key: (lib.findFirst (setting: setting.key == key) null described).type.tables;

  # Without what is not set, and without what is the default anyway.
  pruned = defaults: table:
    lib.filterAttrs (name: value: value != null && value != [] && value != {} && !(defaults ? ${name} && defaults.${name} == value))
    (lib.mapAttrs (name: value:
      if builtins.isAttrs value && !(value ? outPath)
      then pruned (defaults.${name} or {}) value
      else value)
    table);

  listens = map (listener:
    pruned (defaultsOf (fields "listen")) (
      removeAttrs listener ["name" "key" "place" "publicPort" "port" "needsAddress" "streams" "mode" "group" "ipv6_only"]
      // {address = "systemd:${listener.name}";}
    ))
  cfg.listeners;

  ownCertificates = map (pair:
    pair
    // {
      chain = pair.chain.path;
      key = pair.key.path;
    }) (secrets.certificates cfg.settings);

  acmeHost = lib.optional (cfg.tls.useACMEHost != null) (let
    inherit (config.security.acme.certs.${cfg.tls.useACMEHost}) directory;
  in {
    chain = "${directory}/fullchain.pem";
    key = "${directory}/key.pem";
  });

  eabKey = secrets.eabKey cfg.settings;

  # As the broker gets it: sockets by name, secrets where systemd puts them.
  complete = lib.recursiveUpdate (removeAttrs cfg.settings ["hostname" "port"]) ({
      listen = listens;
      tls.certificates = ownCertificates ++ acmeHost;
    }
    // lib.optionalAttrs (eabKey != null) {acme.eab_key_file = eabKey.path;});

  text = ''
    # Made by NixOS from services.gemmapod-signal; what is not here has its default.
    ${toml (pruned (defaultsOf described) complete)}'';

  unchecked = pkgs.writeText "gemmapod-signal-unchecked.toml" text;

  canRun = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;

  checked = pkgs.runCommand "gemmapod-signal.toml" {} ''
    cp ${unchecked} config.toml
    ${lib.optionalString canRun "${lib.getExe cfg.package} check-config config.toml"}
    cp config.toml $out
  '';

  # What takes effect only after a restart; all else is reloaded.
  restarting = lib.filter (setting: setting.restart) described;
  atStart = map (setting: lib.attrByPath (lib.splitString "." setting.key) null complete) restarting;
in {
  options.services.gemmapod-signal.configText = lib.mkOption {
    type = lib.types.str;
    internal = true;
    readOnly = true;
    default = text;
    description = "The text of the configuration file.";
  };

  config = lib.mkIf cfg.enable {
    environment.etc.${names.configFile}.source = checked;
    environment.systemPackages = [cfg.package];
    systemd.services.${names.service} = {
      reloadTriggers = [checked];
      restartTriggers = [(builtins.hashString "sha256" (builtins.toJSON atStart))];
    };
  };
}
