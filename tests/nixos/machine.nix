# What every machine of the tests has. tests/nixos/driver gives its containers the same.
{
  config,
  pkgs,
  ...
}: {
  imports = [../../nixos-module];

  # Machines know one another as NAME and NAME.example.org.
  networking.domain = "example.org";

  environment.systemPackages = [
    (pkgs.callPackage ./peers.nix {})
    pkgs.curl
    pkgs.jq
    pkgs.netcat-openbsd
    pkgs.openssl
    pkgs.pebble
  ];
  environment.etc."data-of-0.1.0.tar.gz".source = ./data-of-0.1.0.tar.gz;

  # Only hosts of a broker have something to protect; peers reach one another on any UDP port.
  networking.firewall.enable = config.services.gemmapod-signal.enable;
}
