# Names that several parts of the module share.
rec {
  service = "gemmapod-signal";
  socketUnit = listener: "${service}-${listener.name}";
  # StateDirectory=, below /var/lib.
  state = service;
  dataDir = "/var/lib/${state}";
  # Below /etc.
  configFile = "${service}/config.toml";
  # CREDENTIALS_DIRECTORY of the unit.
  credentials = "/run/credentials/${service}.service";
}
