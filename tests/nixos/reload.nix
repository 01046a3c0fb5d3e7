# Another configuration takes effect while clients stay connected; a wrong one changes nothing.
{
  name = "gemmapod-signal-reload";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./reload.py;
}
