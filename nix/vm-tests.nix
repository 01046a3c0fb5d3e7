# tests/nixos/NAME.nix declares the machines of a test, tests/nixos/NAME.py beside it is its script.
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
  lib.listToAttrs (map (name: lib.nameValuePair "vm-${name}" (pkgs.testers.runNixOSTest (folder + "/${name}.nix"))) names)
