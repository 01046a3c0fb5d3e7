# Two peers without a browser chat through the broker that three lines of a host config declare.
{
  name = "gemmapod-signal-quickstart";
  defaults = ./machine.nix;
  nodes.machine = {
    services.gemmapod-signal = {
      enable = true;
      tls.mode = "off";
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./quickstart.py;
}
