# The service as systemd sees it: readiness, watchdog, restarts, limits, its data and its user.
{
  name = "gemmapod-signal-unit";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./unit.py;
}
