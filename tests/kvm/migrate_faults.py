#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Migrations that are struck: either process killed, the connection cut, stalled or changed, no memory left on the target, at
random points; some of them encrypted, some with the disk's content going along.

Whatever happens, a guest is never alive on two sides. It is alive on exactly one, or it was killed with its process, or it stands
on the source, which says so and how to resolve it; then both ways of resolving do what they say. Nobody else's process, folder
or disk lock is left. TAP on stdout.  usage: migrate_faults.py MVMM GUEST-DIRECTORY [COUNT [SEED]]

COUNT is 200 unless told, and fewer on a slow machine.
"""

import collections
import os
import random
import re
import resource
import select
import signal
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

SLOW = int(os.environ.get("MVMM_PATIENCE", "1"))  # how many times as long as on a quick machine anything may take
PATIENCE = 60 * SLOW  # seconds for anything that must happen
STALLS = 6     # take ten seconds each, so they are few, and beside each other
GO = (21).to_bytes(4, "little") + bytes(20)  # the frame after which the source is not to go on by itself
STOPPED = (18).to_bytes(4, "little") + bytes(20)  # the frame that says that the guest is paused
HELD_UP = "target stopped"  # by SIGSTOP, when it is about to load; the guest stays, after the time that it may be paused
AT_GO = {  # and what must come of it
    "GO lost": "unresolved, goes on",
    "answer lost": "unresolved, gone",
    "source killed at GO": "gone",
    "target killed at GO": "unresolved, goes on",
}
AT_ANY_TIME = ("source killed", "target killed", "cut", "target out of memory", "cut, TLS", "changed, TLS", "helper killed, TLS",
               "source killed, disk", "target killed, disk", "cut, disk", "target out of memory, disk")
CONTENT = os.urandom(1 << 19) + bytes(1 << 19)  # of the guest's disk


class Fault(Exception):
    """Something that must be true is not."""


def until(what, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Fault(what)
        time.sleep(0.01)


class Proxy(threading.Thread):
    """Passes connections on until so many bytes have gone through; then cuts them, takes nothing any more, or changes a bit.

    at_go, if there is one, is called with what passes GO on when that comes; it cuts, too. at_stop is called before STOPPED.
    """

    def __init__(self, front, back, limit, kind, at_go, at_stop):
        super().__init__(daemon=True)
        self.back, self.limit, self.passed, self.at_go, self.at_stop = back, limit, 0, at_go, at_stop
        self.stall, self.change = kind == "stall", kind == "changed, TLS"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(front)
        self.listener.listen(16)
        self.waker, self.wake = socket.socketpair()
        self.peers = {}
        self.start()

    def accept(self):
        near, far = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
        try:
            far.connect(self.back)
        except OSError:
            near.close()
            return
        self.peers[near], self.peers[far] = far, near

    def forward(self, end):
        other = self.peers[end]
        try:
            data = end.recv(min(65536, self.limit - self.passed))
            if data.endswith(GO) and self.at_go:  # a sign of life may have come with it
                self.limit = self.passed
                self.at_go(lambda: other.sendall(data))
                return
            if data.startswith(STOPPED) and self.at_stop:
                self.at_stop()
            if data:
                self.passed += len(data)
                if self.change and self.passed == self.limit:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                    self.limit = 1 << 62
                other.sendall(data)
                return
        except OSError:
            pass
        for side in (end, other):
            del self.peers[side]
            side.close()

    def run(self):
        while self.passed < self.limit:
            ready = select.select([self.listener, self.waker, *self.peers], [], [])[0]
            if self.waker in ready:
                break
            if self.listener in ready:
                self.accept()
            for end in ready:
                if end in self.peers and self.passed < self.limit:
                    self.forward(end)
        if self.passed >= self.limit and self.stall:
            select.select([self.waker], [], [])
        for end in self.peers:
            end.close()
        self.listener.close()

    def stop(self):
        self.wake.send(b"x")
        self.join()


def is_free(path):
    """Nobody listens there. Who has arrived may still be waiting for its helpers to end."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) != 0


def kill_helper(pid):
    """One of the mvmm-tls of a process, if it has one."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                name, rest = re.match(r"\d+ \((.*)\) . (\d+)", file.read()).groups()
            if name == "mvmm-tls" and int(rest) == pid:
                os.kill(int(entry), 9)
                return
        except (FileNotFoundError, ProcessLookupError):
            pass


def limit_memory(process, size):
    """Whatever a process asks the kernel for from now on is too much, or is not any more."""
    if process.poll() is None:
        resource.prlimit(process.pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


class Chain:
    """One guest at a time, sent on and on; a new one begins when it was killed."""

    serial = 0

    def __init__(self, test, number):
        self.test, self.folder = test, os.path.join(test.work, f"chain{number}")
        os.mkdir(self.folder)
        self.disk = os.path.join(self.folder, "disk")
        with open(self.disk, "wb") as file:
            file.write(CONTENT)
        self.copy = None  # of the disk, which the target is to have
        self.hop = 0
        self.number = number
        self.machine = None

    # ---- machines: (name, process) ----

    def spawn(self, words):
        self.hop += 1
        name = f"c{self.number}h{self.hop}"
        process = subprocess.Popen([self.test.mvmm, *words, "--name", name, "--serial", f"file={self.path(name, 'log')}"],
                                   stdin=subprocess.DEVNULL, stderr=open(self.path(name, "err"), "wb"))
        return name, process

    def path(self, name, kind):
        return os.path.join(self.folder, f"{name}.{kind}")

    def text(self, name, kind):
        try:
            with open(self.path(name, kind), encoding="ascii", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def ticks(self, machine):
        return self.text(machine[0], "log").count(".")

    def works(self, machine, seconds=PATIENCE / 2):
        """Whether its guest runs."""
        before, end = self.ticks(machine), time.monotonic() + seconds
        while time.monotonic() < end and machine[1].poll() is None:
            if self.ticks(machine) > before:
                return True
            time.sleep(0.01)
        return False

    def call(self, *words):
        return subprocess.run([self.test.mvmm, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE, check=False)

    def status(self, machine):
        return self.call("migrate", machine[0], "--status").stdout.split("\n")[0]

    def begin(self):
        self.machine = self.spawn(["run", "--kernel", f"{self.test.guests}/guest_pattern", "--memory", "32M", "--disk",
                                   self.disk, "--cmdline", "pages=256 pause=50"])
        until("the guest begins", lambda: self.ticks(self.machine) > 0)

    def end(self):
        if self.machine:
            self.machine[1].kill()
            self.machine[1].wait()

    # ---- one migration ----

    def strike(self, kind, source, target, limit, delay):
        """The migration, and what befalls it."""
        front, back = os.path.join(self.folder, "front"), os.path.join(self.folder, "back")
        at_go = {
            "GO lost": lambda forward: None,
            "answer lost": lambda forward: forward(),
            "source killed at GO": lambda forward: (forward(), source[1].kill()),
            "target killed at GO": lambda forward: (target[1].kill(), forward()),
        }.get(kind)
        options = self.test.tls(kind, "other") + (["--copy-disks"] if kind.endswith("disk") else [])
        at_stop = (lambda: target[1].send_signal(signal.SIGSTOP)) if kind == HELD_UP else None
        proxy = Proxy(front, back, limit, kind, at_go, at_stop)
        command = subprocess.Popen([self.test.mvmm, "migrate", source[0], "--to", f"unix:{front}", "--downtime", f"{2 * SLOW}s",
                                    *(["--downtime-limit", f"{2 * SLOW}s"] if kind == HELD_UP else []), *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=open(self.path(target[0], "cli"), "wb"))
        begin = time.monotonic()
        if not at_go and "killed" in kind and not kind.startswith("helper"):
            time.sleep(delay)
            (source if kind.startswith("source") else target)[1].kill()
        elif kind == "helper killed, TLS":
            time.sleep(delay * 4)  # for the handshakes
            kill_helper(self.test.random.choice((source, target))[1].pid)
        elif kind.startswith("target out of memory"):
            time.sleep(delay)
            limit_memory(target[1], 1 << 20)
        try:
            command.wait(PATIENCE)
        finally:
            limit_memory(target[1], resource.RLIM_INFINITY)
            if kind == HELD_UP:
                target[1].send_signal(signal.SIGCONT)
            proxy.stop()
            os.unlink(front)
        if kind == "none":
            self.test.passed, self.test.span = proxy.passed, time.monotonic() - begin

    def judge(self, source, target):
        """Who has it now: the machine that goes on, or None; and how it came out."""
        until("both sides settle", lambda: self.settled(source, target))
        source_alive, target_alive = source[1].poll() is None, target[1].poll() is None
        stands = source_alive and self.status(source) == "unresolved"
        source_works, target_works = self.works(source, 1 if stands else PATIENCE / 2), self.works(target)
        if source_works and target_works:
            raise Fault("the guest runs on both sides")
        if target_alive and not target_works:
            raise Fault("the target lives, and its guest does not")
        if source_alive and not source_works:
            return self.resolve(source, target, target_works)
        return (source, "stays") if source_works else (target, "gone") if target_works else (None, "killed")

    def settled(self, source, target):
        """The source is done with it; the target has ended, or has a guest that runs."""
        if source[1].poll() is None and self.status(source) not in ("failed", "unresolved", "done", "none"):
            return False
        if target[1].poll() is not None:
            return True
        info = self.call("info", target[0]).stdout
        return re.search(r"^state +running", info, re.M) is not None

    def resolve(self, source, target, target_works):
        if self.status(source) != "unresolved" or "--resolve" not in self.text(source[0], "err"):
            raise Fault(f"the guest stands on the source, which says {self.status(source)}")
        if target_works and self.copy:
            go_on = None  # it has a disk of its own, so nothing but the person who resolves it keeps it from going on
        else:
            go_on = self.call("migrate", source[0], "--resolve", "continue")
            if self.copy:
                if not go_on.returncode or "it was copied, and each host has its own); if it does not, add --yes" not in go_on.stderr:
                    raise Fault("it goes on though nothing shows that the guest does not run there")
                go_on = self.call("migrate", source[0], "--resolve", "continue", "--yes")
        if not target_works:
            if go_on.returncode or not self.works(source):
                raise Fault("it does not go on when it is told to")
            return source, "unresolved, goes on"
        if go_on and (not go_on.returncode or "the guest cannot continue here" not in go_on.stderr):
            raise Fault("it goes on though the other side has its disk")
        if self.call("migrate", source[0], "--resolve", "end").returncode or source[1].wait(PATIENCE):
            raise Fault("it does not end when it is told to")
        return target, "unresolved, gone"

    def take_copy(self, moved):
        """Of the disk, where that went along: the guest has it now, or it is nobody's."""
        old = self.copy
        if moved:
            with open(self.copy, "rb") as file:
                if file.read() != CONTENT:
                    raise Fault("its disk is wrong")
            self.disk, old = self.copy, self.disk
        if os.path.exists(old):
            os.unlink(old)

    def trial(self, kind):
        if not self.machine:
            self.begin()
        source, back = self.machine, os.path.join(self.folder, "back")
        until("the address is free", lambda: is_free(back))
        self.copy = self.path(f"disk{self.hop}", "copy") if kind.endswith("disk") else None
        target = self.spawn(["receive", "--from", f"unix:{back}", *self.test.tls(kind, "good"),
                             *(["--disk", f"disk0={self.copy}"] if self.copy else ["--disk-dir", self.folder])])
        try:
            until("the target listens", lambda: "waiting" in self.text(target[0], "err"))
            total = (self.test.passed or 1 << 20) + (len(CONTENT) // 2 if self.copy else 0)
            near_end = self.test.random.random() < 0.5
            limit = 1 << 62
            if kind.startswith(("cut", "stall", "changed")):
                limit = max(1, total - self.test.random.randrange(4000 if near_end else total))
            self.strike(kind, source, target, limit, self.test.random.random() * self.test.span)
            if target[1].poll() is None and "arriving" not in self.text(target[0], "err"):
                target[1].terminate()  # nobody has come to it yet, so it waits on
            self.machine, outcome = self.judge(source, target)
        except Exception:
            self.machine = None
            raise
        finally:
            for machine in (source, target):
                if machine is not self.machine:
                    machine[1].kill() if sys.exc_info()[0] else machine[1].wait(PATIENCE)
        if self.copy:
            self.take_copy(self.machine is target)
        if any("WRONG" in self.text(machine[0], "log") for machine in (source, target)):
            raise Fault("its memory is wrong")
        if outcome != AT_GO.get(kind, outcome):
            raise Fault(f"it is {outcome}, and should be {AT_GO[kind]}")
        if kind == HELD_UP and "has not loaded the guest within" not in self.text(target[0], "cli"):
            raise Fault("the source does not say that the target held it up")
        return outcome


class Test:
    def __init__(self, mvmm, guests, seed):
        self.mvmm, self.guests = mvmm, guests
        self.random = random.Random(seed)
        self.work = tempfile.mkdtemp()
        self.run = os.path.join(self.work, "run")
        os.mkdir(self.run, 0o700)
        os.environ["XDG_RUNTIME_DIR"] = self.run
        self.passed, self.span = 0, 0
        self.lock = threading.Lock()
        self.outcomes = collections.defaultdict(collections.Counter)
        self.faults = []
        self.pki = os.path.join(self.work, "pki")
        subprocess.run([os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "certificates"), self.pki], check=True)

    def tls(self, kind, name):
        return ["--tls", os.path.join(self.pki, name)] if kind.endswith("TLS") else []

    def measure(self, chain):
        """One that nothing befalls: what it sends and how long it takes."""
        outcome = chain.trial("none")
        if outcome != "gone":
            raise Fault(f"undisturbed, it {outcome}")

    def work_off(self, chain, kinds):
        while True:
            with self.lock:
                if not kinds:
                    break
                kind = kinds.pop()
            try:
                outcome = chain.trial(kind)
            except (Fault, OSError, subprocess.SubprocessError) as fault:
                outcome = "FAILED"
                self.faults.append((kind, str(fault), chain.folder))
            with self.lock:
                self.outcomes[kind][outcome] += 1
        chain.end()

    def strike_all(self, count):
        stalls = min(STALLS, count // 4)
        kinds = [list(AT_GO)[i % 4] if i % 4 == i // 4 % 4 else AT_ANY_TIME[i % len(AT_ANY_TIME)]
                 for i in range(count - stalls)]
        chains = [Chain(self, number) for number in range(4 + stalls)]
        self.measure(chains[0])
        work = [(chain, kinds) for chain in chains[:3]] + [(chain, ["stall"]) for chain in chains[4:]]
        work.append((chains[3], [HELD_UP] * 2))
        threads = [threading.Thread(target=self.work_off, args=one) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main():
    mvmm, guests = map(os.path.abspath, sys.argv[1:3])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 200 // SLOW
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)
    if not os.access("/dev/kvm", os.W_OK):
        print("1..0 # SKIP /dev/kvm is missing or may not be used")
        return
    test = Test(mvmm, guests, seed)
    print(f"# seed {seed}", flush=True)
    test.strike_all(count)
    number = 0
    for kind, outcomes in sorted(test.outcomes.items()):
        number += 1
        told = ", ".join(f"{outcome} {times}" for outcome, times in sorted(outcomes.items()))
        print(f"{'not ' if outcomes['FAILED'] else ''}ok {number} - {kind}, {sum(outcomes.values())} times: {told}")
    for kind, fault, folder in test.faults[:10]:
        print(f"# {kind}: {fault}")
        files = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith((".err", ".cli"))]
        for path in sorted(files, key=os.path.getmtime)[-8:]:
            with open(path, encoding="ascii", errors="replace") as file:
                name = os.path.basename(path)
                print("".join(f"#   {name}: {line}\n" for line in file.read().split("\n")[-6:]), end="")
    left = subprocess.run([mvmm, "ps", "--json"], capture_output=True, text=True, check=False).stdout.strip()
    number += 1
    print(f"{'' if left == '[]' else 'not '}ok {number} - nothing is left running")
    number += 1
    print(f"{'' if not os.listdir(os.path.join(test.run, 'mvmm')) else 'not '}ok {number} - nor any folder")
    print(f"1..{number}")
    shutil.rmtree(test.work)


if __name__ == "__main__":
    main()
