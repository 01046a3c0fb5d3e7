# The three lines of the README: the broker gets its certificates itself.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
  };
}
