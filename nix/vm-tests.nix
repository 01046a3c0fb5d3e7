# tests/nixos/NAME.py is the script of a test, tests/nixos/NAME.nix its machines: `{ nodes.NAME = MODULE; }`.
{pkgs}: let
  inherit (pkgs) lib;
  folder = ../tests/nixos;
  files =
    if builtins.pathExists folder
    then lib.attrNames (builtins.readDir folder)
    else [];
  isTest = file: lib.hasSuffix ".nix" file && lib.elem "${lib.removeSuffix ".nix" file}.py" files;
  names = map (lib.removeSuffix ".nix") (lib.filter isTest files);
in
  lib.listToAttrs (map (name:
    lib.nameValuePair "vm-${name}" (pkgs.testers.runNixOSTest {
      inherit name;
      inherit (import (folder + "/${name}.nix")) nodes;
      defaults = ../nixos-module;
      testScript = builtins.readFile (folder + "/${name}.py");
    }))
  names)
