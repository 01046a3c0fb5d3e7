# A stand-in for the flake nixpkgs, for each system.
{lib}: {
  inherit lib;
  legacyPackages = lib.genAttrs ["x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin"] (system: import ./pkgs.nix {inherit lib system;});
}
