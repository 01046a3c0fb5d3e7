# Hosts that work, but seldom as they were meant. `odd_hosts.txt` has the warnings.
let
  broker = settings: {services.gemmapod-signal = {enable = true;} // settings;};
in {
  pods-in-memory = broker {settings.registry = "memory";};
  acme-on-another-port = broker {
    domain = "pods.example.org";
    settings.port = 8443;
  };
  a-proxy-that-is-not-believed = broker {settings.listen = [{address = "unix:/run/gemmapod-signal/http.sock";}];};
  the-world-without-tls = broker {
    openFirewall = true;
    settings.hostname = "::";
  };
}
