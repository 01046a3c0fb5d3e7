# One certificate for several names, on a host without IPv6.
{
  networking.enableIPv6 = false;
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    extraDomains = ["pods.example.net" "signal.example.org"];
    openFirewall = true;
  };
}
