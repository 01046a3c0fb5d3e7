# Certificates that somebody else renews; systemd hands them over, so that root alone needs to read them.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
    tls.mode = "files";
    settings.tls.certificates = [
      {
        chain = "/etc/letsencrypt/live/pods.example.org/fullchain.pem";
        key = "/etc/letsencrypt/live/pods.example.org/privkey.pem";
      }
      {
        chain = "/run/keys/other-chain.pem";
        key = "/run/keys/other-key.pem";
      }
    ];
  };
}
