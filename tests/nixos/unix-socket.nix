# Behind a proxy of the same host: a Unix socket that its group may open, and no port.
{
  name = "gemmapod-signal-unix-socket";
  defaults = ./machine.nix;
  nodes.machine = {
    users.groups.www-data = {};
    services.gemmapod-signal = {
      enable = true;
      domain = "pods.example.org";
      tls.mode = "off";
      settings = {
        trusted_proxies = ["unix"];
        listen = [
          {
            address = "unix:/run/gemmapod-signal/http.sock";
            group = "www-data";
          }
        ];
      };
    };
  };
  testScript = builtins.readFile ./unix-socket.py;
}
