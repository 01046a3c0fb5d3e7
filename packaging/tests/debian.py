import hashlib
import json

QUESTION = "What are you packed in?"
SECRET = "only the model of this test knows it"
BROKER = "http://localhost:8080"
DATA = "/var/lib/private/gemmapod-signal"

with subtest("the package installs, and the service runs at once"):
    machine.succeed("dpkg -i /opt/gemmapod-signal.deb")
    machine.wait_for_unit("gemmapod-signal.service")
    assert machine.succeed("dpkg -V gemmapod-signal") == ""
    machine.succeed("gemmapod-signal check-config /etc/gemmapod-signal/config.toml")

with subtest("peers chat through it"):
    pod = json.loads(machine.succeed(f"chat-pod /root/pod packed-pod {BROKER}"))
    machine.succeed(f"systemd-run --unit=origin --setenv=HOME=/root chat-origin /root/pod '{SECRET}'")
    machine.wait_until_succeeds(f"curl -fsS {BROKER}/health | grep packed-pod", timeout=30)
    token = hashlib.sha256((SECRET + QUESTION).encode()).hexdigest()
    answer = machine.succeed(f"chat-visitor {pod['url']} '{QUESTION}'")
    assert answer == f'The answer to "{QUESTION}" is {token}.\n', answer

with subtest("its exposure is that of the module's host"):
    summary = machine.succeed("systemd-analyze security --no-pager gemmapod-signal.service").strip().splitlines()[-1]
    print(summary)
    assert float(summary.split("level for gemmapod-signal.service: ")[1].split()[0]) <= 1.0, summary

with subtest("it starts with the machine"):
    machine.reboot()
    machine.wait_for_unit("gemmapod-signal.service")
    machine.succeed(f"curl -fsS {pod['url']} | cmp - /root/pod/agent.html")

with subtest("a newer package restarts it and keeps changed settings"):
    machine.succeed(
        "echo 'drain_timeout = \"5s\"' | cat - /etc/gemmapod-signal/config.toml > /root/new && cp /root/new /etc/gemmapod-signal/config.toml"
    )
    before = machine.succeed("systemctl show -P MainPID gemmapod-signal.service")
    machine.succeed("dpkg --force-confold -i /opt/gemmapod-signal.deb")
    machine.wait_for_unit("gemmapod-signal.service")
    assert machine.succeed("systemctl show -P MainPID gemmapod-signal.service") != before
    machine.succeed("grep drain_timeout /etc/gemmapod-signal/config.toml")
    machine.succeed(f"curl -fsS {pod['url']} | cmp - /root/pod/agent.html")

with subtest("its ACME example is a whole host"):
    # The very commands that the package's README tells.
    commands = machine.succeed("grep -E '^  (cp|sed|systemctl) ' /usr/share/doc/gemmapod-signal/README.Debian").replace(
        "YOUR.DOMAIN", "pods.example.net"
    )
    machine.succeed(f"set -e\n{commands}")
    assert (
        machine.succeed("curl -sS -o /dev/null -w '%{redirect_url}' -H 'Host: pods.example.net' http://localhost/x")
        == "https://pods.example.net/x"
    )
    machine.succeed("rm -r /etc/systemd/system/gemmapod-signal* /etc/systemd/system/*.wants/gemmapod-signal*")

with subtest("it goes, and leaves the pods"):
    machine.succeed("dpkg --purge gemmapod-signal 2>&1")
    machine.fail("test -e /usr/bin/gemmapod-signal")
    machine.fail("systemctl is-active gemmapod-signal.service")
    machine.succeed(f"test -e {DATA}/registry.redb")
