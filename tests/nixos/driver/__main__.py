"""Plays the scripts of the NixOS tests on booted containers: `driver [--binary PATH] [--keep] [NAME...]`.

Without names, all of them. Ends with 1 if one failed, and with 77 if none failed and one could not be played.
"""

import argparse
import contextlib
import fcntl
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from root import root  # noqa: E402
from scene import TESTS, Scene, Tools  # noqa: E402

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


def play(name: str, tools: Tools, work: Path, verbose: bool) -> str | None:
    """Plays one script; why it could not be played, if so. An exception of the script is a failure."""
    log = Log(verbose)
    scene = Scene(name, tools, work, log)
    try:
        script = (TESTS / f"{name}.py").read_text()
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

        offered = {machine.name: machine for machine in scene.machines}
        offered |= {"machines": scene.machines, "start_all": start_all, "subtest": subtest, "log": log}
        if len(scene.machines) == 1:
            offered.setdefault("machine", scene.machines[0])
        exec(compile(script, str(TESTS / f"{name}.py"), "exec"), offered)
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
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/gemmapod-signal")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()

    # A signal ends the machines as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cache = REPOSITORY / "target/machines"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lower = root(cache)
        tools = Tools(lower, options.binary.resolve(strict=True))
        names = options.names or sorted(script.stem for script in TESTS.glob("*.py"))
        passed, failed, skipped = 0, [], []
        for name in names:
            begin = time.monotonic()
            print(f"{name}", flush=True)
            try:
                reason = play(name, tools, cache, options.verbose)
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
