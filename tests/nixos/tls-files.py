SERVICE = "gemmapod-signal.service"
BROKER = "https://broker.example.org"


def renew() -> None:
    """Makes a new certificate, and takes it to the client."""
    broker.succeed(
        "install -d -m 700 /root/keys && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=broker"
        " -addext subjectAltName=DNS:broker.example.org -keyout /root/keys/key.pem -out /root/keys/chain.pem && chmod 600 /root/keys/key.pem"
    )
    chain = broker.succeed("cat /root/keys/chain.pem")
    client.succeed(f"cat > /root/chain.pem <<'END'\n{chain}\nEND")


start_all()

with subtest("without its files the service does not start, and is tried again"):
    broker.wait_until_succeeds(f"systemctl show -P NRestarts {SERVICE} | grep -v 0", timeout=60)
    broker.fail(f"systemctl is-active {SERVICE}")
    journal = broker.succeed(f"journalctl --no-pager -o cat -u {SERVICE}")
    assert "Failed to set up credentials" in journal, journal

with subtest("with them it is served"):
    renew()
    broker.succeed(f"systemctl restart {SERVICE}")
    client.succeed(f"curl -fsS --cacert /root/chain.pem {BROKER}/health")
    location = client.succeed("curl -sS -o /dev/null -w '%{redirect_url}' http://broker.example.org/health")
    assert location == f"{BROKER}/health", location

with subtest("the service reads the copy that it was given, and not the original"):
    process = broker.succeed(f"systemctl show -P MainPID {SERVICE}").strip()
    broker.succeed(f"nsenter -t {process} -m -S $(stat -c %u /proc/{process}) -- cat /run/credentials/{SERVICE}/tls-0-key.pem")
    broker.fail(f"nsenter -t {process} -m -S $(stat -c %u /proc/{process}) -- cat /root/keys/key.pem")

with subtest("nobody else reads the copy"):
    broker.fail(f"runuser -u nobody -- cat /run/credentials/{SERVICE}/tls-0-key.pem")

with subtest("a renewed certificate is served after a restart"):
    renew()
    client.fail(f"curl -fsS --cacert /root/chain.pem {BROKER}/health")
    broker.succeed(f"systemctl restart --no-block {SERVICE}")
    client.wait_until_succeeds(f"curl -fsS --cacert /root/chain.pem {BROKER}/health", timeout=30)

with subtest("no network of its own, and no right beyond its sockets"):
    process = broker.succeed(f"systemctl show -P MainPID {SERVICE}").strip()
    assert broker.succeed(f"nsenter -t {process} -n ip -o link").count("\n") == 1
    exposure = broker.succeed(f"systemd-analyze security --no-pager {SERVICE} | tail -n 1")
    assert " 0.2 " in exposure, exposure
