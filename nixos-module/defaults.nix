# What the module sets where the host says nothing: in part stricter than the binary, which knows less of its host.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkIf;
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
  domains = lib.optional (cfg.domain != null) cfg.domain ++ cfg.extraDomains;
  tls = cfg.settings.tls.mode != "off";
  httpsPorts = map (listener: listener.port) (lib.filter (listener: listener.tls && listener.port != null) cfg.listeners);
  # What stands behind the name in the URL of a pod.
  port = lib.optionalString (httpsPorts != [] && !lib.elem 443 httpsPorts) ":${toString (lib.head httpsPorts)}";
  derivedMode =
    if cfg.tls.useACMEHost != null
    then "files"
    else if cfg.domain != null
    then "acme"
    else "off";
in {
  config.services.gemmapod-signal.settings = mkIf cfg.enable {
    data_dir = mkDefault names.dataDir;
    # Pod ids are not told to everybody, and no pod reads what another stores; real clients notice neither.
    health.origins = mkDefault "count";
    pods.isolation = mkDefault "sandbox";
    # Without TLS only a proxy on this host is served, until the host says otherwise.
    hostname = mkDefault (
      if !tls
      then "127.0.0.1"
      else if config.networking.enableIPv6
      then "::"
      else "0.0.0.0"
    );
    public_url = mkIf (cfg.domain != null) (mkDefault "https://${cfg.domain}${port}");
    tls.mode =
      if cfg.tls.mode != null
      then cfg.tls.mode
      else mkDefault derivedMode;
    tls.domains = mkIf (lib.elem cfg.settings.tls.mode ["acme" "self-signed"]) (mkDefault domains);
  };
}
