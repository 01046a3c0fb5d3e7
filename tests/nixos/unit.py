import json

SERVICE = "gemmapod-signal.service"
BROKER = "http://machine:8080"


def show(name: str) -> str:
    return machine.succeed(f"systemctl show -P {name} {SERVICE}").strip()


def with_drop_in(*lines: str) -> None:
    """Restarts the service with these lines in its [Service] section; without any, as it was declared."""
    folder = f"/run/systemd/system/{SERVICE}.d"
    text = "".join(f"{line}\\n" for line in lines)
    machine.succeed(f"mkdir -p {folder} && printf '[Service]\\n{text}' > {folder}/test.conf && systemctl daemon-reload")
    machine.succeed(f"systemctl restart {SERVICE}")
    machine.wait_for_unit(SERVICE)


def restarted_since(process: str) -> None:
    machine.wait_until_succeeds(
        f"test $(systemctl show -P ActiveState {SERVICE}) = active && test $(systemctl show -P MainPID {SERVICE}) != {process}", timeout=60
    )
    machine.wait_for_unit(SERVICE)


def ended_by_kill() -> int:
    journal = machine.succeed(f"journalctl --no-pager -o cat -u {SERVICE}")
    return journal.count("Main process exited, code=killed, status=9/KILL")


def served() -> str:
    return machine.succeed(*(f"curl -fsS {pod['url']} | sha256sum" for pod in pods))


machine.wait_for_unit(SERVICE)
pods = [json.loads(machine.succeed(f"chat-pod /root/pod-{number} pod-{number} {BROKER}")) for number in range(2)]
before = served()

with subtest("systemd hands over the sockets"):
    environment = machine.succeed(f"tr '\\0' '\\n' < /proc/{show('MainPID')}/environ")
    assert "LISTEN_FDS=1" in environment and "LISTEN_FDNAMES=http" in environment, environment
    listeners = machine.succeed("ss -Hltnp 'sport = :8080'")
    assert '"systemd",pid=1,' in listeners and f"pid={show('MainPID')}," in listeners, listeners

with subtest("the service is ready when it says so, and says how things stand"):
    assert (show("Type"), show("DynamicUser")) == ("notify-reload", "yes")
    machine.wait_until_succeeds(f"systemctl show -P StatusText {SERVICE} | grep -x 'origins: 0, sessions: 0'", timeout=30)
    machine.succeed("systemd-run --unit=origin --setenv=HOME=/root chat-origin /root/pod-0 secret")
    machine.wait_until_succeeds(f"systemctl show -P StatusText {SERVICE} | grep -x 'origins: 1, sessions: 0'", timeout=30)
    machine.succeed("systemctl stop origin.service")

with subtest("the watchdog is fed"):
    with_drop_in("WatchdogSec=2")
    first = int(show("WatchdogTimestampMonotonic"))
    assert first > 0
    machine.wait_until_succeeds(f"test $(systemctl show -P WatchdogTimestampMonotonic {SERVICE}) -gt {first + 3_000_000}", timeout=30)
    assert show("NRestarts") == "0"

with subtest("a frozen process is noticed and replaced"):
    process = show("MainPID")
    machine.succeed(f"kill -STOP {process}")
    restarted_since(process)
    journal = machine.succeed(f"journalctl --no-pager -o cat -u {SERVICE}")
    assert "Watchdog timeout" in journal and "result 'watchdog'" in journal, journal
    assert served() == before

with subtest("a killed process is replaced"):
    with_drop_in()
    process = show("MainPID")
    machine.succeed(f"kill -KILL {process}")
    restarted_since(process)
    assert served() == before
    assert show("NRestarts") == "1"

with subtest("one that cannot start is not started again and again"):
    with_drop_in()
    config = "/etc/gemmapod-signal/config.toml"
    machine.succeed(f"cp -L {config} /root/config.toml && cp --remove-destination /root/config.toml {config} && echo nonsense >> {config}")
    machine.fail(f"systemctl restart {SERVICE}")
    assert (show("ActiveState"), show("ExecMainStatus"), show("NRestarts")) == ("failed", "2", "0")
    machine.succeed(f"cp /root/config.toml {config} && systemctl restart {SERVICE}")
    machine.wait_for_unit(SERVICE)
    assert served() == before

with subtest("memory over its bound ends the process, and loses nothing that was acknowledged"):
    with_drop_in("MemoryMax=48M")
    process = show("MainPID")
    kills = ended_by_kill()
    # An upload of 50 MB is held in memory until it is whole.
    machine.succeed("head -c 50000000 /dev/zero > /root/large")
    machine.succeed(
        f"for at in $(seq 8); do systemd-run --unit=attack-$at curl -sS -H 'content-type: text/html' --data-binary @/root/large {BROKER}/pods 2>/dev/null; done"
    )
    pods += [
        json.loads(text)
        for text in machine.succeed(
            f"for at in 0 1; do chat-pod /root/during-$at during-$at {BROKER} 2>/dev/null || true; done"
        ).splitlines()
    ]
    restarted_since(process)
    assert ended_by_kill() == kills + 1
    built = machine.succeed(*(f"sha256sum < /root/pod-{number}/agent.html" for number in range(2)))
    assert served().startswith(built) and built == before
    print(f"   {len(pods) - 2} of 2 uploads were acknowledged during the attack, all are there")
    machine.succeed("rm /root/large")

with subtest("its data stay its own when its user gets another id"):
    with_drop_in()
    uid = machine.succeed(f"stat -c %u /proc/{show('MainPID')}").strip()
    # Another service takes the id while this one is stopped: the owner of a state directory is tried first.
    machine.succeed(f"systemctl stop {SERVICE} && mkdir -m 700 -p /var/lib/private/rival && chown {uid} /var/lib/private/rival")
    machine.succeed(
        "systemd-run --unit=rival --service-type=exec --property=DynamicUser=yes --property=User=rival --property=StateDirectory=rival sleep infinity"
    )
    assert machine.succeed("stat -c %u /proc/$(systemctl show -P MainPID rival.service)").strip() == uid
    machine.succeed(f"systemctl start {SERVICE}")
    machine.wait_for_unit(SERVICE)
    other = machine.succeed(f"stat -c %u /proc/{show('MainPID')}").strip()
    assert other != uid, (uid, other)
    owners = machine.succeed("find /var/lib/private/gemmapod-signal -printf '%U\\n' | sort -u").split()
    assert owners == [other], owners
    served()
    pods.append(json.loads(machine.succeed(f"chat-pod /root/late late-pod {BROKER}")))
    machine.succeed("systemctl stop rival.service")
    with_drop_in()
    served()

with subtest("it stops when it is told to, and its socket goes on waiting"):
    machine.succeed(f"systemctl stop {SERVICE}")
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    assert machine.succeed("systemctl is-active gemmapod-signal-http-ipv4-8080.socket").strip() == "active"
    served()
    assert show("ActiveState") == "active"
