# Every Nix file of this repository.
lib:
lib.fileset.toSource {
  root = ../.;
  fileset = lib.fileset.unions [../flake.nix ../default.nix ../nix ../nixos-module ../tests/nix ../packaging/host.nix ../packaging/acme-host.nix ../packaging/tests (lib.fileset.maybeMissing ../tests/nixos)];
}
