#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What clients of the control socket may do while a snapshot is taken: pass files that are none, and go away at any moment.

The machine runs on, keeps nothing of theirs open, and takes the next snapshot. TAP on stdout.
usage: snapshot_clients.py MVMM GUEST-DIRECTORY
"""

import array
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 60 * int(os.environ.get("MVMM_PATIENCE", "1"))  # seconds for anything that must happen
GONE = 40  # clients that go away


class Client:
    """A connection; messages end with a zero byte."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.read = b""

    def send(self, method, parameters, fds=()):
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        call = {"method": "io.mvmm.Machine." + method, "parameters": parameters, "more": method == "Snapshot"}
        self.socket.sendmsg([json.dumps(call).encode() + b"\0"], passed)

    def receive(self):
        while b"\0" not in self.read:
            more = self.socket.recv(65536)
            if not more:
                return {}
            self.read += more
        message, self.read = self.read.split(b"\0", 1)
        return json.loads(message)

    def until(self, state):
        """The message with this state of the snapshot, or the last one."""
        while True:
            message = self.receive()
            if not message.get("continues") or message["parameters"]["snapshot"]["state"] == state:
                return message


class Machine:
    def __init__(self, mvmm, guests, work):
        self.work = work
        self.disk = os.path.join(work, "disk")
        with open(self.disk, "wb") as disk:
            disk.truncate(1 << 20)
        # Not a file or a terminal: what it says is not asked for.
        self.process = subprocess.Popen(
            [mvmm, "run", "--name", "m", "--kernel", guests + "/guest_pattern", "--cmdline", "pages=3000", "--memory", "64M",
             "--disk", self.disk, "--serial", "file=" + work + "/log"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.path = os.environ["XDG_RUNTIME_DIR"] + "/mvmm/m/control.sock"
        self.wait("begins", lambda: os.path.exists(work + "/log") and "begins" in open(work + "/log", encoding="ascii").read())

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.01)

    def call(self, method, parameters, fds=()):
        client = Client(self.path)
        client.send(method, parameters, fds)
        reply = client.receive()
        client.socket.close()
        return reply

    def runs(self):
        return self.call("Info", {})["parameters"]["state"] == "running"

    def new(self, name, flags=os.O_RDWR):
        return os.open(os.path.join(self.work, name), flags | os.O_CREAT | os.O_TRUNC, 0o600)

    def snapshot(self, state=None, memory=None, **options):
        client = Client(self.path)
        fds = [self.new("state") if state is None else state, self.new("memory") if memory is None else memory]
        client.send("Snapshot", {"files": ["state", "memory"], "disks": "none", **options}, fds)
        for fd in fds:
            os.close(fd)
        return client

    def open_files(self):
        folder = "/proc/%d/fd/" % self.process.pid
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(folder + name))
            except FileNotFoundError:
                pass
        return [name for name in found if name in (self.work + "/state", self.work + "/memory")]


def refused(machine):
    """Each of these files is refused before the machine has done anything, in a sentence."""
    reader, writer = os.pipe()
    path = machine.work + "/used"
    with open(path, "wb") as used:
        used.write(b"x" * 100000)
    wrong = [
        {"state": writer}, {"memory": reader}, {"memory": os.open("/dev/zero", os.O_RDWR)},
        {"state": os.open("/dev/null", os.O_RDWR)}, {"memory": os.open(machine.work, os.O_RDONLY)},
        {"memory": os.open(path, os.O_PATH)}, {"memory": machine.new("read", os.O_RDONLY)},
        {"state": machine.new("write", os.O_WRONLY)}, {"memory": machine.new("append", os.O_RDWR | os.O_APPEND)},
        {"state": os.open(path, os.O_RDWR)}, {"memory": os.open(machine.disk, os.O_RDWR)},
    ]
    replies = [machine.snapshot(**files).until("written") for files in wrong]
    both = machine.new("both")
    replies.append(machine.snapshot(both, os.dup(both)).until("written"))
    words = [reply.get("parameters", {}).get("text", "") for reply in replies]
    return all("create" in text and "\n" not in text for text in words) and machine.runs()


def disk_is_whole(machine):
    return os.stat(machine.disk).st_size == 1 << 20


def nothing_open_after_commit(machine):
    client = machine.snapshot()
    written = client.until("written")
    committed = machine.call("SnapshotCommit", {"id": written["parameters"]["snapshot"]["id"]})
    return "error" not in committed and "error" not in client.until("done") and not machine.open_files()


def nothing_open_after_cancel(machine):
    client = machine.snapshot()
    client.until("written")
    machine.call("SnapshotCancel", {})
    return "error" in client.until("done") and not machine.open_files() and machine.runs()


def one_at_a_time(machine):
    client = machine.snapshot()
    written = client.until("written")
    second = machine.snapshot().until("written")
    other = machine.call("SnapshotCommit", {"id": "0" * 36})
    client.socket.close()
    machine.wait("runs", machine.runs)
    return written.get("continues") and "error" in second and "error" in other


def no_device_comes_or_goes(machine):
    """The files of a snapshot have the devices of one moment; afterwards a disk comes, and goes by force."""
    path = machine.work + "/hot"
    image = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.truncate(path, 1 << 20)
    added = ("AddDisk", {"disk": {"path": path, "id": "hot"}}, [image])
    client = machine.snapshot()
    client.until("written")
    replies = [machine.call(*added)] + [machine.call(*call) for call in (
        ("RemoveDisk", {"id": "disk0"}), ("RemoveDisk", {"id": "disk0", "force": True}), ("RemoveNet", {"id": "net0"}),
        ("ResizeDisk", {"id": "disk0"}), ("SetLink", {"id": "net0", "up": False}),
        ("ReplaceDisk", {"id": "disk0", "path": path}, [image]))]
    words = [reply.get("parameters", {}).get("text", "") for reply in replies]
    machine.call("SnapshotCancel", {})
    client.until("done")
    good = "error" not in machine.call(*added)
    good = good and "error" not in machine.call("RemoveDisk", {"id": "hot", "force": True, "timeout": 1})
    os.close(image)
    return good and all("is being written to a snapshot" in text and "\n" not in text for text in words)


def goes_on_without(machine):
    """They go as soon as they have read a word, also that it is too late for a cancel; the guest was to end with the snapshot."""
    for turn in range(GONE):
        client = machine.snapshot(stop=True, live=turn % 4 == 3)
        if turn % 4:
            client.until("closing")
        else:
            time.sleep(0.001 * turn)
        client.socket.close()
        machine.wait("runs", machine.runs)
    machine.wait("nothing open", lambda: not machine.open_files())
    return machine.snapshot().until("written").get("continues")


def given_up_behind_its_back(machine):
    """mvmm snapshot stands still, and the snapshot is cancelled meanwhile: it says so in one line, and what is there is whole."""
    place = machine.work + "/kept"
    for _ in range(20):
        shutil.rmtree(place, ignore_errors=True)
        with subprocess.Popen([sys.argv[1], "snapshot", "m", "--to", place, "--disks", "none"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as command:
            machine.wait("saving", lambda: not machine.runs() or command.poll() is not None)
            command.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            cancelled = "error" not in machine.call("SnapshotCancel", {})
            command.send_signal(signal.SIGCONT)
            words = command.communicate(timeout=PATIENCE)[1]
        if cancelled and b"given it up" in words:
            break
    whole = subprocess.run([sys.argv[1], "snapshot", "verify", place], stdout=subprocess.DEVNULL, check=False).returncode == 0
    return cancelled and command.returncode == 1 and words.count(b"\n") == 1 and whole


def ends_well(machine):
    machine.wait("runs", machine.runs)
    machine.call("Stop", {})
    machine.process.wait(PATIENCE)
    with open(machine.work + "/log", encoding="ascii") as log:
        return "wrong 00000000" in log.read()


TESTS = (
    ("files that are none, or are another's, are refused", refused),
    ("... and not written to", disk_is_whole),
    ("nothing of a snapshot stays open when it is committed", nothing_open_after_commit),
    ("... or cancelled", nothing_open_after_cancel),
    ("a second one is refused, and the commit of another", one_at_a_time),
    ("meanwhile no device comes, goes or changes", no_device_comes_or_goes),
    ("a machine whose asker goes away runs on, whenever that is", goes_on_without),
    ("mvmm snapshot says in one line that the machine has given it up", given_up_behind_its_back),
    ("its memory is as it must be", ends_well),
)


def main():
    if not os.access("/dev/kvm", os.W_OK):
        print("1..0 # SKIP /dev/kvm is missing or may not be used")
        return
    work = tempfile.mkdtemp()
    os.environ["XDG_RUNTIME_DIR"] = work + "/run"
    os.mkdir(work + "/run", 0o700)
    machine = None
    try:
        machine = Machine(sys.argv[1], sys.argv[2], work)
        for number, (name, test) in enumerate(TESTS, 1):
            try:
                good = test(machine)
            except (OSError, TimeoutError, KeyError) as error:
                good = False
                print("# %r" % error)
            print("%s %d - %s" % ("ok" if good else "not ok", number, name), flush=True)
        print("1..%d" % len(TESTS))
    finally:
        if machine and machine.process.poll() is None:
            machine.process.send_signal(signal.SIGKILL)
            machine.process.wait()
        shutil.rmtree(work)


main()
