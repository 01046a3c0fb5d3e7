# An origin and a visitor on machines of their own meet through a broker on a third.
{
  name = "gemmapod-signal-two-hosts";
  defaults = ./machine.nix;
  nodes = {
    broker.services.gemmapod-signal = {
      enable = true;
      openFirewall = true;
      settings.hostname = "0.0.0.0";
    };
    origin = {};
    visitor = {};
  };
  testScript = builtins.readFile ./two-hosts.py;
}
