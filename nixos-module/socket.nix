# The sockets: systemd binds them, so that the broker needs no right to, and holds them while it restarts.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
  ours = lib.filter (listener: listener.streams != []) cfg.listeners;

  socket = listener: {
    description = "Socket ${listener.name} of gemmapod-signal";
    wantedBy = ["sockets.target"];
    listenStreams = listener.streams;
    socketConfig =
      {
        FileDescriptorName = listener.name;
        Service = "${names.service}.service";
        Backlog = 4096;
      }
      // (
        if listener.place.kind == "unix"
        then {
          SocketMode = listener.mode;
          RemoveOnStop = true;
          # Others reach the socket itself only if its mode lets them.
          DirectoryMode = "0755";
        }
        else {
          NoDelay = true;
          BindIPv6Only =
            if listener.ipv6_only
            then "ipv6-only"
            else "both";
          # An address of this host may come up later than the socket.
          FreeBind = true;
        }
      )
      // lib.optionalAttrs (listener.group != null) {SocketGroup = listener.group;};
  };
in {
  config.systemd.sockets =
    lib.mkIf cfg.enable
    (lib.listToAttrs (map (listener: lib.nameValuePair (names.socketUnit listener) (socket listener)) ours));
}
