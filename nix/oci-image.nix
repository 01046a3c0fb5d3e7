# An image with one binary, the world's root certificates and a directory for the data: no shell, no root.
{
  lib,
  dockerTools,
  cacert,
  signal-static,
}: let
  user = "65532";
in
  dockerTools.buildLayeredImage {
    name = "gemmapod-signal";
    tag = signal-static.version;
    contents = [cacert];
    fakeRootCommands = "install --directory --mode=0700 --owner=${user} --group=${user} data";
    config = {
      Entrypoint = [(lib.getExe signal-static)];
      User = "${user}:${user}";
      WorkingDir = "/data";
      Env = [
        "GEMMAPOD_SIGNAL_DATA=/data"
        "SSL_CERT_FILE=${cacert}/etc/ssl/certs/ca-bundle.crt"
      ];
      ExposedPorts."8080/tcp" = {};
      Volumes."/data" = {};
      Labels = {
        "org.opencontainers.image.title" = "gemmapod-signal";
        "org.opencontainers.image.version" = signal-static.version;
        "org.opencontainers.image.licenses" = "MIT";
      };
    };
  }
