# The hosts of tests/nix/hosts: what the module makes of them, in short and within a whole NixOS.
{pkgs}: let
  inherit (pkgs) lib;
  folder = ../tests/nix/hosts;
  names = map (lib.removeSuffix ".nix") (lib.attrNames (builtins.readDir folder));
  host = name: folder + "/${name}.nix";
  snapshots = import ../tests/nix/snapshots.nix {inherit lib;};

  # As NixOS itself evaluates it; the configuration is checked by the broker on the way.
  inNixos = name: let
    inherit
      (pkgs.nixos {
        imports = [../nixos-module (host name)];
        boot.isContainer = true;
        system.stateVersion = "26.05";
      })
      config
      ;
    units = lib.filterAttrs (unit: _: lib.hasPrefix "gemmapod-signal" unit) config.systemd.units;
  in
    [config.environment.etc."gemmapod-signal/config.toml".source] ++ lib.mapAttrsToList (_: unit: unit.unit) units;
in {
  module = pkgs.runCommand "module" {} (
    lib.concatMapStrings (name: "diff ${../tests/nix/snapshots}/${name}.txt ${pkgs.writeText name (snapshots.of (host name))}\n") names
    + "touch $out\n"
  );

  module-in-nixos =
    pkgs.writeText "module-in-nixos"
    (lib.concatMapStrings (name: "${name}: ${toString (inNixos name)}\n") names);
}
