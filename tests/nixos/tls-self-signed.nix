# Peers that trust the broker's own authority, and only they, chat over TLS.
{
  name = "gemmapod-signal-tls-self-signed";
  defaults = ./machine.nix;
  nodes = {
    broker.services.gemmapod-signal = {
      enable = true;
      domain = "broker.example.org";
      openFirewall = true;
      tls.mode = "self-signed";
    };
    peers = {};
  };
  testScript = builtins.readFile ./tls-self-signed.py;
}
