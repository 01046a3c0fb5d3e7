# Everything that must hold; `nix flake check` builds all of it.
pkgs: let
  inherit (pkgs) lib;
  signal = pkgs.callPackage ./package.nix {};
  cargo = import ./cargo-check.nix {inherit pkgs signal;};
  hosts = import ./host-checks.nix {inherit pkgs;};
  exe = lib.getExe signal;
in
  {
    package = signal;
    clippy = cargo "clippy" [pkgs.clippy] "cargo clippy --offline --all-targets -- --deny warnings";
    fmt = cargo "fmt" [pkgs.rustfmt] "cargo fmt --check";
    tests = cargo "tests" [pkgs.pebble pkgs.openssl] "cargo test --offline";

    # What is written down from the settings says what the binary says.
    docs = pkgs.runCommand "docs-in-step" {} ''
      ${exe} settings --markdown | diff ${../docs/settings.md} -
      ${exe} settings --json | diff ${../nixos-module/settings.json} -
      touch $out
    '';

    nix-files = pkgs.runCommand "nix-files" {nativeBuildInputs = import ./linters.nix pkgs;} ''
      cd ${import ./nix-files.nix lib}
      alejandra --check .
      statix check .
      deadnix --fail .
      touch $out
    '';

    inherit (hosts) module module-in-nixos;
  }
  // import ./vm-tests.nix {inherit pkgs;}
