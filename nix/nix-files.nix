# Every Nix file of this repository.
lib:
lib.fileset.toSource {
  root = ../.;
  fileset = lib.fileset.unions [../flake.nix ../default.nix ../nix ../nixos-module ../tests/nix (lib.fileset.maybeMissing ../tests/nixos)];
}
