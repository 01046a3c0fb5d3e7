# Names that several parts of the module share.
rec {
  service = "gemmapod-signal";
  socketUnit = listener: "${service}-${listener.name}";
  # Its last part is StateDirectory=.
  dataDir = "/var/lib/${service}";
  # Below /etc.
  configFile = "${service}/config.toml";
  # CREDENTIALS_DIRECTORY of the unit.
  credentials = "/run/credentials/${service}.service";
}
