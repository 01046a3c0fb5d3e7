# For those without flakes: `nix-build -A signal`, and `imports = [ (import PATH {}).nixosModules.default ]` in a host.
# The nixpkgs is that of flake.lock, unless another is given.
{
  pkgs ? let
    inherit (builtins.fromJSON (builtins.readFile ./flake.lock)) nodes;
    inherit (nodes.nixpkgs.locked) owner repo rev narHash;
  in
    import (fetchTarball {
      url = "https://github.com/${owner}/${repo}/archive/${rev}.tar.gz";
      sha256 = narHash;
    }) {},
}:
import ./nix/packages.nix pkgs
// {
  nixosModules.default = ./nixos-module;
  overlays.default = import ./nix/overlay.nix;
  devShell = (import ./nix/dev-shell.nix pkgs).default;
}
