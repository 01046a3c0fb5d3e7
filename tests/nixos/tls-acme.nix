# The broker gets its certificate from an ACME directory on another machine.
{
  name = "gemmapod-signal-tls-acme";
  defaults = ./machine.nix;
  nodes = {
    authority = {};
    broker.services.gemmapod-signal = {
      enable = true;
      domain = "broker.example.org";
      openFirewall = true;
      settings.acme = {
        directory = "https://authority.example.org:14000/dir";
        root = "/etc/acme-directory.pem";
      };
    };
    peers = {};
  };
  testScript = builtins.readFile ./tls-acme.py;
}
