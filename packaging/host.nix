# The host whose unit files the Debian package brings: the module's defaults, for a proxy on the same host.
{services.gemmapod-signal.enable = true;}
