#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What clients of the control socket may name by a path: nothing, but below --allow, and in the machine's jail.

Each request is made by a client that passes no descriptors. TAP on stdout. usage: reach.py MVMM GUEST-DIRECTORY
"""

import array
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 60 * int(os.environ.get("MVMM_PATIENCE", "1"))  # seconds for anything that must happen
OUT = "is out of reach: a machine opens what a request names by its path only in its jail or below --allow DIR"


class Machine:
    def __init__(self, test, name, *options):
        self.test = test
        self.name = name
        self.process = subprocess.Popen(
            [test.mvmm, "run", "--name", name, "--kernel", test.guests + "/guest_idle", "--memory", "32M", "--disk", test.path("disk-" + name),
             *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.path = os.environ["XDG_RUNTIME_DIR"] + f"/mvmm/{name}/control.sock"
        test.wait("the machine runs", self.runs)

    def runs(self):
        try:
            return self.call("Info")["parameters"]["state"] == "running"
        except (OSError, KeyError):
            return False

    def call(self, method, fds=(), **parameters):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(self.path)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            client.sendmsg([json.dumps({"method": "io.mvmm.Machine." + method, "parameters": parameters}).encode() + b"\0"], passed)
            read = b""
            while not read.endswith(b"\0"):
                more = client.recv(65536)
                if not more:
                    return {}
                read += more
        return json.loads(read[:-1])

    def text(self, method, **parameters):
        """Why the machine refuses it; empty: it does not."""
        reply = self.call(method, **parameters)
        return reply["parameters"].get("text", str(reply)) if "error" in reply else ""

    def stop(self):
        subprocess.run([self.test.mvmm, "stop", "--force", self.name], check=True)
        self.process.wait(PATIENCE)


class Test:
    def __init__(self, mvmm, guests, work):
        self.mvmm, self.guests, self.work = os.path.realpath(mvmm), os.path.realpath(guests), work
        self.count = 0
        for folder in ("allowed", "other", "jail", "run"):
            os.mkdir(self.path(folder), 0o700)
        os.environ["XDG_RUNTIME_DIR"] = self.path("run")
        for name in ("allowed/image", "allowed/second", "other/image", "jail/image", *(f"disk-{name}" for name in "abcd")):
            with open(self.path(name), "wb") as image:
                image.truncate(1 << 20)
        os.symlink("../other/image", self.path("allowed/link"))

    def path(self, name):
        return os.path.join(self.work, name)

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.01)

    def check(self, name, text, expected):
        """text has what is expected; an empty one is expected to be so."""
        self.count += 1
        good = expected in text if expected else not text
        print("ok" if good else "not ok", self.count, "-", name, flush=True)
        if not good:
            print(f"# {text!r} is not {expected!r}", flush=True)

    def moves(self, machine, name, path, expected):
        """The migration to a socket there fails, or the machine goes there."""
        target = None
        if not expected:
            target = subprocess.Popen([self.mvmm, "receive", "--from", "unix:" + path, "--name", "moved", "--disk",
                                       "disk0=" + self.path("disk-" + machine.name), "--serial", "none"], stdin=subprocess.DEVNULL)
            self.wait("the target waits", lambda: os.path.exists(path))
        self.check(name, machine.text("Migrate", to="unix:" + path), expected)
        if target:
            subprocess.run([self.mvmm, "stop", "--force", "moved"], check=True)
            target.wait(PATIENCE)
            machine.process.wait(PATIENCE)

    def everything_is_refused(self, machine, who):
        image = self.path("other/image")
        self.check(f"{who}: no disk", machine.text("AddDisk", disk={"path": image}), OUT)
        self.check(f"{who}: no other image", machine.text("ReplaceDisk", id="disk0", path=image), OUT)
        self.check(f"{who}: no socket of a migration", machine.text("Migrate", to="unix:" + self.path("other/socket")), OUT)
        self.check(f"{who}: no certificates", machine.text("Migrate", to="tcp:localhost", tls=self.path("other")), OUT)
        self.check(f"{who}: no host device", machine.text("AddDevice", vfio="0000:00:00.0"), OUT)
        self.check(f"{who}: no tap", machine.text("AddNet", net={"tap": "tap0"}), "pass a descriptor for each queue")

    def plain(self):
        machine = Machine(self, "a")
        self.everything_is_refused(machine, "a machine")
        image = os.open(self.path("other/image"), os.O_RDWR)
        self.check("a machine: what is passed is used, whatever its name",
                   machine.text("AddDisk", disk={"path": "/nowhere", "id": "passed"}, fds=[image]), "")
        os.close(image)
        machine.stop()

    def allowed(self):
        machine = Machine(self, "b", "--allow", self.path("allowed"))
        self.everything_is_refused(machine, "with --allow")
        self.check("with --allow: a disk below it", machine.text("AddDisk", disk={"path": self.path("allowed/image"), "id": "new"}), "")
        self.check("with --allow: a link leads nowhere", machine.text("AddDisk", disk={"path": self.path("allowed/link")}), OUT)
        self.check("with --allow: nor do dots", machine.text("AddDisk", disk={"path": self.path("allowed/../other/image")}), OUT)
        self.check("with --allow: another image below it",
                   machine.text("ReplaceDisk", id="new", path=self.path("allowed/second")), "")
        self.check("with --allow: and by O_DIRECT",
                   machine.text("AddDisk", disk={"path": self.path("allowed/image"), "id": "direct", "direct": True}), "")
        for disk in ("new", "direct"):
            subprocess.run([self.mvmm, "disk", "remove", "--force", "--timeout", "1", "b", disk], check=True)
        self.moves(machine, "with --allow: a socket where nobody listens", self.path("allowed/none"), "No such file")
        self.moves(machine, "with --allow: a migration to a socket below it", self.path("allowed/socket"), "")

    def jailed(self):
        machine = Machine(self, "c", "--jail", self.path("jail"))
        self.everything_is_refused(machine, "in a jail")
        self.check("in a jail: a disk in it", machine.text("AddDisk", disk={"path": "/image"}), "")
        machine.stop()
        machine = Machine(self, "d", "--jail", self.path("jail"), "--allow", self.path("allowed"))
        self.check("in a jail with --allow: a disk below it", machine.text("AddDisk", disk={"path": self.path("allowed/image"), "id": "new"}), "")
        self.check("in a jail with --allow: a link leads nowhere", machine.text("AddDisk", disk={"path": self.path("allowed/link")}), OUT)
        subprocess.run([self.mvmm, "disk", "remove", "--force", "--timeout", "1", "d", "new"], check=True)
        self.moves(machine, "in a jail with --allow: a migration to a socket below it", self.path("allowed/inside"), "")


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("1..0 # SKIP /dev/kvm is missing or may not be used")
        return
    work = tempfile.mkdtemp()
    try:
        test = Test(sys.argv[1], sys.argv[2], work)
        test.plain()
        test.allowed()
        test.jailed()
        print(f"1..{test.count}")
    finally:
        shutil.rmtree(work)


main()
