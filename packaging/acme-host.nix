# The host whose files the Debian package brings as an example: TLS with certificates by ACME on ports 443 and 80.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
  };
}
