# The service has no right that it does not need.
{
  name = "gemmapod-signal-hardening";
  defaults = ./machine.nix;
  nodes = {
    machine.services.gemmapod-signal = {
      enable = true;
      settings.hostname = "0.0.0.0";
    };
  };
  testScript = builtins.readFile ./hardening.py;
}
