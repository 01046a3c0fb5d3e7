# A stand-in for nixpkgs: derivations are sets that remember what they were made from.
{
  lib,
  # Where the binary of the package is said to be.
  prefix ? "/nix/store/00000000000000000000000000000000-gemmapod-signal",
}: let
  derivation = name: more:
    {
      type = "derivation";
      inherit name;
      outPath = "/nix/store/11111111111111111111111111111111-${name}";
    }
    // more;
in {
  inherit lib;

  gemmapod-signal = derivation "gemmapod-signal" {
    outPath = prefix;
    meta.mainProgram = "gemmapod-signal";
  };

  writeText = name: text: derivation name {inherit text;};
  runCommand = name: arguments: script: derivation name {inherit arguments script;};

  stdenv = rec {
    buildPlatform = {
      system = "x86_64-linux";
      canExecute = platform: platform.system == buildPlatform.system;
      isLinux = true;
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
}
