# needs a firewall

start_all()
broker.wait_for_unit("gemmapod-signal.service")
broker.wait_for_unit("sockets.target")

# Something that listens and that nobody declared.
broker.succeed("systemd-run --unit=undeclared systemd-socket-activate --accept --inetd --listen=0.0.0.0:9999 cat")
broker.wait_for_open_port(9999)

with subtest("declared ports answer"):
    outside.wait_for_open_port(443, "broker")
    outside.wait_for_open_port(80, "broker")
    outside.succeed("curl -fsS --insecure https://broker.example.org/health")

with subtest("others do not, though something listens"):
    outside.fail("nc -z -w 2 broker 9999")
    broker.wait_for_open_port(9999)

with subtest("of the first 2,000 ports, two answer"):
    broker.succeed("systemd-run --unit=low systemd-socket-activate --accept --inetd --listen=0.0.0.0:999 cat")
    broker.wait_for_open_port(999)
    open_ports = outside.succeed("seq 2000 | xargs -P 400 -I PORT sh -c 'nc -z -w 1 broker PORT && echo PORT || true' | sort -n")
    assert open_ports.split() == ["80", "443"], open_ports
