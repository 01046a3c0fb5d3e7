# Two peers without a browser chat through the broker of a host that says little more than `enable`.
{
  name = "gemmapod-signal-quickstart";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./quickstart.py;
}
