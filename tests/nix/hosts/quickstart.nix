# Without a name: plain HTTP for this host only.
{
  services.gemmapod-signal.enable = true;
}
