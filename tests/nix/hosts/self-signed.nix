# For a network of one's own: `gemmapod-signal ca` prints the authority that clients are to trust.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.lan";
    openFirewall = true;
    tls.mode = "self-signed";
    settings.tls.domains = ["pods.lan" "192.0.2.7"];
    settings.port = 8443;
  };
}
