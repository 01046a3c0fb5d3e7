# The broker. Its tests are a check of their own, so that a build for use does not wait for them.
{
  lib,
  rustPlatform,
}: let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
  rustPlatform.buildRustPackage {
    pname = manifest.name;
    inherit (manifest) version;

    src = lib.fileset.toSource {
      root = ../.;
      # Cargo reads the manifests of benches too.
      fileset = lib.fileset.unions [../Cargo.toml ../Cargo.lock ../src ../benches];
    };
    cargoLock.lockFile = ../Cargo.lock;
    doCheck = false;

    meta = {
      inherit (manifest) description;
      homepage = "https://gemmapod.com";
      license = lib.licenses.mit;
      mainProgram = manifest.name;
      platforms = lib.platforms.unix;
    };
  }
