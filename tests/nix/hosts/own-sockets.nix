# A socket unit of the host's own, and credentials that no setting names.
{
  services.gemmapod-signal = {
    enable = true;
    credentials."proxy-ca.pem" = "/run/keys/proxy-ca.pem";
    settings.listen = [{address = "systemd:inside";} {address = "[::1]:8080";}];
  };
  systemd.sockets.signal-inside = {
    wantedBy = ["sockets.target"];
    listenStreams = ["10.0.0.7:8080"];
    socketConfig = {
      FileDescriptorName = "inside";
      Service = "gemmapod-signal.service";
    };
  };
  systemd.services.gemmapod-signal.serviceConfig = {
    MemoryMax = "512M";
    Sockets = ["signal-inside.socket"];
  };
}
