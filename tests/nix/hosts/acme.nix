{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
  };
}
