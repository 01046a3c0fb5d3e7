# What was acknowledged is there after a crash of the whole machine.
{
  name = "gemmapod-signal-persistence";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./persistence.py;
}
