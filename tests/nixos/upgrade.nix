# A broker serves the data that an older version left, and a restart refuses no client.
{
  name = "gemmapod-signal-upgrade";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./upgrade.py;
}
