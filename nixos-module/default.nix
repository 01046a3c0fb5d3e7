# services.gemmapod-signal: the broker, its certificates, data directory, firewall and limits in one host config.
{
  imports = [
    ./options.nix
    ./defaults.nix
    ./assertions
    ./config-file.nix
    ./socket.nix
    ./unit.nix
    ./acme-host.nix
    ./firewall.nix
  ];
}
