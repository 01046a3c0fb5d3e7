# Names that several parts of the module share.
rec {
  service = "gemmapod-signal";
  # A switch to another generation leaves a socket unit of the same name as it is: another socket needs another name.
  # Those of the defaults have short ones.
  socketUnit = listener: let
    usual = {
      https = "443";
      redirect = "80";
      http = "127.0.0.1-8080";
    };
    suffix =
      if usual.${listener.name} or null == listener.key
      then ""
      else "-${listener.key}";
  in "${service}-${listener.name}${suffix}";
  # Its last part is StateDirectory=.
  dataDir = "/var/lib/${service}";
  # Below /etc.
  configFile = "${service}/config.toml";
  # CREDENTIALS_DIRECTORY of the unit.
  credentials = "/run/credentials/${service}.service";
}
