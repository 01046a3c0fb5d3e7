# A stand-in for nixpkgs: a derivation is a set that remembers what it was made from.
{
  lib,
  system ? "x86_64-linux",
  # Where the package is said to be.
  prefix ? "/nix/store/00000000000000000000000000000000-gemmapod-signal",
}: let
  derivation = name: more:
    {
      type = "derivation";
      inherit name;
      outPath = "/nix/store/11111111111111111111111111111111-${name}";
    }
    // more;

  # One that is made by a function of nixpkgs: its arguments can be read, and changed as overrideAttrs does.
  made = kind: arguments:
    derivation "${kind}${arguments.pname or arguments.name or "unnamed"}${lib.optionalString (arguments ? version) "-${arguments.version}"}" {
      inherit arguments;
      inherit (arguments) pname version meta;
      overrideAttrs = change: made kind (arguments // change ({nativeBuildInputs = [];} // arguments));
    };

  tools = ["alejandra" "cacert" "cargo-deny" "clippy" "deadnix" "nodejs" "openssl" "pebble" "rust-analyzer" "rustfmt" "slowhttptest" "statix"];

  pkgs =
    lib.genAttrs tools (name: derivation name {})
    // {
      inherit lib;

      gemmapod-signal = derivation "gemmapod-signal" {
        outPath = prefix;
        meta.mainProgram = "gemmapod-signal";
      };

      callPackage = with' pkgs;
      rustPlatform.buildRustPackage = made "";
      pkgsStatic.callPackage = with' (pkgs // {rustPlatform.buildRustPackage = made "static-";});
      dockerTools.buildLayeredImage = arguments: derivation arguments.name {inherit arguments;};
      mkShell = arguments: derivation "shell" {inherit arguments;};
      testers.runNixOSTest = test: derivation "vm-test-${(import test).name}" {script = (import test).testScript;};
      nixos = _: {
        config.systemd.units = {};
        config.environment.etc."gemmapod-signal/config.toml".source = derivation "config.toml" {};
      };

      writeShellApplication = arguments: derivation arguments.name {inherit arguments;};
      writeText = name: text: derivation name {inherit text;};
      runCommand = name: arguments: script: derivation name {inherit arguments script;};

      stdenv = rec {
        buildPlatform = {
          inherit system;
          isLinux = lib.hasSuffix "-linux" system;
          canExecute = platform: platform.system == system;
        };
        hostPlatform = buildPlatform;
      };

      formats.toml = _: {
        type = let
          value =
            lib.types.oneOf (with lib.types; [bool int float str path (attrsOf value) (listOf value)])
            // {description = "TOML value";};
        in
          value;
      };
    };

  # Calls a function of a file with those of `from` that it asks for.
  with' = from: file: more: let
    function = import file;
  in
    function (builtins.intersectAttrs (builtins.functionArgs function) from // more);
in
  pkgs
