# SPDX-License-Identifier: Apache-2.0
"""The command lines of the VMMs that are measured against each other: equal guests, each VMM at its best."""

import os
import shlex


class Guest:
    """What all of them run."""

    def __init__(self, kernel, initrd, cmdline, memory=128, cpus=1, disk=None, tools=None, tap=None):
        self.kernel, self.initrd, self.cmdline = kernel, initrd, cmdline
        self.memory, self.cpus = memory, cpus
        self.disk = disk  # {'path':, 'direct': bool}; its serial number is "bench"
        self.tools = tools  # an image of programs, see tests/guest/tools
        self.tap = tap  # {'name':, 'vhost': bool}


def mvmm(guest, program='MVMM', *more):
    line = [os.environ[program], 'run', '--kernel', guest.kernel, '--initrd', guest.initrd,
            '--cmdline', guest.cmdline, '--memory', f'{guest.memory}M', '--cpus', str(guest.cpus), *more]
    if guest.disk:
        direct = 'on' if guest.disk['direct'] else 'off'
        line += ['--disk', f'{guest.disk["path"]},direct={direct},serial=bench']
    if guest.tools:
        line += ['--disk', f'{guest.tools},readonly=on']
    if guest.tap:
        line += ['--net', f'tap={guest.tap["name"]},vhost={"on" if guest.tap["vhost"] else "off"}']
    return line, os.environ


def qemu_program():
    """QEMU without the shell wrapper that tests/packages.sh may have put before it: its arguments and environment."""
    path = os.environ['QEMU']
    with open(path, 'rb') as file:
        if file.read(2) != b'#!':
            return [path], dict(os.environ)
    environ = dict(os.environ)
    with open(path, encoding='utf-8') as file:
        for line in file.read().replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ['export']:
                name, value = words[1].split('=', 1)
                environ[name] = value
            elif words[:1] == ['exec']:
                return [word for word in words[1:] if word != '$@'], environ
    raise SystemExit(f'{path} is a script of an unknown kind')


def qemu(guest, machine):
    program, environ = qemu_program()
    if machine == 'microvm' and (guest.disk or guest.tap):
        machine = 'microvm,pcie=on'  # virtio-mmio is slower
    line = program + ['-M', machine, '-accel', 'kvm', '-m', str(guest.memory),
                      '-smp', str(guest.cpus), '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
                      '-serial', 'stdio', '-kernel', guest.kernel, '-initrd', guest.initrd,
                      '-append', guest.cmdline]
    if os.environ.get('MVMM_TESTHOST'):
        line += ['-cpu', 'host']  # with others' nested KVM QEMU 10.0 trips over an MSR
    if guest.disk:
        direct = 'on' if guest.disk['direct'] else 'off'
        kind = 'host_device' if guest.disk['path'].startswith('/dev/') and os.path.exists(guest.disk['path']) and \
            not os.path.isfile(guest.disk['path']) else 'file'
        line += ['-object', 'iothread,id=io0', '-blockdev',
                 f'driver={kind},node-name=disk0,filename={guest.disk["path"]},aio=io_uring,cache.direct={direct}',
                 '-device', f'virtio-blk-pci,drive=disk0,iothread=io0,serial=bench,write-cache=on']
    if guest.tools:
        line += ['-blockdev', f'driver=file,node-name=tools,filename={guest.tools},read-only=on',
                 '-device', f'virtio-blk-pci,drive=tools']
    if guest.tap:
        vhost = 'on' if guest.tap['vhost'] else 'off'
        line += ['-netdev', f'tap,id=net0,ifname={guest.tap["name"]},script=no,downscript=no,vhost={vhost}',
                 '-device', f'virtio-net-pci,netdev=net0']
    return line, environ


def kinds():
    """Who is measured: mvmm beside QEMU, or beside another mvmm."""
    if os.environ.get('MVMM_BEFORE'):
        return ('mvmm', 'before')
    return ('mvmm', 'q35', 'microvm')


def boot_kinds():
    """The same, and mvmm with its devices on MMIO."""
    return (*kinds(), 'mmio')


MACHINES = {
    'mvmm': mvmm,
    'mmio': lambda guest: mvmm(guest, 'MVMM', '--transport', 'mmio'),
    'before': lambda guest: mvmm(guest, 'MVMM_BEFORE'),
    'q35': lambda guest: qemu(guest, 'q35'),
    'microvm': lambda guest: qemu(guest, 'microvm'),
}
