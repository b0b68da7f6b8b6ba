# SPDX-License-Identifier: Apache-2.0
"""The part `confine` of tests/bench/run: what it costs to hold a machine, and to look at it. here() measures tiny guests on this
machine's own KVM: pairs, one after the other, of a machine with and one without; host() measures the disk of a Linux guest in the
test host. In the column `bare` is mvmm with --seccomp off. As a program it runs inside the test host:

  confine.py confine ROUNDS [MACHINE]...    writes $BENCH_FOLDER/confine.json
"""

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
WINDOW = 1.0  # seconds in which a guest's progress is counted
SCRAPES = 10  # in such a window

OFF = ('--seccomp', 'off')
ON = ('--seccomp', 'on')


def jail(folder):
    return (*ON, '--jail', folder)


def pairs(count, with_it, without):
    """The times of both, and how much longer the first takes; which of them begins changes from pair to pair."""
    took, plain = [], []
    for index in range(count + 1):
        order = [(with_it, took), (without, plain)]
        for function, into in order if index % 2 else reversed(order):
            value = function()
            if index:  # the first pair fills caches
                into.append(value)
    return took, plain, [a - b for a, b in zip(took, plain)]


def start_line(name, *options):
    return [os.environ['MVMM'], 'run', '--name', name, '--kernel', f'{os.environ["GUESTS"]}/guest_idle', '--memory', '128M',
            '--serial', 'none', *options]


def starts(rounds, lines):
    """lines: for each figure, what makes a command line from further options; restores and starts are measured alike."""
    results = {}
    environ = lines['environ']
    folder = tempfile.mkdtemp(dir=os.environ['BENCH_FOLDER'])

    def timed(line):
        return lambda: snapshot.first_run(line, environ)[0] / 1000

    for figure, line in lines['figures'].items():
        for kind, options in (('seccomp', ON), ('jail', jail(folder))):
            took, plain, more = pairs(rounds * PAIRS, timed(line(*options)), timed(line(*OFF)))
            results[f'confine_{figure}_{kind}'] = {'mvmm': took, 'bare': plain}
            results[f'confine_{figure}_{kind}_more'] = {'mvmm': more}
            say(f'{figure}, {kind}: {len(more)} pairs')
    return results


# ---- looking at a busy guest ----

class Watched:
    """A guest whose disk and network are at work, and a connection to its control socket."""

    def __init__(self, kept):
        self.machine = snapshot.Mvmm('busy', 64 << 20, 'at work', '--disk', f'{kept.disk},id=disk', '--net',
                                     f'tap={snapshot.TAP},id=net')
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f'{self.machine.rundir}/mvmm/m/control.sock')

    def scrape(self):
        self.socket.sendall(b'{"method": "io.mvmm.Machine.Metrics"}\0')
        reply = b''
        while not reply.endswith(b'\0'):
            reply += self.socket.recv(1 << 20)
        return json.loads(reply[:-1])['parameters']['families']

    def exits(self):
        """How often its vCPU has come to mvmm: each round of the guest does a few times."""
        return sum(sample['value'] for family in self.scrape() if family['name'] == 'mvmm_vcpu_exits_total'
                   for sample in family['samples'])

    def progress(self, scrapes):
        """Exits a second, while so many scrapes are made besides the two that count."""
        first, began = self.exits(), time.monotonic()
        for _ in range(scrapes):
            time.sleep(WINDOW / (scrapes + 1))
            self.scrape()
        time.sleep(max(0.0, began + WINDOW - time.monotonic()))
        last, ended = self.exits(), time.monotonic()
        return (last - first) / (ended - began)

    def end(self):
        self.socket.close()
        self.machine.end()


def scrapes(kept, rounds):
    watched = Watched(kept)
    took, plain, _ = pairs(rounds * PAIRS // 2, lambda: watched.progress(SCRAPES), lambda: watched.progress(0))
    watched.end()
    return {'confine_scrape': {'mvmm': took, 'bare': plain}}


def here(rounds):
    kept = snapshot.Kept()
    try:
        results = starts(rounds, {'environ': kept.environ, 'figures': {
            'start': lambda *options: start_line('one', *options),
            'restore': lambda *options: snapshot.restore_line(kept.idle_path, '--name', 'one', *options)}})
        results.update(scrapes(kept, rounds))
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
    return {'confine_reads': disk['disk_randread'], 'confine_writes': disk['disk_randwrite']}


def main():
    rounds = int(sys.argv[2])
    results = host(rounds)
    with open(f'{os.environ["BENCH_FOLDER"]}/confine.json', 'w', encoding='utf-8') as file:
        json.dump(results, file)


if __name__ == '__main__':
    main()
