# For the Nix files.
pkgs: [pkgs.alejandra pkgs.statix pkgs.deadnix]
