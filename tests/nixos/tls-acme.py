import hashlib
import json

QUESTION = "Who vouches for you?"
SECRET = "only the model of this test knows it"
BROKER = "https://broker.example.org"
DIRECTORY = "authority.example.org"

PEBBLE = {
    "pebble": {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "0.0.0.0:15000",
        "certificate": "/run/pebble/cert.pem",
        "privateKey": "/run/pebble/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
}

start_all()

with subtest("an ACME directory, with a certificate that nobody knows yet"):
    authority.succeed("mkdir -p /run/pebble")
    authority.succeed(
        "cd /run/pebble && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=directory-root"
        " -keyout root-key.pem -out root.pem 2>&1 && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        f" -subj /CN=directory -keyout key.pem -out request.pem 2>&1 && printf 'subjectAltName=DNS:{DIRECTORY}\\n' > names"
        " && openssl x509 -req -in request.pem -CA root.pem -CAkey root-key.pem -days 30 -extfile names -out cert.pem 2>&1"
    )
    authority.succeed(f"echo '{json.dumps(PEBBLE)}' > /run/pebble/config.json")
    authority.succeed("systemd-run --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 pebble -config /run/pebble/config.json")
    authority.wait_for_open_port(14000)

with subtest("the broker says what is wrong as long as the directory's root is missing"):
    broker.wait_until_succeeds("journalctl -u gemmapod-signal.service | grep -F /etc/acme-directory.pem", timeout=30)

with subtest("with it, the broker gets a certificate"):
    root = authority.succeed("cat /run/pebble/root.pem")
    broker.succeed(f"cat > /etc/acme-directory.pem <<'END'\n{root}\nEND")
    broker.succeed("systemctl restart gemmapod-signal.service")
    broker.wait_for_unit("gemmapod-signal.service")
    peers.succeed(f"cat > /root/directory.pem <<'END'\n{root}\nEND")
    peers.succeed(f"curl -fsS --cacert /root/directory.pem https://{DIRECTORY}:15000/roots/0 > /root/ca.pem")
    peers.wait_until_succeeds(f"curl -fsS --cacert /root/ca.pem {BROKER}/health", timeout=60)

SERIAL = "openssl s_client -connect broker.example.org:443 -servername broker.example.org < /dev/null 2>/dev/null | openssl x509 -noout -serial -issuer"

with subtest("the certificate is kept over a restart"):
    before = peers.succeed(SERIAL)
    assert "Pebble" in before, before
    broker.succeed("systemctl restart gemmapod-signal.service")
    assert peers.succeed(SERIAL) == before

with subtest("peers that trust the directory chat"):
    trusting = "NODE_EXTRA_CA_CERTS=/root/ca.pem"
    pod = json.loads(peers.succeed(f"{trusting} chat-pod /root/pod vouched-pod {BROKER}"))
    peers.succeed(f"systemd-run --unit=origin --setenv=HOME=/root --setenv={trusting} chat-origin /root/pod '{SECRET}'")
    peers.wait_until_succeeds(f"curl -fsS --cacert /root/ca.pem {BROKER}/health | grep vouched-pod", timeout=30)
    token = hashlib.sha256((SECRET + QUESTION).encode()).hexdigest()
    answer = peers.succeed(f"{trusting} chat-visitor {pod['url']} '{QUESTION}'")
    assert answer == f'The answer to "{QUESTION}" is {token}.\n', answer

with subtest("ACME needs the network, and no right beyond it"):
    main = broker.succeed("systemctl show -P MainPID gemmapod-signal.service").strip()
    status = dict(line.split(":\t", 1) for line in broker.succeed(f"cat /proc/{main}/status").splitlines() if ":\t" in line)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}, status
    exposure = broker.succeed("systemd-analyze security --no-pager gemmapod-signal.service | tail -n 1")
    print(exposure.strip())
    assert float(exposure.split("level for gemmapod-signal.service: ")[1].split()[0]) <= 1.6, exposure
