import json

machine.wait_for_unit("gemmapod-signal.service")

uploaded = []
for number in range(3):
    uploaded.append(json.loads(machine.succeed(f"chat-pod /root/pod-{number} pod-{number} http://machine:8080")))
served = machine.succeed(*(f"curl -fsS {pod['url']} | sha256sum" for pod in uploaded))
built = machine.succeed(*(f"sha256sum < /root/pod-{number}/agent.html" for number in range(3)))
assert served == built, served

with subtest("a crash right after the last answer loses nothing"):
    last = json.loads(machine.succeed("chat-pod /root/pod-3 pod-3 http://machine:8080"))
    machine.crash()
    machine.start()
    machine.wait_for_unit("gemmapod-signal.service")
    assert machine.succeed(*(f"curl -fsS {pod['url']} | sha256sum" for pod in uploaded)) == built
    assert machine.succeed(f"curl -fsS {last['url']}/meta | jq -r .id").strip() == last["id"]

with subtest("neither does a shutdown"):
    machine.shutdown()
    machine.start()
    machine.wait_for_unit("gemmapod-signal.service")
    assert machine.succeed(*(f"curl -fsS {pod['url']} | sha256sum" for pod in uploaded)) == built

with subtest("an upload that was cut off leaves nothing behind"):
    before = machine.succeed("ls /var/lib/gemmapod-signal/blobs | wc -l")
    machine.succeed(
        "systemd-run --unit=slow curl --limit-rate 100k -sS -H 'content-type: text/html' --data-binary @/root/pod-0/agent.html http://machine:8080/pods"
    )
    machine.wait_until_succeeds("ss -Htn state established '( dport = :8080 )' | grep -q .", timeout=10)
    machine.crash()
    machine.start()
    machine.wait_for_unit("gemmapod-signal.service")
    assert machine.succeed("ls /var/lib/gemmapod-signal/blobs | wc -l") == before
