# The certificate of NixOS's own security.acme, read through its group.
{
  name = "gemmapod-signal-tls-acme-host";
  defaults = ./machine.nix;
  nodes = {
    broker = {
      # Nobody proves anything here: the certificate that NixOS makes for the meantime is enough.
      security.acme = {
        acceptTerms = true;
        defaults.email = "admin@example.org";
        certs."broker.example.org" = {
          group = "web-certificates";
          webroot = "/var/lib/acme/acme-challenge";
        };
      };
      users.groups.web-certificates = {};
      services.gemmapod-signal = {
        enable = true;
        domain = "broker.example.org";
        openFirewall = true;
        tls.useACMEHost = "broker.example.org";
      };
    };
    client = {};
  };
  testScript = builtins.readFile ./tls-acme-host.py;
}
