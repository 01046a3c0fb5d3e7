# Certificates of NixOS's own security.acme: read through their group, and read again when they are renewed.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
  host = cfg.tls.useACMEHost;
  unit = "acme-${host}.service";
in {
  config = lib.mkIf (cfg.enable && host != null) {
    security.acme.certs.${host}.reloadServices = ["${names.service}.service"];
    systemd.services.${names.service} = {
      wants = [unit];
      after = [unit];
      serviceConfig.SupplementaryGroups = [config.security.acme.certs.${host}.group];
    };
  };
}
