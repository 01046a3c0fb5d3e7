pkgs: let
  signal = {
    type = "app";
    program = pkgs.lib.getExe (pkgs.callPackage ./package.nix {});
    meta.description = "The broker, on http://0.0.0.0:8080, pods in ./gemmapod-signal-data";
  };
in {
  inherit signal;
  default = signal;
}
