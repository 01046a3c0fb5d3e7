# The ports that other hosts reach are those of the settings. Nothing here speaks UDP.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  ports = lib.filter (port: port != null) (map (listener: listener.publicPort) cfg.listeners);
in {
  config.networking.firewall.allowedTCPPorts = lib.mkIf (cfg.enable && cfg.openFirewall) (lib.unique ports);
}
