import hashlib
import json

QUESTION = "Is this line private?"
SECRET = "only the model of this test knows it"
BROKER = "https://broker.example.org"

start_all()
broker.wait_for_unit("gemmapod-signal.service")
ca = broker.succeed("gemmapod-signal ca --config /etc/gemmapod-signal/config.toml")
peers.succeed(f"cat > /root/ca.pem <<'END'\n{ca}\nEND")

with subtest("a client that does not trust the authority is not fooled"):
    peers.wait_for_open_port(443, "broker")
    peers.fail(f"curl -fsS {BROKER}/health")

with subtest("one that does is served, over HTTP/1.1 and HTTP/2"):
    peers.succeed(f"curl -fsS --cacert /root/ca.pem --http1.1 {BROKER}/health")
    version = peers.succeed(f"curl -fsS --cacert /root/ca.pem -o /dev/null -w '%{{http_version}}' {BROKER}/health")
    assert version == "2", version

with subtest("http leads to https"):
    location = peers.succeed("curl -sS -o /dev/null -w '%{redirect_url}' http://broker.example.org/health")
    assert location == f"{BROKER}/health", location

with subtest("peers that trust it chat"):
    peers.succeed("mkdir -p /root/pod")
    trusting = "NODE_EXTRA_CA_CERTS=/root/ca.pem"
    pod = json.loads(peers.succeed(f"{trusting} chat-pod /root/pod private-pod {BROKER}"))
    assert pod["url"] == f"{BROKER}/{pod['id']}", pod
    peers.succeed(f"systemd-run --unit=origin --setenv=HOME=/root --setenv={trusting} chat-origin /root/pod '{SECRET}'")
    peers.wait_until_succeeds(f"curl -fsS --cacert /root/ca.pem {BROKER}/health | grep private-pod", timeout=30)
    token = hashlib.sha256((SECRET + QUESTION).encode()).hexdigest()
    answer = peers.succeed(f"{trusting} chat-visitor {pod['url']} '{QUESTION}'")
    assert answer == f'The answer to "{QUESTION}" is {token}.\n', answer

with subtest("the authority outlives a restart of the machine"):
    broker.shutdown()
    broker.start()
    broker.wait_for_unit("gemmapod-signal.service")
    peers.wait_until_succeeds(f"curl -fsS --cacert /root/ca.pem {BROKER}/health", timeout=30)

with subtest("the keys are the service's alone"):
    modes = broker.succeed("find /var/lib/gemmapod-signal/ -type f -name '*key*' -printf '%m\\n' | sort -u")
    assert modes.split() == ["600"], modes
