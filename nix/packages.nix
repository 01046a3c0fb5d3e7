pkgs: let
  signal = pkgs.callPackage ./package.nix {};
  # Without any library of the system: for other Linux distributions, and for the image.
  signal-static = pkgs.pkgsStatic.callPackage ./package.nix {};
in
  {
    inherit signal;
    default = signal;
  }
  // pkgs.lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
    inherit signal-static;
    oci-image = pkgs.callPackage ./oci-image.nix {inherit signal-static;};
  }
