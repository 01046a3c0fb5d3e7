SERVICE = "gemmapod-signal.service"
HEALTH = "curl -fsS --unix-socket /run/gemmapod-signal/http.sock http://pods.example.org/health"

machine.wait_for_unit(SERVICE)

with subtest("the group of the proxy is served"):
    machine.succeed(f"runuser -u nobody -g www-data -- {HEALTH}")

with subtest("others are not"):
    machine.fail(f"runuser -u nobody -- {HEALTH}")
    mode = machine.succeed("stat -c '%a %U %G' /run/gemmapod-signal/http.sock").strip()
    assert mode == "660 root www-data", mode

with subtest("the broker listens on no port"):
    process = machine.succeed(f"systemctl show -P MainPID {SERVICE}").strip()
    listening = machine.succeed("ss -Hltnp")
    assert "gemmapod" not in listening, listening
    assert machine.succeed(f"nsenter -t {process} -n ss -Hltn") == ""

with subtest("a restart refuses nobody"):
    machine.succeed(f"systemctl restart --no-block {SERVICE}")
    for _ in range(20):
        machine.succeed(HEALTH)

with subtest("the socket goes with its unit"):
    machine.succeed("systemctl stop gemmapod-signal-http-run-gemmapod-signal-http.sock-www-data.socket")
    machine.succeed("! test -e /run/gemmapod-signal/http.sock")
