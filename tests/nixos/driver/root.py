"""The root file system that all machines share, made once of Debian packages."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"  # systemd 257: Type=notify-reload, RestartSteps=
PACKAGES = [
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "jq",
    "libgcc-s1",
    "libstdc++6",
    "netcat-openbsd",
    "nftables",
    "openssl",
    "pebble",
    "procps",
    "python3-minimal",
    "systemd",
    "systemd-sysv",
]
# Debian's own rules and addresses would take the place of the driver's.
MASKED = [
    "nftables.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
]
LEFT_OUT = ["/usr/share/man/*", "/usr/share/locale/*"]


def root(cache: Path) -> Path:
    """The root file system below `cache`, made now if it is not there."""
    key = hashlib.sha256(repr((SUITE, PACKAGES, MASKED, LEFT_OUT)).encode()).hexdigest()[:12]
    made = cache / f"root-{key}"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"root-{key}.{os.getpid()}"
    print(f"making {made.name} of {SUITE} with {len(PACKAGES)} packages", flush=True)
    try:
        subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
                '--customize-hook=rm -f "$1/etc/machine-id" "$1/etc/hostname"',
                *(f'--customize-hook=ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in MASKED),
                SUITE,
                str(unfinished),
            ],
            check=True,
        )
        unfinished.rename(made)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return made
