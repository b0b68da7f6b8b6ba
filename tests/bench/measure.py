# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/run measures, one function a figure. As a program it runs inside the test host:

  measure.py init|memory|disk|net ROUNDS [MACHINE]...    writes $BENCH_FOLDER/PART.json
"""

import glob
import json
import os
import selectors
import subprocess
import sys
import time

import machines

QUIET = 'console=ttyS0 quiet reboot=t panic=-1'
MARK = b'\1'  # what init.c writes
TIMEOUT = 120


def say(text):
    print(f'bench: {text}', file=sys.stderr, flush=True)


def cpio(init):
    """An initramfs (newc) with an /init, and the console that the kernel opens for it."""
    image = bytearray()

    def add(name, mode, data=b'', device=(0, 0)):
        fields = [len(image) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        image.extend(b'070701' + b''.join(b'%08x' % field for field in fields) + name.encode() + b'\0')
        image.extend(b'\0' * (-len(image) % 4))
        image.extend(data)
        image.extend(b'\0' * (-len(image) % 4))

    add('dev', 0o040755)
    add('dev/console', 0o020600, device=(5, 1))
    add('init', 0o100755, init)
    add('TRAILER!!!', 0)
    return bytes(image)


def turns(rounds, only, kinds=None):
    """(round, machine name) in an order that gives all of them the same weather."""
    names = [name for name in kinds or machines.kinds() if not only or name in only]
    return [(index, name) for index in range(rounds) for name in names]


def bench_guest(**more):
    return machines.Guest(os.environ['KERNEL'], f'{os.environ["BENCH_FOLDER"]}/initrd', QUIET, **more)


class Running:
    """A VMM whose serial port is read as it comes."""

    def __init__(self, name, guest):
        line, environ = machines.MACHINES[name](guest)
        self.name, self.text = name, b''
        with open(f'{os.environ["BENCH_FOLDER"]}/stderr', 'wb') as errors:
            self.began = time.monotonic()
            self.process = subprocess.Popen(line, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=errors, bufsize=0)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def wait_for(self, mark):
        """Seconds since the start when mark came; without a mark: all output until the end."""
        while mark is None or mark not in self.text:
            left = self.began + TIMEOUT - time.monotonic()
            data = b''
            if left > 0 and self.selector.select(left):
                data = os.read(self.process.stdout.fileno(), 65536)
            if not data and mark is None and left > 0:
                break
            if not data:
                self.end()
                with open(f'{os.environ["BENCH_FOLDER"]}/stderr', encoding='utf-8', errors='replace') as errors:
                    raise SystemExit(f'bench: {self.name}: {"ended" if left > 0 else "no answer"}: '
                                     f'{self.text[-2000:].decode(errors="replace")}\n{errors.read()}')
            self.text += data
        return time.monotonic() - self.began

    def end(self):
        self.process.kill()
        self.process.wait()


def first_run(rounds, only):
    """Milliseconds from exec to the first KVM_RUN."""
    results = {name: [] for _, name in turns(1, only, machines.boot_kinds())}
    guest = machines.Guest(os.environ['KERNEL'], os.environ['INITRD'], QUIET)
    for _, name in turns(rounds, only, machines.boot_kinds()):
        line, environ = machines.MACHINES[name](guest)
        result = subprocess.run(['sh', '-c', 'exec "$@" 3>&1 >/dev/null 2>&1', 'sh',
                                 f'{os.environ["BENCH_FOLDER"]}/first_run', *line],
                                env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, text=True)
        if result.returncode:
            raise SystemExit(f'bench: {name}: no KVM_RUN: {" ".join(line)}')
        results[name].append(int(result.stdout) / 1000)
    return {'first_run': results}


def kvm_stat(pid, *names):
    """The sum of KVM's counters of a process's machine, its vCPUs included."""
    total = 0
    for name in names:
        for path in glob.glob(f'/sys/kernel/debug/kvm/{pid}-*/{name}'):
            with open(path, encoding='ascii') as file:
                total += int(file.read())
    return total


def init(rounds, only):
    """Milliseconds from exec to the guest's /init, and what KVM counted on the way."""
    counters = {'init_exits': ('exits',), 'init_emulated': ('io_exits', 'mmio_exits'), 'init_faults': ('pf_taken',)}
    results = {figure: {name: [] for _, name in turns(1, only, machines.boot_kinds())}
               for figure in ('init', *counters)}
    for index, name in turns(rounds + 1, only, machines.boot_kinds()):
        running = Running(name, bench_guest())
        took = running.wait_for(MARK) * 1000
        counts = {figure: kvm_stat(running.process.pid, *names) for figure, names in counters.items()}
        running.end()
        if index:  # the first round fills caches
            results['init'][name].append(took)
            for figure, count in counts.items():
                results[figure][name].append(count)
            say(f'init: {name} {took:.0f} ms, {counts}')
    return results


def private_memory(pid, ram):
    """KiB of private memory outside the guest's RAM: the mappings in a row that are together as large as it."""
    areas = []
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as smaps:
        for line in smaps:
            words = line.split()
            if not words[0].endswith(':'):
                start, end = (int(word, 16) for word in words[0].split('-'))
                areas.append({'start': start, 'end': end, 'private': 0})
            elif words[0] in ('Private_Clean:', 'Private_Dirty:', 'Private_Hugetlb:'):
                areas[-1]['private'] += int(words[1])
    total = sum(area['private'] for area in areas)
    best = 0
    for first, _ in enumerate(areas):
        size, private = 0, 0
        for area in areas[first:]:
            if size and area['start'] != end:
                break
            end = area['end']
            size += area['end'] - area['start']
            private += area['private']
            if size >= ram:
                break
        if ram <= size < ram + (4 << 20):
            best = max(best, private)
    if not best:
        raise SystemExit('bench: no mapping as large as the guest\'s RAM was found')
    return total - best


def memory(rounds, only):
    results = {name: [] for _, name in turns(1, only)}
    for _, name in turns(rounds, only):
        running = Running(name, bench_guest())
        running.wait_for(MARK)
        time.sleep(0.5)
        results[name].append(private_memory(running.process.pid, 128 << 20))
        running.end()
        say(f'memory: {name} {results[name][-1]} KiB')
    return {'memory': results}


def marks(text):
    """NAME: VALUE of the lines "@@ NAME VALUE" that guests print."""
    found = {}
    for line in text.decode(errors='replace').splitlines():
        words = line.split()
        if words[:1] == ['@@'] and len(words) == 3:
            found[words[1]] = float(words[2])
    return found


def disk(rounds, only):
    """fio's operations a second on a file in memory, so that the way to it is what is measured."""
    results = {f'disk_{kind}': {name: [] for _, name in turns(1, only)} for kind in ('randread', 'randwrite')}
    path = '/dev/shm/disk'
    with open(path, 'wb') as file:
        for _ in range(256):
            file.write(b'mvmm' * (1 << 18))
    for _, name in turns(rounds, only):
        guest = machines.Guest(os.environ['KERNEL'], os.environ['DISK_INITRD'], QUIET, memory=512,
                               disk={'path': path, 'direct': False}, tools=os.environ['TOOLS'])
        running = Running(name, guest)
        running.wait_for(None)
        running.end()
        found = marks(running.text)
        for kind in ('randread', 'randwrite'):
            if kind not in found:
                raise SystemExit(f'bench: {name}: {running.text[-2000:].decode(errors="replace")}')
            results[f'disk_{kind}'][name].append(found[kind])
        say(f'disk: {name} {found}')
    os.unlink(path)
    return results


def net(rounds, only):
    """iperf3's Mbit/s from the guest to this side of a tap."""
    results = {figure: {name: [] for _, name in turns(1, only)} for figure in ('net', 'net_vhost')}
    subprocess.run('ip tuntap add bench0 mode tap vnet_hdr && ip addr add 10.99.0.1/24 dev bench0 && '
                   'ip link set bench0 up', shell=True, check=True)
    for figure in results:
        for _, name in turns(rounds, only):
            guest = machines.Guest(os.environ['KERNEL'], os.environ['NET_INITRD'], QUIET, memory=512,
                                   tools=os.environ['TOOLS_NET'],
                                   tap={'name': 'bench0', 'vhost': figure == 'net_vhost'})
            server = subprocess.Popen(['iperf3', '-s'], stdout=subprocess.DEVNULL)
            running = Running(name, guest)
            running.wait_for(None)
            running.end()
            server.kill()
            server.wait()
            found = marks(running.text)
            if 'net' not in found:
                raise SystemExit(f'bench: {name}: {running.text[-2000:].decode(errors="replace")}')
            results[figure][name].append(found['net'])
            say(f'{figure}: {name} {found["net"]} Mbit/s')
    subprocess.run(['ip', 'link', 'del', 'bench0'], check=False)
    return results


def main():
    part, rounds, only = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    results = {'init': init, 'memory': memory, 'disk': disk, 'net': net}[part](rounds, only)
    with open(f'{os.environ["BENCH_FOLDER"]}/{part}.json', 'w', encoding='utf-8') as file:
        json.dump(results, file)


if __name__ == '__main__':
    main()
