# A load balancer on another host speaks the PROXY protocol; the health check of this host does not.
{
  networking.firewall.allowedTCPPorts = [22];
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
    tls.mode = "off";
    settings = {
      trusted_proxies = ["10.0.0.2" "10.1.0.0/16"];
      listen = [
        {
          address = "10.0.0.7:8080";
          proxy_protocol = true;
        }
        {address = "localhost:8081";}
      ];
    };
  };
}
