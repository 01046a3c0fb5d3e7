# Other hosts reach the ports that the settings declare, and no others.
{
  name = "gemmapod-signal-firewall";
  defaults = ./machine.nix;
  nodes = {
    broker.services.gemmapod-signal = {
      enable = true;
      domain = "broker.example.org";
      openFirewall = true;
      tls.mode = "self-signed";
    };
    outside = {};
  };
  testScript = builtins.readFile ./firewall.py;
}
