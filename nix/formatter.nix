# `nix fmt` formats every Nix file, `nix fmt FILE` one.
pkgs:
pkgs.writeShellApplication {
  name = "format";
  runtimeInputs = [pkgs.alejandra];
  text = ''alejandra "''${@:-.}"'';
}
