"""A service manager with a socket unit, as far as a broker can tell: `socket-unit.py COMMAND ARGUMENT...`.

It listens on a free port and runs COMMAND on that socket. SIGUSR1 stops it with SIGTERM and starts it again once it has
ended; the socket stays open. It ends when COMMAND does.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys

listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
os.dup2(listening.fileno(), 3)

RUN = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$@"'
service = None
restarting = False


def end_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start():
    command = ["/bin/sh", "-c", RUN, "sh", *sys.argv[1:]]
    return subprocess.Popen(command, pass_fds=[3], preexec_fn=end_with_parent)


def restart(*_):
    global restarting
    restarting = True
    service.terminate()


def stop(*_):
    service.terminate()


signal.signal(signal.SIGUSR1, restart)
signal.signal(signal.SIGTERM, stop)
service = start()
while True:
    status = service.wait()
    if not restarting:
        sys.exit(status)
    restarting = False
    service = start()
