# One host, evaluated: `host` is a module, what comes back is what NixOS would make of it.
{
  lib,
  prefix ? "/nix/store/00000000000000000000000000000000-gemmapod-signal",
}: host: let
  pkgs = import ./pkgs.nix {inherit lib prefix;};
  evaluated = lib.evalModules {
    modules = [./nixos.nix ../../nixos-module host];
    specialArgs = {inherit pkgs;};
  };
  inherit (evaluated) config options;
  cfg = config.services.gemmapod-signal;

  text = value:
    if lib.isBool value
    then lib.boolToString value
    else toString value;
  lines = entries: lib.concatStrings (lib.mapAttrsToList (name: value: lib.concatMapStrings (one: "${name}=${text one}\n") (lib.toList value)) entries);
  section = title: entries: lib.optionalString (entries != {}) "[${title}]\n${lines entries}";
  listed = name: values: lib.optionalAttrs (values != []) {${name} = lib.concatStringsSep " " values;};

  unitSection = unit:
    section "Unit" (
      lib.optionalAttrs (unit.description != "") {Description = unit.description;}
      // listed "Documentation" unit.documentation
      // listed "Requires" unit.requires
      // listed "Wants" unit.wants
      // listed "After" unit.after
      // listed "Before" unit.before
      // lib.optionalAttrs (unit.startLimitIntervalSec or null != null) {StartLimitIntervalSec = unit.startLimitIntervalSec;}
      // unit.unitConfig
    );

  service = unit: "${unitSection unit}\n${section "Service" unit.serviceConfig}";
  socket = unit: "${unitSection unit}\n${section "Socket" (lib.optionalAttrs (unit.listenStreams != []) {ListenStream = unit.listenStreams;} // unit.socketConfig)}";

  named = suffix: lib.mapAttrs' (name: lib.nameValuePair "${name}.${suffix}");
in {
  inherit config options;
  inherit (config) warnings;
  failed = map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);
  toml = cfg.configText;
  tcp = config.networking.firewall.allowedTCPPorts;
  udp = config.networking.firewall.allowedUDPPorts;
  units = named "service" (lib.mapAttrs (_: service) config.systemd.services) // named "socket" (lib.mapAttrs (_: socket) config.systemd.sockets);
  wanted = named "service" (lib.mapAttrs (_: unit: unit.wantedBy) config.systemd.services) // named "socket" (lib.mapAttrs (_: unit: unit.wantedBy) config.systemd.sockets);
}
