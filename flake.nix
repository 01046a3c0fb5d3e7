{
  description = "gemmapod-signal: the signalling broker and pod host of GemmaPod, and its NixOS module";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = {nixpkgs, ...}: let
    linux = ["x86_64-linux" "aarch64-linux"];
    everywhere = linux ++ ["x86_64-darwin" "aarch64-darwin"];
    on = systems: make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
  in {
    packages = on everywhere (import ./nix/packages.nix);
    apps = on everywhere (import ./nix/apps.nix);
    overlays.default = import ./nix/overlay.nix;
    nixosModules = rec {
      gemmapod-signal = ./nixos-module;
      default = gemmapod-signal;
    };
    devShells = on everywhere (import ./nix/dev-shell.nix);
    formatter = on everywhere (import ./nix/formatter.nix);
    checks = on linux (import ./nix/checks.nix);
  };
}
