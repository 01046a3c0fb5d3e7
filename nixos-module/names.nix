# Names that several parts of the module share.
rec {
  service = "gemmapod-signal";
  # A switch to another generation leaves a socket unit of the same name as it is: another socket needs another name.
  socketUnit = listener: "${service}-${listener.name}-${listener.key}";
  # Its last part is StateDirectory=.
  dataDir = "/var/lib/${service}";
  # Below /etc.
  configFile = "${service}/config.toml";
  # CREDENTIALS_DIRECTORY of the unit.
  credentials = "/run/credentials/${service}.service";
}
