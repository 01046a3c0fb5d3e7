# A host as text: what `snapshots/NAME.txt` has of it.
{lib}: {
  of = host: let
    made = import ./host.nix {inherit lib;} host;
    ports = protocol: numbers: "${protocol} ${
      if numbers == []
      then "none"
      else lib.concatMapStringsSep " " toString numbers
    }";
    unit = name: text: "\n== ${name}, wanted by ${toString made.wanted.${name}}\n${text}";
  in
    lib.concatMapStrings (sentence: "wrong: ${sentence}\n") made.failed
    + lib.concatMapStrings (sentence: "warning: ${sentence}\n") made.warnings
    + "firewall: ${ports "TCP" made.tcp}, ${ports "UDP" made.udp}\n"
    + "\n== /etc/gemmapod-signal/config.toml\n${made.toml}"
    + lib.concatStrings (lib.mapAttrsToList unit made.units);
}
