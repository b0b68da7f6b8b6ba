# SPDX-License-Identifier: Apache-2.0
"""What `tests/bench/run vfio` measures: one NVMe passed through, by each backend. Runs inside the test host:

  vfio.py vfio ROUNDS [MACHINE]...    writes $BENCH_FOLDER/vfio.json
"""

import glob
import itertools
import json
import mmap
import os
import subprocess
import sys
import time

import machines
import measure

BACKENDS = ('iommufd', 'legacy')
VMMS = ('mvmm', 'q35')
KINDS = ('start', 'exits', 'iops', 'wakes')


def give_nvme():
    """The address of the first NVMe, which VFIO has from now on."""
    address = sorted(glob.glob('/sys/bus/pci/drivers/nvme/0*'))[0].split('/')[-1]
    subprocess.run([os.environ['MVMM'], 'vfio', 'bind', address], check=True, stdout=subprocess.DEVNULL)
    return address


def warm_up():
    """Takes the emulated machine's memory from its own host, which costs whoever comes first ten times the rest."""
    with open('/proc/meminfo', encoding='ascii') as file:
        available = next(int(line.split()[1]) for line in file if line.startswith('MemAvailable:'))
    mmap.mmap(-1, available * 3 // 4 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def command(vmm, backend, address):
    """As machines.MACHINES has it, with the device."""
    def line(guest):
        words, environ = machines.MACHINES[vmm](guest)
        if vmm == 'mvmm':
            return words + ['--vfio', f'{address},backend={backend}'], environ
        device = f'vfio-pci,host={address}'
        words = words + ['-name', 'bench,debug-threads=on']
        if backend == 'iommufd':
            words += ['-object', 'iommufd,id=iommufd0']
            device += ',iommufd=iommufd0'
        return words + ['-device', device], environ
    return line


def start(line):
    """Milliseconds from exec to the first KVM_RUN, with 2 GiB."""
    words, environ = line(machines.Guest(os.environ['KERNEL'], os.environ['VFIO_INITRD'], measure.QUIET, memory=2048))
    timed = ['sh', '-c', 'exec "$@" 3>&1 >/dev/null', 'sh', f'{os.environ["BENCH_FOLDER"]}/first_run', *words]
    result = subprocess.run(timed, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
    return int(result.stdout) / 1000


def device_interrupts():
    """What the host has seen of interrupts that belong to VFIO."""
    total = 0
    with open('/proc/interrupts', encoding='ascii') as file:
        cpus = len(file.readline().split())
        for line in file:
            if 'vfio' in line:
                total += sum(int(word) for word in line.split()[1:1 + cpus])
    return total


def leavings(pid):
    """How often a vCPU's exit or another thread of the VMM came to user space."""
    total = measure.kvm_stat(pid, 'mmio_exits', 'io_exits')
    for task in glob.glob(f'/proc/{pid}/task/*'):
        try:
            with open(f'{task}/status', encoding='ascii') as file:
                fields = dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not fields['Name'].startswith(('vcpu', 'CPU ')):
            total += int(fields['voluntary_ctxt_switches'])
    return total


def guest(name):
    """One guest's exits until its driver has the disk, its reads a second, what a thousand interrupts cost the VMM."""
    kernel, initrd = os.environ['KERNEL'], os.environ['VFIO_INITRD']
    running = measure.Running(name, machines.Guest(kernel, initrd, measure.QUIET, memory=256))
    running.wait_for(b'@@ begin')
    pid = running.process.pid
    exits = measure.kvm_stat(pid, 'exits')
    time.sleep(1)
    left, interrupts = leavings(pid), device_interrupts()
    time.sleep(3)
    left, interrupts = leavings(pid) - left, device_interrupts() - interrupts
    running.wait_for(None)
    running.end()
    found = measure.marks(running.text)
    if 'iops' not in found or not interrupts:
        raise SystemExit(f'bench: {name}: {interrupts} interrupts: {running.text[-2000:].decode(errors="replace")}')
    return {'exits': exits, 'iops': found['iops'], 'wakes': left * 1000 / interrupts}


def rate(address):
    """GiB mapped a second by mvmm's code and by the bare ioctl, of fresh memory and of such as is there already."""
    results = {}
    for backend in BACKENDS:
        probe = [os.environ['VFIO_PROBE'], 'rate', backend, address]
        output = subprocess.run(probe, check=True, stdout=subprocess.PIPE, text=True).stdout
        turns = [dict(word.split('=') for word in line.split()) for line in output.splitlines()][1:]
        for kind in ('fresh', 'there'):
            results[f'vfio_{kind}_{backend}'] = {name: [float(turn[f'{kind}_{name}']) for turn in turns]
                                                 for name in ('mvmm', 'bare')}
        measure.say(f'vfio: {backend}: {turns[-1]}')
    return results


def vfio(rounds, only):
    address = give_nvme()
    results = {f'vfio_{kind}_{backend}': {name: [] for _, name in measure.turns(1, only, VMMS)}
               for kind in KINDS for backend in BACKENDS}
    warm_up()
    for index, backend in itertools.product(range(rounds + 1), BACKENDS):
        for _, vmm in measure.turns(1, only, VMMS):
            name = f'{vmm} {backend}'
            machines.MACHINES[name] = command(vmm, backend, address)
            found = {'start': start(machines.MACHINES[name]), **guest(name)}
            if not index:  # the first round fills caches
                continue
            for kind in KINDS:
                results[f'vfio_{kind}_{backend}'][vmm].append(found[kind])
            measure.say(f'vfio: {name}: {found}')
    results.update(rate(address))
    return results


if __name__ == '__main__':
    with open(f'{os.environ["BENCH_FOLDER"]}/vfio.json', 'w', encoding='utf-8') as out:
        json.dump(vfio(int(sys.argv[2]), sys.argv[3:]), out)
