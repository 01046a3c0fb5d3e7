# nginx has the certificates; the two meet at a Unix socket.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    tls.mode = "off";
    settings = {
      trusted_proxies = ["unix"];
      listen = [
        {
          address = "unix:/run/gemmapod-signal/http.sock";
          group = "nginx";
        }
      ];
    };
  };
  services.nginx = {
    enable = true;
    virtualHosts."pods.example.org" = {
      enableACME = true;
      forceSSL = true;
      locations."/" = {
        proxyPass = "http://unix:/run/gemmapod-signal/http.sock";
        proxyWebsockets = true;
      };
    };
  };
}
