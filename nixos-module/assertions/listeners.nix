# Where the broker listens.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  inherit (cfg) settings listeners;
  inherit (settings.tls) mode;
  names = import ../names.nix;
  at = listener: "services.gemmapod-signal.settings.listen: ${toString listener.address}";

  streams = lib.concatMap (listener: listener.streams) listeners;
  twice = lib.filter (stream: lib.count (other: other == stream) streams > 1) streams;
  anyIPv6 = lib.filter (listener: listener.place.kind == "tcp" && listener.place.host == "::" && !listener.ipv6_only) listeners;
  bothKinds = lib.filter (listener: lib.elem "0.0.0.0:${toString listener.port}" streams) anyIPv6;

  handedOver = lib.concatMap (unit: lib.toList (unit.socketConfig.FileDescriptorName or [])) (lib.attrValues config.systemd.sockets);

  # Ports of all addresses that another server of this host takes.
  nginx = config.services.nginx or {enable = false;};
  caddy = config.services.caddy or {enable = false;};
  others =
    lib.optionals nginx.enable (map (port: {
      inherit port;
      name = "nginx";
    }) [nginx.defaultHTTPListenPort nginx.defaultSSLListenPort])
    ++ lib.optionals caddy.enable (map (port: {
      inherit port;
      name = "caddy";
    }) [(caddy.httpPort or 80) (caddy.httpsPort or 443)]);
  clashes = lib.filter (other: lib.any (listener: listener.publicPort == other.port) listeners) others;

  each = listener: [
    {
      assertion = listener.place.kind != "wrong";
      message = ''${at listener} is no address: write HOST:PORT such as "[::]:443", or unix:PATH.'';
    }
    {
      assertion = listener.place.kind == "unix" -> builtins.match "[A-Za-z0-9/._-]+" listener.place.path != null;
      message = ''${at listener} cannot be part of a unit's name: write a path of letters, digits, "/", ".", "_" and "-".'';
    }
    {
      assertion = listener.port == null || listener.port > 0 && listener.port < 65536;
      message = "${at listener} has no port that a firewall could know: write one from 1 to 65535.";
    }
    {
      assertion = !listener.needsAddress;
      message = "${at listener} names a host, but systemd binds addresses: write the address, or :: for all.";
    }
    {
      assertion = listener.place.kind == "systemd" -> lib.elem listener.place.name handedOver;
      message = ''${at listener} is a socket that no unit makes: write the address itself, and the module makes the socket, or set systemd.sockets.NAME.socketConfig = { FileDescriptorName = "${listener.place.name or ""}"; Service = "${names.service}.service"; }.'';
    }
    {
      assertion = !(listener.tls && mode == "off");
      message = ''${at listener} has tls = true, but tls.mode is "off": set services.gemmapod-signal.domain or tls.mode, or leave tls out.'';
    }
    {
      assertion = !(listener.tls && listener.purpose == "redirect");
      message = ''${at listener} leads from http to https, so that it cannot have tls = true: leave one of purpose = "redirect" and tls = true out.'';
    }
    {
      assertion = listener.proxy_protocol -> settings.trusted_proxies != [];
      message = ''${at listener} has proxy_protocol = true, but nobody's header would be read: name the proxies in settings.trusted_proxies, such as [ "10.0.0.2" ].'';
    }
    {
      assertion = listener.group != null -> listener.place.kind == "unix";
      message = "${at listener} has a group, which only a Unix socket can have: leave the group out, or listen on unix:PATH.";
    }
    {
      assertion = listener.ipv6_only -> listener.place.kind == "tcp" && lib.hasInfix ":" listener.place.host;
      message = ''${at listener} has ipv6_only = true, which is for IPv6 addresses such as "[::]:443": leave it out.'';
    }
    {
      assertion = listener.place.kind == "tcp" && lib.hasInfix ":" listener.place.host -> config.networking.enableIPv6;
      message = "${at listener} is an IPv6 address, but networking.enableIPv6 is false: write an IPv4 address such as 0.0.0.0:PORT.";
    }
  ];
in {
  config.assertions = lib.mkIf cfg.enable (
    lib.concatMap each listeners
    ++ [
      {
        assertion = twice == [];
        message = "services.gemmapod-signal.settings.listen names ${toString (lib.unique twice)} more than once: leave one out.";
      }
      {
        assertion = bothKinds == [];
        message = "services.gemmapod-signal.settings.listen: [::] takes IPv4 too, so that 0.0.0.0 cannot have the same port: leave 0.0.0.0 out, or set ipv6_only = true.";
      }
      {
        assertion = lib.any (listener: listener.purpose == "public") listeners;
        message = ''services.gemmapod-signal.settings.listen only redirects: add a listener with purpose = "public".'';
      }
      {
        assertion = mode == "off" || lib.any (listener: listener.tls) listeners;
        message = ''services.gemmapod-signal: tls.mode = "${toString mode}" gets certificates that no listener uses: set tls = true in one of settings.listen, or tls.mode = "off".'';
      }
      {
        assertion = settings.listen == [] || settings.port == null;
        message = "services.gemmapod-signal.settings.port is not used beside settings.listen: leave it out, and write the port into an address of settings.listen.";
      }
      {
        assertion = cfg.openFirewall -> lib.any (listener: listener.publicPort != null) listeners;
        message = ''services.gemmapod-signal.openFirewall = true opens nothing, for the broker is reached from this host only: set services.gemmapod-signal.domain, or settings.hostname = "::" to be reached without TLS, or leave openFirewall out.'';
      }
      {
        assertion = clashes == [];
        message = ''services.gemmapod-signal and ${(lib.head clashes).name} both want port ${lib.concatMapStringsSep " and " (other: toString other.port) clashes}: let ${(lib.head clashes).name} be the proxy (tls.mode = "off" and settings.listen = [ { address = "unix:/run/${names.service}/http.sock"; } ], see docs/nixos.md), or give one of the two another port.'';
      }
    ]
  );
}
