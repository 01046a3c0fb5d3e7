import json

# What the broker 0.1.0 left behind: three pods, by slug and by the hash of their bytes.
OLD_PODS = {
    "D0dSdBQtNziX": "old-1",
    "VRprHipm-Ns3": "old-2",
    "zUyiC_iqqF8L": "old-3",
}
DATA = "/var/lib/private/gemmapod-signal"

machine.wait_for_unit("gemmapod-signal.service")

with subtest("the data of the version before are put in place of this one's"):
    machine.succeed("systemctl stop gemmapod-signal.service gemmapod-signal-http-ipv4-8080.socket")
    owner = machine.succeed(f"stat -c %u:%g {DATA}").strip()
    machine.succeed(f"rm -rf {DATA}/* && tar -xzf /etc/data-of-0.1.0.tar.gz -C {DATA} && chown -R {owner} {DATA} && chmod 700 {DATA}")
    machine.succeed("systemctl start gemmapod-signal.service")
    machine.wait_for_unit("gemmapod-signal.service")

with subtest("the old pods are served, byte by byte"):
    for slug, name in OLD_PODS.items():
        digest = machine.succeed(f"curl -fsS http://machine:8080/{slug} | sha256sum").split()[0]
        machine.succeed(f"test -e {DATA}/blobs/{digest} || ls {DATA}/blobs | grep -q {digest}")
        meta = json.loads(machine.succeed(f"curl -fsS http://machine:8080/{slug}/meta"))
        assert meta["id"] == slug and meta["createdAt"].startswith("2026-11-24T10:"), meta
        assert machine.succeed(f"curl -fsS http://machine:8080/{slug} | grep -c 'title>Pod {name[-1]}<'").strip() == "1"

with subtest("new ones are taken beside them"):
    new = json.loads(machine.succeed("chat-pod /root/pod new-pod http://machine:8080"))
    machine.succeed(f"curl -fsS {new['url']} | cmp - /root/pod/agent.html")

with subtest("a restart with another version refuses nobody"):
    # 300 requests, one after the other, while the service is restarted three times.
    machine.succeed(
        "systemd-run --unit=client --setenv=PATH --property=Type=oneshot --no-block sh -c"
        " 'for at in $(seq 300); do curl -fsS -o /dev/null http://machine:8080/VRprHipm-Ns3 || exit 1; sleep 0.01; done'"
    )
    for _ in range(3):
        machine.succeed("systemctl restart gemmapod-signal.service")
    machine.wait_until_succeeds("systemctl show -P ActiveState client.service | grep -x inactive", timeout=60)
    assert machine.succeed("systemctl show -P Result client.service").strip() == "success"

with subtest("all of it is there after another restart"):
    for slug in [*OLD_PODS, new["id"]]:
        machine.succeed(f"curl -fsS -o /dev/null http://machine:8080/{slug}")
