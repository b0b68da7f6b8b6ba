# SPDX-License-Identifier: Apache-2.0
"""The part `confine` of tests/bench/run: what it costs to hold a machine, and to look at it. here() measures tiny guests on this
machine's own KVM: pairs, one after the other, of a machine with and one without; host() measures the disk of a Linux guest in the
test host. In the column `bare` is the one without: mvmm with --seccomp off, no scrapes, no limits. Who may do so measures starts by
SCHED_FIFO and guests at work with the highest priority, so that other work on the machine is in the way of the kernel's own threads
at most. As a program it runs inside the test host:

  confine.py confine ROUNDS [MACHINE]...    writes $BENCH_FOLDER/confine.json
"""

import contextlib
import json
import os
import socket
import sys
import tempfile
import time

import machines
import measure
import snapshot
from measure import say

PAIRS = 17  # of a round, so that three rounds are 50 pairs
WINDOW = 0.5  # seconds in which a guest's progress is counted
SCRAPES = 5  # in such a window
UNDER_WAY = 0.05  # seconds after which a guest that was paused is at full speed
DISK = 64 << 20

OFF = ('--seccomp', 'off')
ON = ('--seccomp', 'on')


def jail(folder):
    return (*ON, '--jail', folder)


@contextlib.contextmanager
def real_time():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    except PermissionError:
        say('without SCHED_FIFO: this user may not have it')
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def set_nice(nice):
    """Of this process and, where sessions take turns, of its session."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(FileNotFoundError), open('/proc/self/autogroup', 'w', encoding='ascii') as file:
        file.write(str(nice))


@contextlib.contextmanager
def first_of_all():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        set_nice(-20)
    except OSError:
        say('without a higher priority: this user may not have one')
    yield
    with contextlib.suppress(OSError):
        set_nice(before)


def pairs(count, with_it, without):
    """What both give, and by how much the first gives more; which of them begins changes from pair to pair."""
    took, plain = [], []
    for index in range(count + 1):
        order = [(with_it, took), (without, plain)]
        for function, into in order if index % 2 else reversed(order):
            value = function()
            if index:  # the first pair fills caches
                into.append(value)
    return took, plain, [a - b for a, b in zip(took, plain)]


# ---- starts ----

def start_line(name, *options):
    return [os.environ['MVMM'], 'run', '--name', name, '--kernel', f'{os.environ["GUESTS"]}/guest_idle', '--memory', '128M',
            '--serial', 'none', *options]


def starts(rounds, environ, lines):
    """lines: for each figure, what makes a command line from further options; restores and starts are measured alike."""
    results = {}
    folder = tempfile.mkdtemp(dir=os.environ['BENCH_FOLDER'])

    def timed(line):
        return lambda: snapshot.first_run(line, environ)[0] / 1000

    for figure, line in lines.items():
        for kind, options in (('seccomp', ON), ('jail', jail(folder))):
            with real_time():
                took, plain, more = pairs(rounds * PAIRS, timed(line(*options)), timed(line(*OFF)))
            results[f'confine_{figure}_{kind}'] = {'mvmm': took, 'bare': plain}
            results[f'confine_{figure}_{kind}_more'] = {'mvmm': more}
            results[f'confine_{figure}_{kind}_least'] = {'mvmm': [min(took) - min(plain)]}
            say(f'{figure}, {kind}: {len(more)} pairs')
    return results


# ---- guests at work ----

class Guest:
    """A guest at work, and a connection to its control socket."""

    def __init__(self, guest, *options):
        self.machine = snapshot.Mvmm(guest, 64 << 20, 'at work', *options)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f'{self.machine.rundir}/mvmm/m/control.sock')

    def call(self, method, **parameters):
        request = {'method': f'io.mvmm.Machine.{method}', 'parameters': parameters}
        self.socket.sendall(json.dumps(request).encode() + b'\0')
        text = b''
        while not text.endswith(b'\0'):
            more = self.socket.recv(1 << 20)
            if not more:
                raise SystemExit(f'bench: {method}: the machine has ended')
            text += more
        reply = json.loads(text[:-1])
        if 'error' in reply:
            raise SystemExit(f'bench: {method}: {reply}')
        return reply['parameters']

    def count(self, name):
        return sum(sample['value'] for family in self.call('Metrics')['families'] if family['name'] == name
                   for sample in family['samples'])

    def rate(self, name, scrapes=0):
        """How fast a counter counts, while so many scrapes are made besides the two that count."""
        first, began = self.count(name), time.monotonic()
        for _ in range(scrapes):
            time.sleep(WINDOW / (scrapes + 1))
            self.call('Metrics')
        time.sleep(max(0.0, began + WINDOW - time.monotonic()))
        last, ended = self.count(name), time.monotonic()
        return (last - first) / (ended - began)

    def in_turn(self, name):
        """The same of a guest that is paused while others are at work."""
        self.call('Resume')
        time.sleep(UNDER_WAY)
        rate = self.rate(name)
        self.call('Pause')
        return rate

    def end(self):
        self.socket.close()
        self.machine.end()


def scrapes(kept, rounds):
    """A disk and a network at work; each round of the guest makes its vCPU come to mvmm a few times."""
    name = 'mvmm_vcpu_exits_total'
    guest = Guest('busy', '--disk', f'{kept.disk},id=disk', '--net', f'tap={snapshot.TAP},id=net')
    took, plain, _ = pairs(rounds * PAIRS, lambda: guest.rate(name, SCRAPES), lambda: guest.rate(name))
    guest.end()
    say(f'scrapes: {len(took)} pairs')
    return {'confine_scrape': {'mvmm': took, 'bare': plain}}


def reads(rounds):
    """Random reads of 4 KiB, 32 in flight, from a file in memory."""
    results = {}
    with tempfile.NamedTemporaryFile(dir='/dev/shm') as disk:
        disk.write(b'mvmm' * (DISK // 4))
        disk.flush()
        option = f'{disk.name},id=disk,readonly=on'
        guests = {
            'bare': Guest('reads', '--disk', option, *OFF),
            'reads': Guest('reads', '--disk', option, *ON),
            'limits': Guest('reads', '--disk', f'{option},bandwidth=1G,ops=1000', *OFF),
        }
        guests['limits'].call('SetLimits', id='disk', limits='bandwidth=off,ops=off')
        for guest in guests.values():
            guest.call('Pause')
        for kind in ('reads', 'limits'):
            took, plain, _ = pairs(rounds * PAIRS, *(lambda guest=guests[name]: guest.in_turn('mvmm_disk_requests_total')
                                                     for name in (kind, 'bare')))
            results[f'confine_{kind}'] = {'mvmm': took, 'bare': plain}
            say(f'{kind}: {len(took)} pairs')
        for guest in guests.values():
            guest.end()
    return results


def here(rounds):
    kept = snapshot.Kept()
    try:
        results = starts(rounds, kept.environ, {
            'start': lambda *options: start_line('one', *options),
            'restore': lambda *options: snapshot.restore_line(kept.idle_path, '--name', 'one', *options)})
        with first_of_all():
            results.update(scrapes(kept, rounds))
            results.update(reads(rounds))
    finally:
        kept.end()
    return results


# ---- in the test host ----

def host(rounds):
    """The disk's threads behind their filter, beside the same without."""
    machines.MACHINES['mvmm'] = lambda guest: machines.mvmm(guest, 'MVMM', *ON)
    machines.MACHINES['bare'] = lambda guest: machines.mvmm(guest, 'MVMM', *OFF)
    machines.kinds = lambda: ('mvmm', 'bare')
    disk = measure.disk(rounds, [])
    return {'confine_reads_host': disk['disk_randread'], 'confine_writes_host': disk['disk_randwrite']}


def main():
    rounds = int(sys.argv[2])
    results = host(rounds)
    with open(f'{os.environ["BENCH_FOLDER"]}/confine.json', 'w', encoding='utf-8') as file:
        json.dump(results, file)


if __name__ == '__main__':
    main()
