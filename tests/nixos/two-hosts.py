import hashlib
import json

QUESTION = "Are you far away?"
SECRET = "only the model of this test knows it"
BROKER = "http://broker.example.org:8080"

start_all()
broker.wait_for_unit("gemmapod-signal.service")

with subtest("the origin's owner uploads a pod from another machine, and registers"):
    pod = json.loads(origin.succeed(f"chat-pod /root/pod far-pod {BROKER}"))
    assert pod["url"] == f"{BROKER}/{pod['id']}", pod
    origin.succeed(f"systemd-run --unit=origin --setenv=HOME=/root chat-origin /root/pod '{SECRET}'")
    broker.wait_until_succeeds("curl -fsS http://localhost:8080/health | jq -e '.origins == 1'", timeout=30)

with subtest("a visitor on a third machine chats with the origin"):
    token = hashlib.sha256((SECRET + QUESTION).encode()).hexdigest()
    answer = visitor.succeed(f"chat-visitor {pod['url']} '{QUESTION}'")
    assert answer == f'The answer to "{QUESTION}" is {token}.\n', answer

with subtest("an origin that goes is gone at once"):
    origin.succeed("systemctl stop origin.service")
    broker.wait_until_succeeds("curl -fsS http://localhost:8080/health | jq -e '.origins == 0'", timeout=10)

with subtest("an origin comes back by itself after a crash of the broker's machine"):
    origin.succeed(f"systemd-run --unit=origin --setenv=HOME=/root chat-origin /root/pod '{SECRET}'")
    broker.wait_until_succeeds("curl -fsS http://localhost:8080/health | jq -e '.origins == 1'", timeout=30)
    broker.crash()
    broker.start()
    broker.wait_for_unit("gemmapod-signal.service")
    broker.wait_until_succeeds("curl -fsS http://localhost:8080/health | jq -e '.origins == 1'", timeout=60)
    assert visitor.succeed(f"chat-visitor {pod['url']} '{QUESTION}'") == answer
