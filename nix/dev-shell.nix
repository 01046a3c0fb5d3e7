pkgs: {
  default = pkgs.mkShell {
    inputsFrom = [(pkgs.callPackage ./package.nix {})];
    packages =
      (with pkgs; [clippy rustfmt rust-analyzer cargo-deny])
      ++ (import ./linters.nix pkgs)
      # What tests/run installs elsewhere.
      ++ pkgs.lib.optionals pkgs.stdenv.hostPlatform.isLinux (with pkgs; [nodejs pebble openssl slowhttptest]);
  };
}
