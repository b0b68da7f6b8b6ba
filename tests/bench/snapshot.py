# SPDX-License-Identifier: Apache-2.0
"""The part `snapshot` of tests/bench/run: machines that are kept in a folder and come back. here() measures tiny guests on this
machine's own KVM, beside a bare program that makes the same VM (bare_restore.c); host() measures Linux guests in the test host,
beside a boot in the same run; both beside QEMU, which migrates to a file (mapped-ram). As a program it runs inside the test host:

  snapshot.py snapshot ROUNDS [MACHINE]...    writes $BENCH_FOLDER/snapshot.json
"""

import glob
import json
import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

import machines
import measure
import migrate
from measure import say
from migrate import has, wait_for

SMALL = 512 << 20
CLONES = 100
LINUX_CLONES = 50
TAP = 'benchsnap0'
TAP_REST = 0.2  # until the kernel has taken note that a tap has lost its last user, under a lock that the next one needs
TIMEOUT = 60


def run(*line, **more):
    result = subprocess.run(line, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT * 10,
                            **more)
    if result.returncode:
        raise SystemExit(f'bench: {" ".join(line)}: {result.stdout[-2000:]}{result.stderr[-2000:]}')
    return result


def is_cached(fd):
    """Whether one of some pages of data is in the page cache."""
    at = 0
    for _ in range(64):
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # there is no more
            return False
        try:
            if os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT):
                return True
        except BlockingIOError:
            at += 4 << 20
    return False


def drop_cache(folder):
    """The files of a snapshot are read from the disk again."""
    for path in glob.glob(f'{folder}/*'):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if is_cached(fd):
            raise SystemExit(f'bench: {path} stays in the page cache')
        os.close(fd)


# ---- mvmm ----

class Mvmm:
    """A tiny guest under mvmm that is kept in a folder."""

    def __init__(self, guest, memory, mark, *options, parent=None):
        self.folder = tempfile.mkdtemp(dir=parent or os.environ['BENCH_FOLDER'])
        self.rundir = tempfile.mkdtemp(dir='/dev/shm')  # a runtime folder is on tmpfs
        self.environ = {**os.environ, 'XDG_RUNTIME_DIR': self.rundir}
        self.log = f'{self.folder}/serial'
        self.process = subprocess.Popen([os.environ['MVMM'], 'run', '--name', 'm', '--kernel', f'{os.environ["GUESTS"]}/guest_{guest}',
                                         '--memory', f'{memory >> 20}M', '--serial', f'file={self.log}', *options],
                                        env=self.environ, stdin=subprocess.DEVNULL)
        wait_for('the guest', lambda: has(self.log, mark))

    def snapshot(self, folder, *options):
        """What the command reports."""
        return json.loads(run(os.environ['MVMM'], 'snapshot', 'm', '--to', folder, '--json', *options,
                              env=self.environ).stdout)

    def keep(self, *options):
        """A snapshot of it, and its end."""
        path = f'{self.folder}/snapshot'
        self.snapshot(path, '--stop', *options)
        self.process.wait()
        return path

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        run('rm', '-rf', self.folder, self.rundir)


def restore_line(folder, *options):
    return [os.environ['MVMM'], 'restore', '--from', folder, '--serial', 'none', *options]


# ---- the bare program ----

def bare_state():
    path = f'{os.environ["BENCH_FOLDER"]}/bare-state'
    if not os.path.exists(path):
        run(os.environ['BARE_RESTORE'], 'save', path)
    return path


def bare_line(folder, *words, how='run'):
    return [os.environ['BARE_RESTORE'], how, bare_state(), f'{folder}/memory', *words]


# ---- QEMU ----

class Qemu:
    """A guest under QEMU that is kept in a file."""

    def __init__(self, memory, mark, *options, folder=None):
        self.folder = folder or tempfile.mkdtemp(dir=os.environ['BENCH_FOLDER'])
        self.memory, self.options = memory, options
        self.log, self.path = f'{self.folder}/serial', f'{self.folder}/state'
        line, environ = self.line(f'file:{self.log}')
        with open(f'{self.folder}/err', 'wb') as errors:
            self.process = subprocess.Popen(line, env=environ, stdin=subprocess.DEVNULL, stderr=errors)
        self.qmp = migrate.Qmp(f'{self.folder}/qmp')
        wait_for('the guest', lambda: has(self.log, mark))

    def line(self, serial, *more):
        program, environ = machines.qemu_program()
        return [*program, '-M', 'q35', '-accel', 'kvm', '-cpu', 'host', '-m', str(self.memory >> 20), '-nodefaults',
                '-no-user-config', '-display', 'none', '-serial', serial, '-global', 'migration.mapped-ram=on',
                '-qmp', f'unix:{self.folder}/qmp,server=on,wait=off', *self.options, *more], environ

    def snapshot(self):
        """Seconds for which the guest was paused, and of all of it; QEMU does it live. The guest goes on."""
        self.qmp.do('migrate', uri=f'file:{self.path}')
        wait_for('its end', lambda: self.qmp.do('query-migrate')['status'] in ('completed', 'failed'))
        report = self.qmp.do('query-migrate')
        if report['status'] != 'completed':
            raise SystemExit(f'bench: QEMU: {report}')
        self.qmp.do('cont')
        return {'pause': report['downtime'] / 1000, 'elapsed': report['total-time'] / 1000}

    def restore_line(self, serial='null'):
        return self.line(serial, '-incoming', f'file:{self.path}')

    def end(self):
        self.process.kill()
        self.process.wait()

    def remove(self):
        run('rm', '-rf', self.folder)


# ---- exec to KVM_RUN ----

def first_run(line, environ, *options):
    """The lines that first_run.c writes, as numbers."""
    result = subprocess.run(['sh', '-c', 'exec "$@" 3>&1 >/dev/null', 'sh', f'{os.environ["BENCH_FOLDER"]}/first_run', *options,
                             *line], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            check=False, text=True)
    if result.returncode:
        raise SystemExit(f'bench: no KVM_RUN: {" ".join(line)}\n{result.stderr[-2000:]}')
    return [int(word) for word in result.stdout.split()]


def in_turns(rounds, candidates, rest=0.0):
    """What each candidate, a function of no arguments, returns in each round, each after some seconds of rest."""
    results = {name: [] for name in candidates}
    for index in range(rounds + 1):
        for name, function in candidates.items():
            time.sleep(rest)
            value = function()
            if index:  # the first one fills caches
                results[name].append(value)
    return results


class Kept:
    """The snapshots that the restores of here() begin from."""

    def __init__(self):
        self.idle = Mvmm('idle', SMALL, 'waiting')
        self.idle_path = self.idle.keep()
        run('ip', 'tuntap', 'add', TAP, 'mode', 'tap', 'vnet_hdr')
        with open(f'/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6', 'w', encoding='ascii') as file:
            file.write('1')  # the host would send packets of its own whenever somebody attaches
        run('ip', 'link', 'set', TAP, 'up')
        self.disk = f'{self.idle.folder}/disk'
        with open(self.disk, 'wb') as file:
            file.truncate(8 << 20)
        self.busy = Mvmm('busy', SMALL, 'at work', '--cmdline', 'wait', '--disk', f'{self.disk},id=disk', '--net', f'tap={TAP},id=net')
        self.busy_path = self.busy.keep('--disks', 'none')
        self.environ = self.idle.environ
        self.count = 0

    def end(self):
        self.idle.end()
        self.busy.end()
        subprocess.run(['ip', 'link', 'del', TAP], check=False)


def restores(kept, rounds, qemu):
    """Milliseconds from exec to KVM_RUN: an idle guest, and one whose disk and network are at work."""
    candidates = {
        'mvmm': lambda: first_run(restore_line(kept.idle_path, '--name', 'one'), kept.environ)[0] / 1000,
        'bare': lambda: first_run(bare_line(kept.idle_path), kept.environ)[0] / 1000,
    }
    busy = {
        'mvmm': lambda: first_run(restore_line(kept.busy_path, '--name', 'one'), kept.environ)[0] / 1000,
        'bare': lambda: first_run(bare_line(kept.busy_path, 'work'), kept.environ)[0] / 1000,
    }
    results = {'snapshot_restore': in_turns(rounds * 10, candidates), 'snapshot_restore_work': in_turns(rounds * 10, busy, TAP_REST)}
    if qemu:
        line, environ = qemu.restore_line()
        beside = in_turns(rounds, {'mvmm': candidates['mvmm'], 'q35': lambda: first_run(line, environ)[0] / 1000})
        results['snapshot_restore_qemu'] = beside
    return results


# ---- a process that waits ----

class Spare:
    """A process that has been prepared, under first_run, which tells when it enters the guest."""

    def __init__(self, line, environ):
        self.process = subprocess.Popen(['sh', '-c', 'exec "$@" 3>&1 >/dev/null', 'sh', f'{os.environ["BENCH_FOLDER"]}/first_run',
                                         '--spare', *line], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def arm(self):
        self.process.send_signal(signal.SIGUSR1)
        if self.process.stdout.readline() != b'armed\n':
            raise SystemExit('bench: the process that waits has ended')

    def wait(self, began):
        """Milliseconds since began until KVM_RUN."""
        took = (int(self.process.stdout.readline()) - began) / 1e6
        self.process.communicate()
        return took


def bare_spare(folder, environ, *words):
    spare = Spare(bare_line(folder, *words, how='spare'), environ)
    time.sleep(0.1)
    spare.arm()
    began = time.monotonic_ns()
    os.write(spare.process.stdin.fileno(), b'\n')
    return spare.wait(began)


def mvmm_spare(kept, path):
    """The request goes to the control socket without a command, whose start is not what is measured."""
    kept.count += 1  # a name whose folder would have to be removed first costs as much as the request
    spare = Spare([os.environ['MVMM'], 'restore', '--from', path, '--wait', '--name', 'spare'], kept.environ)
    address = f'{kept.idle.rundir}/mvmm/spare/control.sock'
    with socket.socket(socket.AF_UNIX) as asker:
        wait_for('the process that waits', lambda: asker.connect_ex(address) == 0)
        time.sleep(0.1)
        spare.arm()
        request = {'method': 'io.mvmm.Machine.Restore', 'parameters': {'name': f'n{kept.count}', 'serial': 'none'}}
        data = json.dumps(request).encode() + b'\0'
        began = time.monotonic_ns()
        asker.sendall(data)
        return spare.wait(began)


def spares(kept, rounds):
    """Milliseconds from a request to KVM_RUN."""
    return {figure: in_turns(rounds * 5, {'mvmm': lambda path=path: mvmm_spare(kept, path),
                                          'bare': lambda path=path, words=words: bare_spare(path, kept.environ, *words)},
                             TAP_REST)
            for figure, path, words in (('snapshot_spare', kept.idle_path, ()), ('snapshot_spare_work', kept.busy_path, ('work',)))}


# ---- clones ----

def clones(kept, rounds):
    """Clones a second, one after the other; they stay."""
    def rate(line):
        return CLONES / (first_run(line, kept.environ, '--count', str(CLONES))[-1] / 1e6)
    return {'snapshot_clones': in_turns(rounds, {
        'mvmm': lambda: rate(restore_line(kept.idle_path, '--name', 'c{n}')),
        'bare': lambda: rate(bare_line(kept.idle_path)),
    })}


# ---- taking one ----

def live(rounds):
    """Milliseconds for which a guest of 2 GiB that works is paused."""
    guest = Mvmm('pattern', 2 << 30, '..', '--cmdline', 'pages=4096 pause=4')
    values = []
    for index in range(rounds * 2 + 1):
        report = guest.snapshot(f'{guest.folder}/s{index}', '--live')
        run('rm', '-rf', f'{guest.folder}/s{index}')
        if index:
            values.append(report['pause'] * 1000)
    guest.end()
    return {'snapshot_live': {'mvmm': values}}


def idle(rounds, qemu):
    """Milliseconds of pause and of writing, of a guest that does nothing, to tmpfs."""
    guest = Mvmm('idle', SMALL, 'waiting', parent='/dev/shm')
    reports = []
    for index in range(rounds * 5 + 1):
        reports.append(guest.snapshot(f'{guest.folder}/s{index}'))
    guest.end()
    results = {f'snapshot_idle_{what}': {'mvmm': [report[what] * 1000 for report in reports[1:]]} for what in ('pause', 'elapsed')}
    if qemu:
        results['snapshot_idle_elapsed']['q35'] = [qemu.snapshot()['elapsed'] * 1000 for _ in reports[1:]]
    return results


def bare_copy(path):
    """Seconds that dd takes for the same bytes, from tmpfs to tmpfs."""
    began = time.monotonic()
    run('dd', f'if={path}', f'of={path}.copy', 'bs=1M')
    took = time.monotonic() - began
    os.unlink(f'{path}.copy')
    return took


def warm_tmpfs(size):
    """Pages that the host has to find first would be what is measured."""
    with mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as area:
        for at in range(0, size, 4096):
            area[at] = 1


def content(rounds):
    """GiB/s of a guest whose memory is full of what cannot be compressed, to tmpfs."""
    memory = (1 << 30) + migrate.LOW
    guest = Mvmm('idle', memory, 'waiting', parent='/dev/shm')
    migrate.fill(guest.process.pid, memory)
    results = {'mvmm': [], 'bare': []}
    for index in range(rounds + 1):
        path = f'{guest.folder}/s{index}'
        warm_tmpfs(memory)
        report = guest.snapshot(path)
        warm_tmpfs(memory)
        took = bare_copy(f'{path}/memory')
        run('rm', '-rf', path)
        if index:
            results['mvmm'].append(1 / report['elapsed'])
            results['bare'].append(1 / took)
            say(f'snapshot: content {results["mvmm"][-1]:.2f} GiB/s, dd {results["bare"][-1]:.2f} GiB/s')
    guest.end()
    return {'snapshot_content': results}


# ---- a cold page cache ----

def answer(line, environ, log):
    """Milliseconds from exec to the first dot on the guest's serial port."""
    if os.path.exists(log):
        os.unlink(log)
    began = time.monotonic()
    with subprocess.Popen(line, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (os.path.exists(log) and os.path.getsize(log)):
            time.sleep(0.0005)
            if time.monotonic() > began + TIMEOUT:
                raise SystemExit('bench: no answer')
        took = time.monotonic() - began
        process.kill()
    return took * 1000


def cold(rounds):
    """
    From a disk whose pages are not in the cache to the guest's first answer, which is what was recorded. The snapshot is taken
    when a turn has just begun, so that most of one lies before the answer.
    """
    guest = Mvmm('scatter', SMALL, '...')
    before = os.path.getsize(guest.log)
    while os.path.getsize(guest.log) == before:
        time.sleep(0.0005)
    path = guest.keep()
    run(os.environ['MVMM'], 'snapshot', 'record', path, env=guest.environ)
    results = {'mvmm': [], 'bare': []}
    modes = [('mvmm', 'prefetch'), ('bare', 'map')]
    for index in range(rounds * 3):
        for name, mode in modes if index % 2 else modes[::-1]:
            drop_cache(path)
            log = f'{guest.folder}/answers'
            line = [os.environ['MVMM'], 'restore', '--from', path, '--name', 'one', '--serial', f'file={log}', '--memory-mode', mode]
            results[name].append(answer(line, guest.environ, log))
    guest.end()
    return {'snapshot_cold': results}


def here(rounds, only):
    qemu = None
    if not only or 'q35' in only:
        qemu = Qemu(SMALL, 'waiting', '-kernel', os.environ['IDLE'])
        qemu.snapshot()
    kept = Kept()
    results = restores(kept, rounds, qemu)
    say('snapshot: restored')
    results.update(spares(kept, rounds))
    results.update(clones(kept, rounds))
    say('snapshot: cloned')
    kept.end()
    results.update(live(rounds))
    results.update(idle(rounds, qemu))
    if qemu:
        qemu.end()
        qemu.remove()
    results.update(content(rounds))
    results.update(cold(rounds))
    return results


# ---- Linux, in the test host ----

class Linux:
    """A Debian kernel whose /init writes a byte each 10 ms, or sleeps after the first one."""

    def __init__(self, initrd):
        self.initrd = initrd
        self.guest = machines.Guest(os.environ['KERNEL'], f'{os.environ["BENCH_FOLDER"]}/{initrd}', measure.QUIET, memory=SMALL >> 20)
        self.folder = f'/dev/shm/linux-{initrd}'  # the bench's folder is a share of the test host

    def boot(self, name='mvmm'):
        running = measure.Running(name, self.guest)
        return running, running.wait_for(measure.MARK) * 1000

    def take(self):
        """The folder of a snapshot of it, made in this run."""
        running, _ = self.boot()
        time.sleep(1)
        names = json.loads(run(os.environ['MVMM'], 'ps', '--json').stdout)
        name = next(entry['name'] for entry in names if entry['pid'] == running.process.pid)
        run(os.environ['MVMM'], 'snapshot', name, '--to', self.folder, '--stop')
        running.end()
        return self.folder


class Restored(measure.Running):
    """A machine that goes on, whose serial port is read."""

    def __init__(self, name, line, environ):  # pylint: disable=super-init-not-called
        self.name, self.text = name, b''
        with open(f'{os.environ["BENCH_FOLDER"]}/stderr', 'wb') as errors:
            self.began = time.monotonic()
            self.process = subprocess.Popen(line, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                            bufsize=0)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)


def next_byte(name, line, environ):
    running = Restored(name, line, environ)
    took = running.wait_for(measure.MARK) * 1000
    running.end()
    return took


def linux_bytes(rounds, only):
    """Milliseconds to the guest's next byte: of a restore, of a boot in the same round, and of QEMU's restore."""
    ticking = Linux('initrd-tick')
    folder = ticking.take()
    line = [os.environ['MVMM'], 'restore', '--from', folder, '--name', 'one']
    results = {'mvmm': [], 'bare': []}
    beside = {'mvmm': results['mvmm'], 'q35': []}
    qemu = None
    if not only or 'q35' in only:
        qemu = Qemu(SMALL, measure.MARK.decode(), '-kernel', ticking.guest.kernel, '-initrd', ticking.guest.initrd, '-append',
                    measure.QUIET, folder=tempfile.mkdtemp(dir='/dev/shm'))
        qemu.snapshot()
        qemu.end()
    for index in range(rounds + 1):
        restored = next_byte('mvmm', line, os.environ)
        running, booted = ticking.boot()
        running.end()
        say(f'snapshot: the next byte after {restored:.0f} ms, of a boot after {booted:.0f} ms')
        if not index:
            continue
        results['mvmm'].append(restored)
        results['bare'].append(booted)
        if qemu:
            beside['q35'].append(next_byte('q35', *qemu.restore_line('stdio')))
    return {'snapshot_byte': results, **({'snapshot_byte_qemu': beside} if qemu else {})}


def pss(pid):
    with open(f'/proc/{pid}/smaps_rollup', encoding='ascii') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Pss:'))


def linux_clones():
    """KiB beside guest RAM of one clone, and MiB that belong to each of many."""
    folder = Linux('initrd').take()
    clones_of = [subprocess.Popen([os.environ['MVMM'], 'restore', '--from', folder, '--name', f'c{index}', '--serial', 'none'],
                                  stdin=subprocess.DEVNULL) for index in range(LINUX_CLONES)]
    time.sleep(10)
    if any(process.poll() is not None for process in clones_of):
        raise SystemExit('bench: a clone has ended')
    private = [measure.private_memory(process.pid, SMALL) for process in clones_of]
    shares = [pss(process.pid) / 1024 for process in clones_of]
    for process in clones_of:
        process.kill()
        process.wait()
    return {'snapshot_private': {'mvmm': private}, 'snapshot_pss': {'mvmm': shares}}


def host(rounds, only):
    return {**linux_bytes(rounds, only), **linux_clones()}


def main():
    results = host(int(sys.argv[2]), sys.argv[3:])
    with open(f'{os.environ["BENCH_FOLDER"]}/snapshot.json', 'w', encoding='utf-8') as file:
        json.dump(results, file)


if __name__ == '__main__':
    main()
