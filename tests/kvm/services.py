#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A service manager, as systemd would be one, and a machine that it starts: what the machine tells it and serves for it.

TAP on stdout. usage: services.py MVMM GUEST-DIRECTORY
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from tap import Tap

PATIENCE = 30 * int(os.environ.get("MVMM_PATIENCE", "1"))  # seconds for anything that must happen
MVMM, GUESTS = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
# As a manager does it between fork and exec: the socket is descriptor 3, and the numbers are the process's own.
STARTER = ["bash", "-c", 'LISTEN_PID=$$ WATCHDOG_PID=$$ exec "${@:2}" 3<&"$1"']


class Manager:
    """Its notify socket, a socket for the machine, and the machine."""

    def __init__(self, work, abstract, command):
        self.heard, self.work = [], work
        place = os.path.join(work, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind("\0" + place[1:] if abstract else place)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path = os.path.join(work, "control")
        self.listener.bind(self.path)
        self.listener.listen(4)
        # The leak detector needs /proc of the whole process, which a jail does not have.
        sanitizer = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "detect_leaks=0"]))
        environment = dict(os.environ, ASAN_OPTIONS=sanitizer, XDG_RUNTIME_DIR=work, NOTIFY_SOCKET="@" + place[1:] if abstract else place,
                           WATCHDOG_USEC="100000", LISTEN_FDS="1", LISTEN_FDNAMES="control")
        number = self.listener.fileno()
        self.machine = subprocess.Popen([*STARTER, "bash", str(number), MVMM, *command], env=environment, pass_fds=[number],
                                        cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def until(self, text):
        """Reads messages until one has text."""
        while True:
            message = self.socket.recv(4096).decode()
            self.heard.append(message)
            if text in message:
                return message

    def call(self, method, path=None):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect(path or self.path)
        client.sendall(json.dumps({"method": "io.mvmm.Machine." + method}).encode() + b"\0")
        reply = b""
        while not reply.endswith(b"\0"):
            reply += client.recv(65536)
        return json.loads(reply[:-1])

    def command(self, *words):
        subprocess.run([MVMM, *words], env=dict(os.environ, XDG_RUNTIME_DIR=self.work), check=True, timeout=PATIENCE,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def end(self):
        if self.machine.poll() is None:
            self.machine.kill()
        self.machine.communicate()
        self.socket.close()
        self.listener.close()


def with_manager(abstract, command, act):
    work = tempfile.mkdtemp()
    os.mkdir(os.path.join(work, "jail"))
    os.chmod(work, 0o700)
    manager = Manager(work, abstract, command)
    try:
        act(manager, work)
    finally:
        manager.end()
        shutil.rmtree(work)


def run(guest, *more):
    return ["run", "--name", "service", "--kernel", f"{GUESTS}/guest_{guest}", "--memory", "32M", *more]


def lives(tap):
    def act(manager, work):
        ready = manager.until("READY=1")
        tap.check("it is ready when the guest runs", "STATUS=running" in ready and len(manager.heard) == 1, manager.heard)
        manager.until("WATCHDOG=1")
        manager.until("WATCHDOG=1")
        tap.check("it gives signs of life", True)
        info = manager.call("Info")
        tap.check("it serves the socket that was handed in", info["parameters"]["name"] == "service", info)
        own = manager.call("Info", os.path.join(work, "mvmm/service/control.sock"))
        tap.check("... and its own", own["parameters"]["pid"] == info["parameters"]["pid"], own)
        manager.call("Pause")
        tap.check("it tells that it is paused", "STATUS=paused" in manager.until("STATUS=pa"), manager.heard)
        manager.call("Resume")
        tap.check("... and that it goes on", "STATUS=running" in manager.until("STATUS=r"), manager.heard)
        manager.machine.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        tap.check("it tells that it is ending", manager.machine.wait(PATIENCE) == 0, manager.machine.returncode)

    with_manager(False, run("button"), act)


def others(tap):
    def reboot(manager, work):
        manager.until("READY=1")
        manager.until("STATUS=rebooting")
        tap.check("a guest that reboots for ever is told of", True)

    def refused(manager, work):
        tap.check("a machine that cannot start ends", manager.machine.wait(PATIENCE) == 2)
        manager.until("STOPPING=1")
        tap.check("... and never was ready", not any("READY=1" in message for message in manager.heard), manager.heard)

    def receive(manager, work):
        tap.check("one that is to arrive is ready when it can", "waiting for a machine" in manager.until("READY=1"))
        manager.until("WATCHDOG=1")
        manager.machine.send_signal(signal.SIGTERM)
        tap.check("... and can be ended", manager.machine.wait(PATIENCE) == 128 + signal.SIGTERM, manager.machine.returncode)

    def jailed(manager, work):
        manager.until("READY=1")
        manager.until("WATCHDOG=1")
        tap.check("a machine in a jail is ready and lives", True)
        info = manager.call("Info")["parameters"]
        tap.check("... and is asked at the socket", info["name"] == "service" and info["pid"] != manager.machine.pid, info)
        manager.machine.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        tap.check("... and tells that it is ending", manager.machine.wait(PATIENCE) == 0, manager.machine.returncode)

    with_manager(False, run("button", "--jail", "jail"), jailed)
    with_manager(True, run("button", "--jail", "jail"), jailed)
    with_manager(True, run("fault"), reboot)
    with_manager(True, run("nothing-there"), refused)
    with_manager(True, ["receive", "--from", "unix:in.sock", "--name", "service"], receive)


def restores(tap):
    """Of a snapshot: one that restores at once, and one that waits for a request."""

    def keep(manager, work):
        manager.until("READY=1")
        manager.command("snapshot", "service", "--to", kept)
        tap.check("a snapshot is told of", "STATUS=saving" in manager.until("STATUS=s"), manager.heard)
        manager.until("STATUS=running")
        manager.command("stop", "service", "--force")

    def restored(manager, work):
        tap.check("a restored machine is ready when its guest runs", "STATUS=running" in manager.until("READY=1"), manager.heard)
        manager.until("WATCHDOG=1")
        info = manager.call("Info")
        tap.check("... and serves the socket", info["parameters"]["state"] == "running", info)

    def waits(manager, work):
        tap.check("one that waits is ready, too", "STATUS=waiting" in manager.until("READY=1"), manager.heard)
        manager.until("WATCHDOG=1")
        manager.command("restore", "--spare", "service", "--name", "service", "--serial", "none")
        tap.check("... and tells when it runs", "STATUS=running" in manager.until("STATUS=r"), manager.heard)

    folder = tempfile.mkdtemp()
    kept = os.path.join(folder, "kept")
    options = ["--from", kept, "--name", "service", "--serial", "none"]
    with_manager(False, run("idle"), keep)
    with_manager(False, ["restore", *options], restored)
    with_manager(True, ["restore", *options[:4], "--wait"], waits)
    shutil.rmtree(folder)


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("1..0 # SKIP /dev/kvm is missing or may not be used")
        return 0
    tap = Tap()
    lives(tap)
    others(tap)
    restores(tap)
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


sys.exit(main())
