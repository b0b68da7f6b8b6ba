# SPDX-License-Identifier: Apache-2.0
"""The part `migrate` of tests/bench/run. Tiny guests that do nothing go from process to process by TCP over the
loopback, so that what is measured is what the VMMs do: here() on this machine's own KVM, beside a bare copy; host() in
the test host, beside QEMU with as many channels. As a program it runs inside the test host:

  migrate.py migrate ROUNDS [MACHINE]...    writes $BENCH_FOLDER/migrate.json
"""

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import machines
from measure import say

STREAMS = 4
LOW = 64 << 20  # below it the guest has what it needs
BLOCK = os.urandom(32 << 20)
TIMEOUT = 300
HOPS = 10  # of which so many downtimes are told
NEAR = 0.3  # a prediction that is no further off is right


def wait_for(what, works):
    """What works() returns as soon as that is true."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        result = works()
        if result:
            return result
        time.sleep(0.005)
    raise SystemExit(f'bench: no sign of {what}')


def has(path, text):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return text in file.read()
    except OSError:  # it is not there yet, or grows at this moment, for which a shared folder has errors of its own
        return False


class Qmp:
    """A conversation with QEMU."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        wait_for('QEMU', lambda: self.socket.connect_ex(path) == 0)
        self.file = self.socket.makefile('rw', encoding='utf-8')
        self.file.readline()  # the greeting
        self.do('qmp_capabilities')

    def do(self, command, **arguments):
        self.file.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline() or '{"error": "it has ended"}')
            if 'error' in answer:
                raise SystemExit(f'bench: QEMU: {command}: {answer["error"]}')
            if 'return' in answer:  # and not an event
                return answer['return']


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def fill(pid, memory):
    """Writes what cannot be compressed all over the guest's memory, from outside: the first round sends all of it."""
    done = 0
    with open(f'/proc/{pid}/maps', encoding='utf-8') as maps:
        areas = [[int(word, 16) for word in line.split()[0].split('-')] for line in maps if line.split()[1] == 'rw-p']
    with open(f'/proc/{pid}/mem', 'wb', buffering=0) as file:
        for start, end in areas:
            if end - start < memory // 8:
                continue
            file.seek(start + LOW)
            while file.tell() < end:
                done += file.write(BLOCK[:end - file.tell()])
    if done < memory * 3 // 4:
        raise SystemExit('bench: the guest\'s memory was not found')


def warm(memory):
    """Touches as much memory and gives it back, for what a host takes to find pages for a target differs by ten from one
    moment to the next, where that host is a virtual machine itself."""
    with mmap.mmap(-1, memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, memory, 4096):
            area[at] = 1


def make_mttys():
    """Two mediated devices of one port, for a guest that has one here and the other one there."""
    names = [str(uuid.uuid4()) for _ in range(2)]
    for name in names:
        with open('/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1/create', 'w', encoding='ascii') as file:
            file.write(name)
    return names


class Mvmm:
    """A guest under mvmm, and where it goes. Of mttys it has the first or the other one, by turns."""

    def __init__(self, memory, mttys=()):
        self.folder = tempfile.mkdtemp(dir=os.environ['BENCH_FOLDER'])
        self.environ = {**os.environ, 'XDG_RUNTIME_DIR': self.folder}
        self.count, self.mttys = 0, mttys
        vfio = ['--vfio', f'{mttys[0]},id=tty'] if mttys else []
        self.process = self.launch('run', '--kernel', os.environ['IDLE'], '--memory', f'{memory >> 20}M', *vfio)
        wait_for('the guest', lambda: has(f'{self.folder}/m0.log', 'waiting'))

    def launch(self, command, *options):
        with open(f'{self.folder}/m{self.count}.err', 'wb') as errors:
            return subprocess.Popen([os.environ['MVMM'], command, *options, '--name', f'm{self.count}', '--serial',
                                     f'file={self.folder}/m{self.count}.log'],
                                    env=self.environ, stdin=subprocess.DEVNULL, stderr=errors)

    def hop(self):
        """To the next process; GiB/s, and seconds of downtime, measured and predicted."""
        address, source = f'tcp:127.0.0.1:{free_port()}', self.process
        self.count += 1
        vfio = ['--vfio', f'tty={self.mttys[self.count % 2]}'] if self.mttys else []
        self.process = self.launch('receive', '--from', address, *vfio)
        wait_for('the target', lambda: has(f'{self.folder}/m{self.count}.err', 'waiting'))
        line = [os.environ['MVMM'], 'migrate', f'm{self.count - 1}', '--to', address, '--streams', str(STREAMS),
                '--json']
        result = subprocess.run(line, env=self.environ, check=False, stdout=subprocess.PIPE, timeout=TIMEOUT)
        if result.returncode:
            raise SystemExit('bench: mvmm migrate failed')
        report = json.loads(result.stdout)
        source.wait()
        return {'rate': report['sent'] / report['elapsed'] / (1 << 30), 'downtime': report['downtime'],
                'predicted': report['predicted']}

    def end(self):
        self.process.kill()
        self.process.wait()


class Qemu:
    """The same under QEMU, with multifd."""

    def __init__(self, memory, mttys=()):
        self.folder = tempfile.mkdtemp(dir=os.environ['BENCH_FOLDER'])
        self.memory, self.count, self.mttys = memory, 0, mttys
        self.process, self.qmp = self.launch()
        wait_for('the guest', lambda: has(f'{self.folder}/m0.log', 'waiting'))

    def launch(self, *options):
        program, environ = machines.qemu_program()
        path = f'{self.folder}/m{self.count}'
        line = [*program, '-M', 'q35', '-accel', 'kvm', '-cpu', 'host', '-m', f'{self.memory >> 20}', '-nodefaults',
                '-no-user-config', '-display', 'none', '-serial', f'file:{path}.log', '-kernel', os.environ['IDLE'],
                '-qmp', f'unix:{path}.qmp,server=on,wait=off', *options]
        if self.mttys:
            place = f'/sys/bus/mdev/devices/{self.mttys[self.count % 2]}'
            line += ['-object', 'iommufd,id=iommufd0',
                     '-device', f'vfio-pci,sysfsdev={place},iommufd=iommufd0,enable-migration=on']
        with open(f'{path}.err', 'wb') as errors:
            process = subprocess.Popen(line, env=environ, stdin=subprocess.DEVNULL, stderr=errors)
        qmp = Qmp(f'{path}.qmp')
        qmp.do('migrate-set-capabilities', capabilities=[{'capability': 'multifd', 'state': True}])
        qmp.do('migrate-set-parameters', **{'multifd-channels': STREAMS, 'max-bandwidth': 1 << 40,
                                            'downtime-limit': 300})
        return process, qmp

    def hop(self):
        address, source, talk = f'tcp:127.0.0.1:{free_port()}', self.process, self.qmp
        self.count += 1
        self.process, self.qmp = self.launch('-incoming', 'defer')
        self.qmp.do('migrate-incoming', uri=address)
        talk.do('migrate', uri=address)
        wait_for('its end', lambda: talk.do('query-migrate')['status'] in ('completed', 'failed'))
        report = talk.do('query-migrate')
        if report['status'] != 'completed':
            raise SystemExit(f'bench: QEMU: {report}')
        wait_for('the guest', lambda: self.qmp.do('query-status')['status'] == 'running')
        source.kill()
        source.wait()
        seconds = (report['total-time'] - report['setup-time']) / 1000
        return {'rate': report['ram']['transferred'] / seconds / (1 << 30), 'downtime': report['downtime'] / 1000}

    def end(self):
        self.process.kill()
        self.process.wait()


def lines_of(*command):
    """What a program prints as NAME=VALUE words, a dictionary for each line."""
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [dict(word.split('=') for word in line.split()) for line in text.splitlines()]


def bare(memory):
    """GiB/s of as many bytes by as many sockets, into memory as fresh as a target's."""
    return float(lines_of(os.environ['STREAM'], str(memory >> 20), str(STREAMS), '1', 'bare')[0]['bare'])


def streaming(memory, rounds):
    """GiB/s of a migration's sender and receiver alone, and of bare sockets, in turns, into memory that is there."""
    lines = lines_of(os.environ['STREAM'], str(memory >> 20), str(STREAMS), str(rounds))
    say(f'migrate: streams {lines[-1]}')
    return {'migrate_stream': {name: [float(line[name]) for line in lines] for name in ('mvmm', 'bare')}}


def throughput(kinds, memory, rounds):
    """GiB/s of each machine, or of bare sockets, in turns."""
    results = {name: [] for name in kinds}
    for _ in range(rounds):
        for name in kinds:
            if name == 'bare':
                results[name].append(bare(memory))
            else:
                guest = MACHINES[name](memory)
                fill(guest.process.pid, memory)
                warm(memory)
                results[name].append(guest.hop()['rate'])
                guest.end()
            say(f'migrate: {name} {results[name][-1]:.2f} GiB/s')
    return results


def downtimes(kinds, memory, rounds, devices=list):
    """Seconds, measured and predicted, of guests that do nothing, in turns."""
    guests = {name: MACHINES[name](memory, devices()) for name in kinds}
    results = {name: [] for name in kinds}
    for index in range(rounds + 1):
        for name, guest in guests.items():
            hop = guest.hop()
            if index:  # the first one fills caches
                results[name].append(hop)
                say(f'migrate: {name}: downtime {hop["downtime"] * 1000:.2f} ms' +
                    (f', predicted {hop["predicted"] * 1000:.2f} ms' if 'predicted' in hop else ''))
    for guest in guests.values():
        guest.end()
    return results


def collecting(rounds, *words):
    """What it takes to ask which pages of 1 GiB were written, 1 % of them: of each name in the lines, its figures."""
    lines = lines_of(os.environ['COLLECT'], str(rounds), *words)
    say(f'migrate: collecting {" ".join(words)}: {lines[-1]}')
    return {name: {'mvmm': [float(line[name]) for line in lines]} for name in lines[0]}


TRACKERS = {
    'log': ('log', '/sys/bus/platform/devices/softdev.0'),
    'hwpt': ('nolog', '/sys/bus/platform/devices/softdev.0'),
}


def collecting_here(rounds):
    """Of KVM and this process, in microseconds, the kernel's share of KVM's, and what the guest takes to write."""
    return {f'migrate_collect_{name}': figures for name, figures in collecting(rounds).items()}


def collecting_in_host(rounds):
    """Of those that only the test host has."""
    results = {'migrate_collect_vhost': collecting(rounds, 'vhost')['us']}
    for name, words in TRACKERS.items():
        figures = collecting(rounds, *words)
        results.update({f'migrate_collect_{name}': figures['us'], f'migrate_collect_{name}_share': figures['share']})
    return results


def near(hops):
    """How many of a hundred predictions were right."""
    return 100 * sum(abs(hop['predicted'] / hop['downtime'] - 1) <= NEAR for hop in hops) / len(hops)


MACHINES = {'mvmm': Mvmm, 'q35': Qemu}


def here(rounds, only):
    kinds = [name for name in ('mvmm', 'bare') if not only or name in only]
    hops = downtimes(['mvmm'], 2 << 30, HOPS)['mvmm']
    return {
        'migrate_rate': throughput(kinds, 4 << 30, rounds),
        'migrate_downtime': {'mvmm': [hop['downtime'] * 1000 for hop in hops]},
        'migrate_predicted': {'mvmm': [hop['predicted'] * 1000 for hop in hops]},
        'migrate_near': {'mvmm': [near(hops)]},
        **collecting_here(rounds * 10),
    }


def host(rounds, only):
    kinds = [name for name in MACHINES if not only or name in only]
    hops = downtimes(kinds, 2 << 30, HOPS)
    ttys = downtimes(kinds, 256 << 20, HOPS, make_mttys)
    return {
        'migrate_rate_host': throughput(kinds, 1 << 30, rounds),
        'migrate_downtime_host': {name: [hop['downtime'] * 1000 for hop in hops[name]] for name in kinds},
        'migrate_downtime_mtty': {name: [hop['downtime'] * 1000 for hop in ttys[name]] for name in kinds},
        **({'migrate_near_host': {'mvmm': [near(hops['mvmm'])]}, 'migrate_near_mtty': {'mvmm': [near(ttys['mvmm'])]}}
           if 'mvmm' in kinds else {}),
        **collecting_in_host(rounds * 2),
    }


def main():
    results = host(int(sys.argv[2]), sys.argv[3:])
    with open(f'{os.environ["BENCH_FOLDER"]}/migrate.json', 'w', encoding='utf-8') as file:
        json.dump(results, file)


if __name__ == '__main__':
    main()
