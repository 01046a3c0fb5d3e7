# What works, but seldom as it was meant.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  inherit (cfg) settings listeners;
  isUnix = listener: listener.place.kind == "unix";
  provesControl = listener: listener.tls && listener.port == 443 || listener.purpose == "redirect" && listener.port == 80;
  isOpen = listener: listener.publicPort != null && !listener.tls && listener.purpose == "public" && !listener.proxy_protocol;
in {
  config.warnings = lib.mkIf cfg.enable (
    lib.optional (settings.registry == "memory")
    ''services.gemmapod-signal.settings.registry = "memory" loses all pods whenever the broker stops: leave it out to keep them.''
    ++ lib.optional (settings.tls.mode == "acme" && lib.hasPrefix "letsencrypt" settings.acme.directory && !lib.any provesControl listeners)
    "services.gemmapod-signal gets certificates by ACME, which looks for it on port 443 or 80, and it listens on neither: lead one of them here, or listen there."
    ++ lib.optional (lib.any isUnix listeners && !lib.elem "unix" settings.trusted_proxies)
    ''services.gemmapod-signal listens on a Unix socket, but does not believe the proxy there who its clients are, so that no limit for one client holds: set settings.trusted_proxies = [ "unix" ].''
    ++ lib.optional (cfg.openFirewall && lib.any isOpen listeners)
    "services.gemmapod-signal.openFirewall opens a port without TLS: browsers refuse microphones, WebCrypto and secure WebSockets there; set services.gemmapod-signal.domain."
  );
}
