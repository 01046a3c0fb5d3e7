import json

CONFIG = "/etc/gemmapod-signal/config.toml"
SERVICE = "gemmapod-signal.service"


def show(name: str) -> str:
    return machine.succeed(f"systemctl show -P {name} {SERVICE}").strip()


def change(text: str) -> None:
    """Puts `text` before the first table of the configuration, which is a link into the store on NixOS."""
    machine.succeed(f"cp --remove-destination {CONFIG}.declared {CONFIG} && printf '%s\\n' '{text}' | cat - {CONFIG}.declared > {CONFIG}")


def origins() -> int:
    return json.loads(machine.succeed("curl -fsS http://machine:8080/health"))["origins"]


machine.wait_for_unit(SERVICE)
machine.succeed(f"cp -L {CONFIG} {CONFIG}.declared")
machine.succeed("chat-pod /root/pod steady-pod http://machine:8080")
machine.succeed("systemd-run --unit=origin --setenv=HOME=/root chat-origin /root/pod secret")
machine.wait_until_succeeds("curl -fsS http://machine:8080/health | grep steady-pod", timeout=30)
process = show("MainPID")

with subtest("another setting holds at once, and who is connected stays so"):
    change('public_url = "https://pods.example.org"')
    machine.succeed(f"systemctl reload {SERVICE}")
    assert show("ActiveState") == "active"
    pod = json.loads(machine.succeed("chat-pod /root/other other-pod http://machine:8080"))
    assert pod["url"] == f"https://pods.example.org/{pod['id']}", pod
    assert (origins(), show("MainPID")) == (1, process)

with subtest("systemd was told when the reload was over"):
    journal = machine.succeed(f"journalctl --no-pager -o cat -u {SERVICE}")
    assert "Reloaded gemmapod-signal.service" in journal, journal
    assert journal.count(f"Started {SERVICE}") == 1, journal

with subtest("a wrong configuration changes nothing, and the log says what is wrong"):
    change('public_ur = "https://wrong.example.org"')
    machine.succeed(f"systemctl reload {SERVICE}")
    assert show("ActiveState") == "active"
    journal = machine.succeed(f"journalctl --no-pager -o cat -u {SERVICE}")
    assert 'unknown key "public_ur"; did you mean "public_url"?' in journal, journal
    pod = json.loads(machine.succeed("chat-pod /root/third third-pod http://machine:8080"))
    assert pod["url"] == f"https://pods.example.org/{pod['id']}", pod
    assert (origins(), show("MainPID")) == (1, process)

with subtest("what needs a restart is named"):
    change('registry = "memory"')
    machine.succeed(f"systemctl reload {SERVICE}")
    journal = machine.succeed(f"journalctl --no-pager -o cat -u {SERVICE} | tail -n 5")
    assert "registry" in journal and "restart" in journal, journal

with subtest("the declared configuration is back"):
    machine.succeed(f"cp --remove-destination {CONFIG}.declared {CONFIG}")
    machine.succeed(f"systemctl reload {SERVICE}")
    pod = json.loads(machine.succeed("chat-pod /root/fourth fourth-pod http://machine:8080"))
    assert pod["url"] == f"http://machine:8080/{pod['id']}", pod
    assert (origins(), show("MainPID")) == (1, process)

with subtest("SIGHUP does the same"):
    change('public_url = "https://hup.example.org"')
    machine.succeed(f"systemctl kill --signal=SIGHUP --kill-whom=main {SERVICE}")
    machine.wait_until_succeeds("chat-pod /root/fifth fifth-pod http://machine:8080 | grep hup.example.org", timeout=30)
    assert origins() == 1
