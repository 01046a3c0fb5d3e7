# A check that runs cargo over the whole source, with the dependencies of the package.
{
  pkgs,
  signal,
}: let
  inherit (pkgs.lib) fileset;
in
  name: tools: command:
    signal.overrideAttrs (package: {
      pname = "${package.pname}-${name}";
      src = fileset.toSource {
        root = ../.;
        fileset = fileset.unions [
          ../Cargo.toml
          ../Cargo.lock
          ../rustfmt.toml
          ../src
          ../benches
          ../examples
          ../tests
          ../docs
          ../nixos-module/settings.json
        ];
      };
      nativeBuildInputs = package.nativeBuildInputs ++ tools;
      buildPhase = command;
      installPhase = "touch $out";
    })
