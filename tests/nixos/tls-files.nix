# Certificates that somebody else renews: their key is root's alone, and systemd hands it over.
{
  name = "gemmapod-signal-tls-files";
  defaults = ./machine.nix;
  nodes = {
    broker.services.gemmapod-signal = {
      enable = true;
      domain = "broker.example.org";
      openFirewall = true;
      tls.mode = "files";
      settings.tls.certificates = [
        {
          chain = "/root/keys/chain.pem";
          key = "/root/keys/key.pem";
        }
      ];
    };
    client = {};
  };
  testScript = builtins.readFile ./tls-files.py;
}
