"""Plays the scripts of the NixOS tests on booted containers.

A test is a name, or the path of another pair of TEST.nix and TEST.py; without any, all of tests/nixos are played.
Ends with 1 if one failed, and with 77 if none failed and one could not be played.
"""

import argparse
import contextlib
import fcntl
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from root import root
from scene import TESTS, Scene, Tools

REPOSITORY = TESTS.parent.parent
NEEDS_FIREWALL = re.compile(r"^# needs a firewall$", re.MULTILINE)


class Log:
    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._begin = time.monotonic()
        self.lines: list[str] = []

    def __call__(self, message: str) -> None:
        self.lines.append(f"{time.monotonic() - self._begin:7.2f} {message}")
        if self._verbose:
            print(self.lines[-1], flush=True)


def play(test: Path, tools: Tools, work: Path, verbose: bool) -> str | None:
    """Plays one script; why it could not be played, if so. An exception of the script is a failure."""
    log = Log(verbose)
    scene = Scene(test, tools, work, log)
    try:
        script = test.with_suffix(".py").read_text()
        if scene.without_firewall is not None and NEEDS_FIREWALL.search(script):
            return f"this kernel refuses nftables: {scene.without_firewall}"

        @contextlib.contextmanager
        def subtest(title: str) -> Iterator[None]:
            log(f"-- {title}")
            begin = time.monotonic()
            try:
                yield
            except BaseException:
                print(f"   failed: {title}", flush=True)
                raise
            print(f"   {title} ({time.monotonic() - begin:.1f} s)", flush=True)

        def start_all() -> None:
            for machine in scene.machines:
                machine.start()

        offered: dict[str, object] = {machine.name: machine for machine in scene.machines}
        offered |= {"machines": scene.machines, "start_all": start_all, "subtest": subtest, "log": log}
        if len(scene.machines) == 1:
            offered.setdefault("machine", scene.machines[0])
        exec(compile(script, str(test.with_suffix(".py")), "exec"), offered)
        return None
    except Exception:
        print("\n".join(log.lines[-15:]))
        for machine in scene.machines:
            print(f"--- last lines of {machine.name}\n{machine.report()}")
        raise
    finally:
        scene.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="driver", description=__doc__)
    parser.add_argument("--binary", type=Path, help="the broker, /usr/bin/gemmapod-signal in the machines")
    parser.add_argument("--share", action="append", default=[], metavar="OUTSIDE:INSIDE", help="a file that the machines see too")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("tests", nargs="*", metavar="TEST")
    options = parser.parse_args()

    shared = {Path(outside).resolve(strict=True): inside for outside, inside in (share.split(":") for share in options.share)}
    if options.binary:
        shared[options.binary.resolve(strict=True)] = "/usr/bin/gemmapod-signal"

    # A signal ends the machines as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cache = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "machines"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tools = Tools(root(cache), shared)
        tests = [(TESTS / test).resolve() if "/" not in test else Path(test).resolve() for test in options.tests]
        tests = tests or sorted(script.with_suffix("") for script in TESTS.glob("*.py"))
        passed, failed, skipped = 0, [], []
        for test in tests:
            name = test.name
            begin = time.monotonic()
            print(f"{name}", flush=True)
            try:
                reason = play(test, tools, cache, options.verbose)
            except Exception:
                traceback.print_exc()
                failed.append(name)
                result = "FAILED"
            else:
                if reason is None:
                    passed += 1
                    result = "passed"
                else:
                    skipped.append(name)
                    result = f"SKIPPED: {reason}"
            print(f"{name}: {result} ({time.monotonic() - begin:.1f} s)", flush=True)
        print(f"machines: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    if failed:
        return 1
    return 77 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
