# The certificate of security.acme, which a DNS challenge gets.
{
  security.acme = {
    acceptTerms = true;
    defaults.email = "admin@example.org";
    certs."example.org" = {
      group = "web-certificates";
      dnsProvider = "rfc2136";
    };
  };
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
    tls.useACMEHost = "example.org";
  };
}
