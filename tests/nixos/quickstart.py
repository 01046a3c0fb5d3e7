import hashlib
import json

QUESTION = "Who are you?"
SECRET = "only the model of this test knows it"

machine.wait_for_unit("gemmapod-signal.service")
machine.wait_for_open_port(8080)

with subtest("the broker is healthy"):
    health = json.loads(machine.succeed("curl -fsS http://machine:8080/health"))
    assert health == {"ok": True, "origins": 0, "sessions": 0, "registry": "redb"}, health

with subtest("an owner signs a pod and uploads it"):
    pod = json.loads(machine.succeed("chat-pod /tmp/pod quickstart-pod http://machine:8080"))
    assert pod["url"] == f"http://machine:8080/{pod['id']}", pod

with subtest("a visitor is told that the origin is away"):
    machine.fail(f"chat-visitor {pod['url']} '{QUESTION}'")

with subtest("an origin registers"):
    machine.succeed(f"systemd-run --unit=origin --setenv=HOME=/tmp chat-origin /tmp/pod '{SECRET}'")
    machine.wait_until_succeeds("curl -fsS http://machine:8080/health | grep quickstart-pod", timeout=30)

with subtest("a visitor chats with it"):
    token = hashlib.sha256((SECRET + QUESTION).encode()).hexdigest()
    answer = machine.succeed(f"chat-visitor {pod['url']} '{QUESTION}'")
    assert answer == f'The answer to "{QUESTION}" is {token}.\n', answer
