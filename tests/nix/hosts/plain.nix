# Without TLS, for everybody: in a network that is closed in another way.
{
  services.gemmapod-signal = {
    enable = true;
    openFirewall = true;
    settings.hostname = "::";
    settings.log.format = "json";
  };
}
