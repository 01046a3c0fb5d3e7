SERVICE = "gemmapod-signal.service"
DATA = "/var/lib/private/gemmapod-signal"

machine.wait_for_unit(SERVICE)
main = machine.succeed(f"systemctl show -P MainPID {SERVICE}").strip()
status = dict(line.split(":\t", 1) for line in machine.succeed(f"cat /proc/{main}/status").splitlines() if ":\t" in line)
uid, gid = status["Uid"].split()[0], status["Gid"].split()[0]
# As the service, with what it sees of the file system.
as_service = f"nsenter --target {main} --mount --net --ipc --wd=/ setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs"

with subtest("the exposure is 1.0 or lower"):
    report = machine.succeed(f"systemd-analyze security --no-pager {SERVICE}")
    summary = report.strip().splitlines()[-1]
    print(summary)
    exposure = float(summary.split(f"level for {SERVICE}: ")[1].split()[0])
    assert exposure <= 1.0, report

with subtest("it has no capability and can get none"):
    capabilities = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert set(capabilities.values()) == {"0" * 16}, capabilities
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status

with subtest("its user exists only while it runs, and is neither root nor anybody else"):
    assert uid != "0" and 61184 <= int(uid) <= 65519, uid
    machine.fail("grep gemmapod /etc/passwd")
    others = machine.succeed(f"ps -o pid= -U {uid}").split()
    assert others == [main], others

with subtest("it can write to its data directory, and nowhere else"):
    places = machine.succeed(f"{as_service} find / ! -path '/proc/*' -type d -writable 2>/dev/null || true").split()
    own = [DATA, "/var/lib/gemmapod-signal"]
    foreign = [place for place in places if not any(place == root or place.startswith(f"{root}/") for root in own)]
    assert foreign == [], foreign
    assert DATA in places, places
    machine.succeed("mkdir -p -m 777 /srv/open")  # where everybody else may
    for path in ("/srv/open/new", "/etc/new", "/var/new", "/run/new", "/usr/new", "/root/new", "/home/new"):
        machine.fail(f"{as_service} sh -c 'echo x > {path}' 2>/dev/null")

with subtest("what it writes cannot be run"):
    machine.succeed(f"{as_service} cp /bin/sh {DATA}/sh")
    machine.fail(f"{as_service} {DATA}/sh -c true")
    machine.succeed(f"rm {DATA}/sh")

with subtest("nobody else reads its data"):
    modes = machine.succeed(f"find {DATA} -printf '%U %m\\n' | sort -u").splitlines()
    assert all(line in (f"{uid} 700", f"{uid} 600") for line in modes), modes

with subtest("it has no network but the sockets it was handed"):
    links = machine.succeed(f"nsenter --target {main} --net ip -oneline link").splitlines()
    assert [line.split(": ")[1] for line in links] == ["lo"], links
    machine.fail(f"{as_service} curl -sS --max-time 2 http://machine:8080/health")
    machine.succeed("curl -fsS http://machine:8080/health")

with subtest("it sees no process of others"):
    seen = machine.succeed(f"nsenter --target {main} --mount --wd=/ setpriv --reuid {uid} --regid {gid} --clear-groups ls /proc").split()
    seen = [name for name in seen if name.isdigit()]
    ours = machine.succeed(f"ps -o pid= -U {uid}").split()
    foreign = [
        name
        for name in seen
        if name not in ours and machine.execute(f"test -d /proc/{name} && test $(stat -c %u /proc/{name}) != {uid}")[0] == 0
    ]
    assert foreign == [], foreign

with subtest("system calls that a broker has no use for are refused"):
    allowed = machine.succeed(f"systemctl show -P SystemCallFilter {SERVICE}").split()
    assert "openat" in allowed and "accept4" in allowed
    refused = {"mount", "ptrace", "setuid", "reboot", "init_module", "bpf", "keyctl", "chroot", "kexec_load"}
    assert not refused & set(allowed), refused & set(allowed)
