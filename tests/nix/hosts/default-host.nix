{
  services.gemmapod-signal.enable = true;
}
