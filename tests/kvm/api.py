#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Firecracker's face, by a client: every path, member, limit and error from tables, before and after the start; clients that
come together, that are killed, and that start again.

TAP on stdout. usage: api.py MVMM GUEST-DIRECTORY UFFD-HANDLER
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from tap import Tap

PATIENCE = 60 * int(os.environ.get("MVMM_PATIENCE", "1"))  # seconds for anything that must happen
MVMM, GUESTS, HANDLER = (os.path.realpath(word) for word in sys.argv[1:4])
BEFORE, AFTER = "before", "after"
NOT_BEFORE = "The requested operation is not supported before starting the microVM."
NOT_AFTER = "The requested operation is not supported after starting the microVM."
JSON = "An error occurred when deserializing the json body of a request: "
PIDS = os.getpid()

# What is there: method, path, a body that is right (of the time when it may come), when it may come, the status.
PATHS = [
    ("GET", "/", None, [BEFORE, AFTER], 200),
    ("GET", "/version", None, [BEFORE, AFTER], 200),
    ("GET", "/vm/config", None, [BEFORE, AFTER], 200),
    ("GET", "/machine-config", None, [BEFORE, AFTER], 200),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}, [BEFORE], 204),
    ("PATCH", "/machine-config", {"mem_size_mib": 64}, [BEFORE], 204),
    ("PUT", "/boot-source", {"kernel_image_path": "GUEST"}, [BEFORE], 204),
    ("PUT", "/drives/rootfs", {"drive_id": "rootfs", "is_root_device": True, "path_on_host": "DISK"}, [BEFORE], 204),
    ("DELETE", "/drives/rootfs", None, [], 0), ("DELETE", "/network-interfaces/eth0", None, [], 0),
    ("PATCH", "/drives/rootfs", {"drive_id": "rootfs", "rate_limiter": {"ops": {"size": 10, "refill_time": 1000}}}, [AFTER], 204),
    ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "vsock.sock"}, [BEFORE], 204),
    ("PUT", "/entropy", {}, [BEFORE], 204),
    ("PUT", "/serial", {"serial_out_path": "serial"}, [BEFORE], 204),
    ("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1}, [BEFORE], 204),
    ("PATCH", "/balloon", {"amount_mib": 1}, [AFTER], 204),
    ("GET", "/balloon", None, [BEFORE, AFTER], 200),
    ("GET", "/balloon/statistics", None, [AFTER], 200),
    ("PUT", "/logger", {"level": "Debug"}, [BEFORE], 204),
    ("PUT", "/metrics", {"metrics_path": "metrics"}, [BEFORE], 204),
    ("PUT", "/actions", {"action_type": "FlushMetrics"}, [AFTER], 204),
    ("PATCH", "/vm", {"state": "Paused"}, [AFTER], 204),
    ("PATCH", "/vm", {"state": "Resumed"}, [AFTER], 204),
]

# What mvmm does not have, at the time when Firecracker would do it.
REFUSED = [
    ("PUT", "/cpu-config", {}, BEFORE), ("PUT", "/pmem/a", {"id": "a"}, BEFORE), ("PUT", "/mmds", {}, BEFORE),
    ("GET", "/mmds", None, BEFORE), ("PUT", "/mmds/config", {"a": 1}, BEFORE), ("PUT", "/hotplug/memory", {}, BEFORE),
    ("PATCH", "/hotplug/memory", {}, AFTER),
    ("PATCH", "/balloon/statistics", {}, AFTER), ("PATCH", "/balloon/hinting/start", {}, AFTER),
]

U8, U16, U32, U64 = ("u8", 255), ("u16", 65535), ("u32", 2**32 - 1), ("u64", None)
LIMITER = {"bandwidth": ({}, False), "ops": ({}, False)}

# The members of each body: type, whether it must be there. A list: these words.
BODIES = {
    ("PUT", "/machine-config"): {
        "vcpu_count": (U8, True), "mem_size_mib": (U64, True), "smt": (bool, False), "track_dirty_pages": (bool, False),
        "huge_pages": (["None", "Transparent", "2M"], False), "cpu_template": (["None", "C3"], False)},
    ("PUT", "/boot-source"): {"kernel_image_path": (str, True), "initrd_path": (str, False), "boot_args": (str, False)},
    ("PUT", "/drives/rootfs"): {
        "drive_id": (str, True), "is_root_device": (bool, True), "partuuid": (str, False), "path_on_host": (str, False),
        "cache_type": (["Unsafe", "Writeback"], False), "is_read_only": (bool, False),
        "io_engine": (["Sync", "Async"], False), "rate_limiter": (LIMITER, False), "socket": (str, False)},
    ("PATCH", "/drives/rootfs"): {"drive_id": (str, True), "path_on_host": (str, False), "rate_limiter": (LIMITER, False)},
    ("PUT", "/network-interfaces/eth0"): {
        "iface_id": (str, True), "host_dev_name": (str, True), "guest_mac": (str, False), "mtu": (U16, False),
        "rx_rate_limiter": (LIMITER, False), "tx_rate_limiter": (LIMITER, False)},
    ("PATCH", "/network-interfaces/eth0"): {"iface_id": (str, True), "rx_rate_limiter": (LIMITER, False),
                                            "tx_rate_limiter": (LIMITER, False)},
    ("PUT", "/device-passthrough/gpu"): {"id": (str, True), "sbdf": (str, True)},
    ("PUT", "/vsock"): {"guest_cid": (U32, True), "uds_path": (str, True), "vsock_id": (str, False)},
    ("PUT", "/balloon"): {
        "amount_mib": (U32, True), "deflate_on_oom": (bool, True), "stats_polling_interval_s": (U16, False),
        "free_page_hinting": (bool, False), "free_page_reporting": (bool, False)},
    ("PATCH", "/balloon"): {"amount_mib": (U32, True)},
    ("PUT", "/entropy"): {"rate_limiter": (LIMITER, False)},
    ("PUT", "/serial"): {"serial_out_path": (str, False)},
    ("PUT", "/logger"): {"log_path": (str, False), "level": (["Info"], False), "show_level": (bool, False),
                         "show_log_origin": (bool, False), "module": (str, False)},
    ("PUT", "/actions"): {"action_type": (["InstanceStart", "FlushMetrics", "SendCtrlAltDel"], True)},
    ("PUT", "/snapshot/create"): {"snapshot_path": (str, True), "mem_file_path": (str, True),
                                  "snapshot_type": (["Full", "Diff"], False)},
    ("PUT", "/snapshot/load"): {
        "snapshot_path": (str, True), "mem_file_path": (str, False), "resume_vm": (bool, False), "track_dirty_pages": (bool, False),
        "enable_diff_snapshots": (bool, False), "clock_realtime": (bool, False), "huge_pages": (["Snapshot"], False)},
    ("PATCH", "/vm"): {"state": (["Paused", "Resumed"], True)},
}

# What is wrong before the start, and what is said: in this order, on one process.
WRONG = [
    ("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 64}, "The number of vCPUs must be greater than 0"),
    ("PUT", "/machine-config", {"vcpu_count": 33, "mem_size_mib": 64}, "The number of vCPUs must be greater than 0"),
    ("PUT", "/machine-config", {"vcpu_count": 3, "mem_size_mib": 64, "smt": True}, "an even number if SMT is enabled"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 0}, "The memory size (MiB) is either 0"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 2**62}, "The memory size (MiB) is either 0"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 65, "huge_pages": "2M"}, "a multiple of the configured page"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "T2"}, "mvmm has no CPU templates"),
    ("PATCH", "/machine-config", {}, "Empty PATCH request."),
    ("PUT", "/boot-source", {"kernel_image_path": "nowhere"}, "The kernel file cannot be opened: No such file or directory (os error 2)"),
    ("PUT", "/boot-source", {"kernel_image_path": "GUEST", "initrd_path": "nowhere"}, "The initrd file cannot be opened"),
    ("PUT", "/boot-source", {"kernel_image_path": "GUEST", "boot_args": "x" * 2048}, "The kernel command line is invalid"),
    ("PUT", "/actions", {"action_type": "InstanceStart"}, "Cannot start microvm without kernel configuration."),
    ("PUT", "/drives", {"drive_id": "a", "is_root_device": False}, "The ID cannot be empty."),
    ("PUT", "/drives/", {"drive_id": "a", "is_root_device": False}, "The ID cannot be empty."),
    ("PUT", "/drives/a-b", {"drive_id": "a-b", "is_root_device": False}, "can only contain alphanumeric characters and underscores."),
    ("PUT", "/drives/a", {"drive_id": "b", "is_root_device": False}, "The id from the path does not match the id from the body!"),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False}, "path_on_host is missing"),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "socket": "s"}, "vhost-user"),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "nowhere"},
     "Error manipulating the backing file: No such file or directory (os error 2) nowhere"),
    ("PUT", "/network-interfaces/a", {"iface_id": "b", "host_dev_name": "x"},
     "The id from the path [a] does not match the id from the body [b]!"),
    ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "x", "guest_mac": "06:00"}, "invalid MAC address"),
    ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "x", "mtu": 67}, "invalid MTU"),
    ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "no-such-interface-name"}, "Could not create the network device"),
    ("PUT", "/vsock", {"guest_cid": 2, "uds_path": "v"}, "invalid guest CID 2"),
    ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "DISK"}, "Error binding to the host-side Unix socket: Address in use"),
    ("GET", "/balloon", None, "No balloon device found."),
    ("PUT", "/balloon", {"amount_mib": 129, "deflate_on_oom": False}, "Amount of pages requested is too large."),
    ("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False, "free_page_hinting": True}, "mvmm has no free page hinting"),
    ("PUT", "/logger", {"log_path": "nowhere/log"}, "Logger error: Failed to open target file"),
    ("PUT", "/logger", {"level": "loud"}, "unknown variant `loud`, expected one of `Off`"),
    ("PUT", "/metrics", {"metrics_path": "nowhere/metrics"}, "Metrics error: Cannot initialize the metrics system"),
    ("GET", "/nothing", None, "Invalid request method and/or path: GET nothing."),
    ("POST", "/actions", {"action_type": "InstanceStart"}, "Invalid request method and/or path: POST actions."),
    ("PUT", "/version", {}, "Invalid request method and/or path: PUT version."),
    ("DELETE", "/boot-source", None, "Invalid request method and/or path: DELETE boot-source."),
    ("GET", "/vm", None, "Invalid request method and/or path: GET vm."),
    ("GET", "/version", {}, "GET request cannot have a body."),
    ("PUT", "/boot-source", None, "Empty PUT request."),
    ("PATCH", "/vm", None, "Empty PATCH request."),
    ("DELETE", "/drives/a", {}, "Empty Delete request."),
]

LINES = [
    (["--version"], 0, r"^Firecracker v1\.\d+\.\d+\n\n$"),
    (["--help"], 0, r"--api-sock"),
    (["--frob"], 153, r"Found argument '--frob' which wasn't expected"),
    (["--id=x"], 153, r"Found argument '--id=x' which wasn't expected"),
    (["--id"], 153, r"The argument 'id' requires a value"),
    (["--log-path", b"\xff"], 153, r"The value of 'log-path' is not UTF-8"),
    (["--id", "--no-api"], 153, r"The argument 'id' requires a value"),
    (["--id", "a", "--id", "b"], 153, r"The argument 'id' was provided more than once"),
    (["--no-api"], 153, r"'config-file' required"),
    (["--no-seccomp", "--seccomp-filter", "x"], 153, r"cannot be used together"),
    (["--level", "loud"], 152, r"unknown variant `loud`"),
    (["--id", "a_b"], 1, r"Invalid instance ID: InvalidChar"),
    (["--id", "a" * 65], 1, r"Invalid instance ID: InvalidLength"),
    (["--api-sock", "taken"], 1, r"Failed to open the API socket at: taken"),
    (["--api-sock", "a.sock", "--log-path", "nowhere/log"], 1, r"Failed to open target file"),
    (["--api-sock", "a.sock", "--metrics-path", "nowhere/log"], 1, r"Cannot initialize the metrics system"),
    (["--api-sock", "b.sock", "--config-file", "nowhere"], 1, r"Unable to open or read from the configuration file"),
    (["--api-sock", "c.sock", "--config-file", "broken.json"], 1, r"Invalid JSON"),
    (["--boot-timer"], 153, r"mvmm does not have that"),
]


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


class Machine:
    """A process of mvmm under Firecracker's name, and a client."""

    begun = []  # those that have not ended

    def __init__(self, work, *words, guest="guest_idle", socket_name="api.sock"):
        self.work, self.guest = work, guest
        self.path = os.path.join(work, socket_name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.process = subprocess.Popen([os.path.join(work, "firecracker"), "--api-sock", socket_name, *words], cwd=work,
                                        env=dict(os.environ, XDG_RUNTIME_DIR=work), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.client = self.said = None
        self.begun.append(self)

    def ready(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(self.path)
                self.client = Connection(self.path)
                return self
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.002)
        raise AssertionError("no socket")

    def fill(self, body):
        if isinstance(body, dict):
            return {key: self.fill(value) for key, value in body.items()}
        return {"GUEST": f"{GUESTS}/{self.guest}", "DISK": os.path.join(self.work, "disk")}.get(body, body) \
            if isinstance(body, str) else body

    def ask(self, method, path, body=None, client=None):
        """The status and the body of the reply."""
        client = client or self.client
        text = body if isinstance(body, (bytes, type(None))) else json.dumps(self.fill(body)).encode()
        client.request(method, path, text, {"Accept": "application/json"})
        reply = client.getresponse()
        content = reply.read()
        return reply.status, json.loads(content) if content else None

    def must(self, method, path, body=None):
        status, reply = self.ask(method, path, body)
        assert status in (200, 204), (method, path, status, reply)
        return reply

    def configure(self, boot_args=None, memory=64):
        self.must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": memory})
        self.must("PUT", "/boot-source", {"kernel_image_path": "GUEST", **({"boot_args": boot_args} if boot_args else {})})

    def serial(self, name="serial"):
        """What the guest has written there so far."""
        with open(os.path.join(self.work, name), encoding="ascii", errors="replace") as file:
            return file.read()

    def start(self):
        self.must("PUT", "/actions", {"action_type": "InstanceStart"})

    def end(self):
        if self.client:
            self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        if self.said is None:
            self.begun.remove(self)
            self.said = self.process.communicate()[0].decode(errors="replace")
        return self.said


@contextlib.contextmanager
def folder():
    work = tempfile.mkdtemp()
    os.symlink(MVMM, os.path.join(work, "firecracker"))
    with open(os.path.join(work, "disk"), "wb") as disk:
        disk.truncate(4 << 20)
    try:
        yield work
    finally:
        shutil.rmtree(work)


@contextlib.contextmanager
def machine(*words, **more):
    with folder() as work:
        it = Machine(work, *words, **more).ready()
        try:
            yield it
        finally:
            it.end()


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


# ---- tables ----


def lines(tap):
    faults = []
    with folder() as work:
        open(os.path.join(work, "taken"), "w", encoding="ascii").close()
        with open(os.path.join(work, "broken.json"), "w", encoding="ascii") as broken:
            broken.write('{"boot-source": ')
        for words, code, pattern in LINES:
            done = subprocess.run([os.path.join(work, "firecracker"), *words], cwd=work, capture_output=True, text=True,
                                  timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)
            if done.returncode != code or not re.search(pattern, done.stdout + done.stderr):
                faults.append(f"{words}: {done.returncode} {done.stdout} {done.stderr}")
        done = subprocess.run([MVMM, "api", "--as", "firecracker", "--version"], capture_output=True, text=True, check=False)
        if not done.stdout.startswith("Firecracker v"):
            faults.append(f"--as: {done}")
    tap.all("command lines", faults)


def expect(it, method, path, body, status, text, faults, when=""):
    got, reply = it.ask(method, path, body)
    said = (reply or {}).get("fault_message", "") if isinstance(reply, dict) else ""
    if got != status or (text and text not in said) or (status == 400 and set(reply) != {"fault_message"}):
        faults.append(f"{when} {method} {path} {str(body)[:80]}: {got} {reply}")


def wrong_value(kind):
    """A value of another type, and what is said of it."""
    if kind is bool:
        return 5, "invalid type: integer `5`, expected a boolean"
    if kind is str:
        return True, "invalid type: boolean `true`, expected a string"
    if isinstance(kind, list):
        return "Sideways", "unknown variant `Sideways`, expected "
    if isinstance(kind, dict):
        return "x", 'invalid type: string "x", expected struct '
    return "x", f'invalid type: string "x", expected {kind[0]}'


def sample(kind):
    if isinstance(kind, list):
        return kind[0]
    return {bool: False, str: "x"}.get(kind, 1) if not isinstance(kind, (dict, tuple)) else ({} if isinstance(kind, dict) else 1)


def members(it, when):
    """Each member of each body, left out, of another type, out of its range; and one more that is unknown."""
    faults = []
    for (method, path), table in BODIES.items():
        right = {name: sample(kind) for name, (kind, needed) in table.items() if needed}
        right.update({key: path.split("/")[2] for key in ("drive_id", "iface_id", "id") if key in table})
        for name, (kind, needed) in table.items():
            if needed:
                expect(it, method, path, {key: value for key, value in right.items() if key != name}, 400,
                       f"{JSON}missing field `{name}` at line 1 column ", faults, when)
            value, text = wrong_value(kind)
            expect(it, method, path, {**right, name: value}, 400, JSON + text, faults, when)
            if isinstance(kind, tuple):
                expect(it, method, path, {**right, name: -1}, 400, f"{JSON}invalid value: integer `-1`, expected {kind[0]}",
                       faults, when)
                expect(it, method, path, {**right, name: 1.5}, 400, f"{JSON}invalid type: floating point `1.5`, expected {kind[0]}",
                       faults, when)
            if isinstance(kind, tuple) and kind[1]:
                expect(it, method, path, {**right, name: kind[1] + 1}, 400, f"{JSON}invalid value: integer", faults, when)
            if isinstance(kind, dict):
                expect(it, method, path, {**right, name: {"frob": 1}}, 400,
                       f"{JSON}unknown field `frob`, expected `bandwidth` or `ops`", faults, when)
                expect(it, method, path, {**right, name: {"ops": {"size": 1}}}, 400, f"{JSON}missing field `refill_time`", faults, when)
        expect(it, method, path, {**right, "frob": 1}, 400, f"{JSON}unknown field `frob`, expected ", faults, when)
        expect(it, method, path, b"[]", 400, f"{JSON}invalid type: sequence, expected struct ", faults, when)
        expect(it, method, path, b"{", 400, JSON, faults, when)
        expect(it, method, path, b'{"a": 1, "a": 2}', 400, JSON, faults, when)
        expect(it, method, path, b"\xff\xfe", 400, JSON, faults, when)
    return faults


def times(it, when):
    """Everything at this time: what may come now is done, what may not is refused."""
    faults = []
    for method, path, body, may, status in PATHS:
        if when in may:
            expect(it, method, path, body, status, "", faults, when)
        elif when == AFTER and (path.startswith("/drives/") or path.startswith("/network-interfaces/")):
            expect(it, method, path, body, 400, "PCI is not enabled", faults, when)
        else:
            expect(it, method, path, body, 400, NOT_BEFORE if when == BEFORE else NOT_AFTER, faults, when)
    for method, path, body, may in REFUSED:
        text = "The requested operation is not supported: mvmm does not have " if may == when else \
            "The requested operation is not supported"
        expect(it, method, path, body, 400, text, faults, when)
    return faults


def tables(tap):
    with machine() as it:
        tap.all("what is wrong before the start", [fault for row in WRONG for fault in wrong(it, *row)])
        tap.check("... has changed nothing", it.must("GET", "/machine-config")["mem_size_mib"] == 128)
        tap.all("members before the start", members(it, BEFORE))
        tap.all("paths before the start", times(it, BEFORE))
        it.start()
        tap.all("paths after the start", times(it, AFTER))
        tap.all("members after the start", members(it, AFTER))
        expect_all = []
        expect(it, "PUT", "/actions", {"action_type": "InstanceStart"}, 400, NOT_AFTER, expect_all)
        expect(it, "PUT", "///version//", b"{}", 400, "PUT version", expect_all)
        expect(it, "PATCH", "/drives/none", {"drive_id": "none", "path_on_host": "DISK"}, 400, "Device not found", expect_all)
        expect(it, "PATCH", "/drives/rootfs", {"drive_id": "rootfs", "path_on_host": "nowhere"}, 400,
               "Error manipulating the backing file: No such file or directory (os error 2) nowhere", expect_all)
        expect(it, "PATCH", "/balloon", {"amount_mib": 65}, 400, "Amount of pages requested is too large.", expect_all)
        tap.all("what is wrong after the start", expect_all)
        check_config(tap, it)
        metrics_lines(tap, it)


def wrong(it, method, path, body, text):
    faults = []
    expect(it, method, path, body, 400, text, faults)
    return faults


def check_config(tap, it):
    config = it.must("GET", "/vm/config")
    disk = os.path.join(it.work, "disk")
    bucket = {"size": 10, "one_time_burst": None, "refill_time": 1000}
    wanted = {
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 64, "smt": False, "track_dirty_pages": False, "huge_pages": "None"},
        "boot-source": {"kernel_image_path": f"{GUESTS}/guest_idle", "initrd_path": None, "boot_args": None},
        "drives": [{"drive_id": "rootfs", "partuuid": None, "is_root_device": True, "cache_type": "Unsafe", "is_read_only": None,
                    "path_on_host": disk, "rate_limiter": {"bandwidth": None, "ops": bucket}, "io_engine": None, "socket": None}],
        "balloon": {"amount_mib": 1, "deflate_on_oom": True, "stats_polling_interval_s": 1, "free_page_hinting": False,
                    "free_page_reporting": False},
        "vsock": {"guest_cid": 3, "uds_path": "vsock.sock"}, "entropy": {"rate_limiter": None},
        "logger": {"log_path": None, "level": "Debug", "show_level": None, "show_log_origin": None, "module": None},
        "metrics": {"metrics_path": "metrics", "emit_id": False},
        "network-interfaces": [], "pmem": [], "memory-hotplug": None, "mmds-config": None, "cpu-config": None,
    }
    tap.check("the whole configuration is told", config == wanted, [(k, config.get(k)) for k in wanted if config.get(k) != wanted[k]])


def metrics_lines(tap, it):
    def read():
        with open(os.path.join(it.work, "metrics"), encoding="ascii") as file:
            return [json.loads(line) for line in file]

    before = len(read())
    for _ in range(2):
        it.must("PUT", "/actions", {"action_type": "FlushMetrics"})
    told = read()
    tap.check("a line of metrics on each request", len(told) == before + 2 and told[0]["put_api_requests"]["drive_count"] > 3 and
              told[0]["put_api_requests"]["drive_fails"] > 3, told)
    tap.check("... counts from the last one", told[-1]["put_api_requests"]["actions_count"] == 1 and
              told[-1]["put_api_requests"]["drive_count"] == 0, told[-1])


def missed_lines(tap):
    """Of a FIFO that is full."""
    with machine() as it:
        os.mkfifo(os.path.join(it.work, "metrics"))
        with open(os.open(os.path.join(it.work, "metrics"), os.O_RDONLY | os.O_NONBLOCK), encoding="ascii") as fifo:
            it.must("PUT", "/metrics", {"metrics_path": "metrics"})
            it.configure()
            it.start()
            flush, full = {"action_type": "FlushMetrics"}, 0
            while it.ask("PUT", "/actions", flush)[0] == 204:
                full += 1
            it.ask("PUT", "/actions", flush)
            told = [json.loads(fifo.readline()) for _ in range(full)]
            for _ in range(2):
                it.must("PUT", "/actions", flush)
                told.append(json.loads(fifo.readline()))
        missed = [line["logger"]["missed_metrics_count"] for line in told]
        tap.check("lines of metrics that nobody reads are counted, once", max(missed) >= 2 and missed.count(0) == full + 1, missed)


# ---- lives ----


def tell_log(tap):
    with machine("--id", "instance-1", "--log-path", "log", "--show-level") as it:
        for _ in range(30):
            it.must("GET", "/version")
        it.ask("PUT", "/boot-source", b'{"a": "b\n"}')
        it.process.send_signal(signal.SIGTERM)
        code = it.process.wait(PATIENCE)
        with open(os.path.join(it.work, "log"), encoding="ascii") as file:
            text = file.read()
        rows = text.splitlines()
        head = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[instance-1:[^:\]]+:(INFO|WARN|ERROR)\] ")
        tap.check("lines of the log have Firecracker's form", rows and all(head.match(row) for row in rows), rows[:3])
        tap.check("... none is left out", text.count('received a Get request on "/version".') == 30 and
                  text.count("Status code: 200 OK.") == 30, text)
        tap.check("... with body and reason", r'Put request on "/boot-source" with body "{\"a\": \"b\n\"}".' in text and
                  "Received Error. Status code: 400 Bad Request. Message: " in text, text[-900:])
        tap.check("... and the end", "Firecracker exiting with error. exit_code=" in rows[-1] and "API server started." in text, rows[-1])
        tap.check("SIGTERM ends it as a signal", code == -signal.SIGTERM, code)


def transport(tap):
    with machine() as it:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(PATIENCE)
        raw.connect(it.path)
        raw.sendall(b"GET /version HTTP/1.1\r\n\r\nPUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        raw.shutdown(socket.SHUT_WR)
        text = b""
        while chunk := raw.recv(65536):
            text += chunk
        tap.check("replies have Firecracker's form and order", text.startswith(
            b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: ")
            and text.endswith(b"}HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"), text)
        raw.close()
        status, reply = it.ask("PUT", "/entropy", b"{" + b" " * 51200 + b"}")
        tap.check("a body that is too large is refused", status == 400 and
                  reply == {"error": "Request payload with size 51202 is larger than the limit of 51200 allowed by server."}, reply)
        it.client.close()
        many = [Connection(it.path) for _ in range(11)]
        answers = []
        for client in many:
            client.connect()
        for client in many[:10]:
            answers.append(it.ask("GET", "/version", client=client)[0])
        reply = many[10].sock.recv(4096)
        tap.check("ten clients are served, the eleventh is turned away", answers == [200] * 10 and
                  b"HTTP/1.1 503 " in reply and b"Connection: close" in reply, (answers, reply))
        for client in many:
            client.close()
    with machine("--http-api-max-payload-size", "100") as it:
        status, _ = it.ask("PUT", "/entropy", b"{" + b" " * 100 + b"}")
        tap.check("the limit of bodies is an option", status == 400, status)


def deprecated(tap):
    with machine() as it:
        client = it.client
        client.request("PUT", "/vsock", json.dumps({"guest_cid": 3, "uds_path": "v", "vsock_id": "x"}))
        reply = client.getresponse()
        reply.read()
        tap.check("what is deprecated is said to be", reply.getheader("Deprecation") == "true" and reply.status == 204, reply.status)


def disk_of(work, name, sectors):
    path = os.path.join(work, name)
    with open(path, "wb") as file:
        file.truncate(sectors * 512)
    return path


def opened(it):
    """The files that the process has open."""
    folder_of, names = f"/proc/{it.process.pid}/fd", []
    for fd in os.listdir(folder_of):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(os.path.join(folder_of, fd)))
    return names


def pass_file(it, method, path, body, *names):
    """A request with descriptors."""
    fds = [os.open(name, os.O_RDWR) for name in names]
    text = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(it.path)
        socket.send_fds(client, [head + text], fds)
        reply = client.recv(65536)
    for fd in fds:
        os.close(fd)
    return reply


def passed(tap):
    """Files that the machine cannot find by their paths."""
    with machine("--enable-pci", guest="guest_plug") as it:
        it.configure()
        it.must("PUT", "/serial", {"serial_out_path": "serial"})
        reply = pass_file(it, "PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "no/where"},
                          disk_of(it.work, "first", 1000), disk_of(it.work, "other", 9000))
        tap.check("a file may be passed with a request", b" 204 " in reply, reply)
        it.start()
        until(lambda: re.search(r"\b1000\b", it.serial()), "the guest sees it")
        reply = pass_file(it, "PATCH", "/drives/a", {"drive_id": "a", "path_on_host": "no/where"}, disk_of(it.work, "second", 3000))
        until(lambda: re.search(r"\b3000\b", it.serial()), "the guest sees the other one")
        tap.check("... also when the guest runs", b" 204 " in reply, reply)
        reply = pass_file(it, "PUT", "/drives/b", {"drive_id": "b", "is_root_device": False, "path_on_host": "no/where"},
                          disk_of(it.work, "third", 5000))
        until(lambda: re.search(r"\b5000\b", it.serial()), "the guest sees a new one")
        tap.check("... and for a drive that comes", b" 204 " in reply, reply)
        reply = pass_file(it, "PUT", "/network-interfaces/1", {"iface_id": "1", "host_dev_name": "x"}, os.path.join(it.work, "disk"))
        tap.check("a file is no tap", b" 400 " in reply and b"Could not create the network device" in reply, reply)


def swaps(tap):
    """The guest tells of each disk and of each change of its size."""
    with machine("--id", "a", "--enable-pci", guest="guest_plug") as it:
        first, second, empty = disk_of(it.work, "first", 1000), disk_of(it.work, "second", 3000), disk_of(it.work, "empty", 0)
        it.configure()
        it.must("PUT", "/serial", {"serial_out_path": "serial"})
        it.must("PUT", "/metrics", {"metrics_path": "metrics"})
        it.must("PUT", "/drives/1", {"drive_id": "1", "is_root_device": False, "path_on_host": empty})
        it.must("PUT", "/drives/root", {"drive_id": "root", "is_root_device": True, "path_on_host": "DISK"})
        it.must("PUT", "/drives/1", {"drive_id": "1", "is_root_device": False, "path_on_host": first})
        status, reply = it.ask("PUT", "/drives/2", {"drive_id": "2", "is_root_device": True, "path_on_host": "DISK"})
        tap.check("there is one root drive", status == 400 and "A root block device already exists!" in reply["fault_message"], reply)
        it.must("PUT", "/drives/stub_1", {"drive_id": "stub_1", "is_root_device": False, "path_on_host": empty})
        tap.check("the root drive is the first", [drive["drive_id"] for drive in it.must("GET", "/vm/config")["drives"]] ==
                  ["root", "1", "stub_1"])
        it.start()
        until(lambda: re.search(r"\b8192\b", it.serial()) and re.search(r"\b1000\b", it.serial()), "the guest sees its disks")
        it.must("PATCH", "/drives/1", {"drive_id": "1", "path_on_host": second})
        until(lambda: re.search(r"\b3000\b", it.serial()), "the guest sees another disk")
        tap.check("the guest sees the image that a drive gets", True)
        tap.check("... and the one before is closed", second in opened(it) and first not in opened(it), opened(it))
        it.must("PATCH", "/drives/stub_1", {"drive_id": "stub_1", "path_on_host": first,
                                            "rate_limiter": {"bandwidth": {"size": 1 << 20, "refill_time": 100}}})
        until(lambda: len(re.findall(r"\b1000\b", it.serial())) >= 2, "the guest sees what was a stub")
        tap.check("... also one that was empty", True)
        drive = it.must("GET", "/vm/config")["drives"][2]
        tap.check("... which is told", drive["path_on_host"] == first and drive["rate_limiter"]["bandwidth"]["size"] == 1 << 20, drive)
        info = json.loads(subprocess.run([MVMM, "info", "--json", "a"], env=dict(os.environ, XDG_RUNTIME_DIR=it.work), check=True,
                                         capture_output=True, timeout=PATIENCE).stdout)
        limits = [device.get("bandwidth") for device in info["devices"] if device["id"] == "drive-stub_1"]
        tap.check("... and limited", limits == ["1M/100ms"], info)
        it.must("PATCH", "/vm", {"state": "Paused"})
        for _ in range(2):
            it.must("PUT", "/actions", {"action_type": "FlushMetrics"})
        it.must("PATCH", "/vm", {"state": "Resumed"})
        with open(os.path.join(it.work, "metrics"), encoding="ascii") as file:
            told = [json.loads(line) for line in file]
        tap.check("its writes are in the metrics", told[0]["block_root"]["write_count"] > 0 and
                  told[0]["block_root"]["write_bytes"] >= 512 and
                  told[0]["block"]["write_count"] >= told[0]["block_root"]["write_count"], told)
        tap.check("... once", told[1]["block_root"]["write_count"] == told[1]["block"]["write_bytes"] == 0, told)
        it.must("PATCH", "/drives/1", {"drive_id": "1", "path_on_host": disk_of(it.work, "sign", 2222)})
        code = it.process.wait(PATIENCE)
        tap.check("a guest that resets ends the process with 0", code == 0, code)


def plugs(tap):
    with machine("--enable-pci", guest="guest_plug") as it:
        it.configure()
        it.must("PUT", "/serial", {"serial_out_path": "serial"})
        it.must("PUT", "/drives/root", {"drive_id": "root", "is_root_device": True, "path_on_host": "DISK"})
        it.start()
        drive = {"drive_id": "b", "is_root_device": False, "path_on_host": disk_of(it.work, "b", 5000),
                 "rate_limiter": {"ops": {"size": 1000, "refill_time": 100}}}
        it.must("PUT", "/drives/b", drive)
        until(lambda: re.search(r"\b5000\b", it.serial()), "the guest sees a disk that comes")
        tap.check("a drive comes while the guest runs", [d["drive_id"] for d in it.must("GET", "/vm/config")["drives"]] == ["root", "b"])
        faults = []
        expect(it, "PUT", "/drives/b", drive, 400, "Device ID in use", faults)
        expect(it, "PUT", "/drives/c", {**drive, "drive_id": "c", "path_on_host": "nowhere"}, 400, "No such file", faults)
        expect(it, "PUT", "/drives/c", {**drive, "drive_id": "c", "is_root_device": True}, 400, "root", faults)
        expect(it, "DELETE", "/drives/c", None, 400, "Device not found", faults)
        expect(it, "DELETE", "/drives/root", None, 400, "Cannot unplug root device", faults)
        expect(it, "DELETE", "/network-interfaces/c", None, 400, "Device not found", faults)
        expect(it, "PUT", "/network-interfaces/c", {"iface_id": "c", "host_dev_name": "no-such-interface-name"}, 400,
               "Could not create the network device", faults)
        tap.all("what is wrong with devices that come and go", faults)
        it.must("PATCH", "/drives/b", {"drive_id": "b", "path_on_host": disk_of(it.work, "c", 6000)})
        it.must("DELETE", "/drives/b")
        tap.check("... and goes", [d["drive_id"] for d in it.must("GET", "/vm/config")["drives"]] == ["root"])
        it.must("PUT", "/drives/b", {**drive, "path_on_host": disk_of(it.work, "d", 7000)})
        until(lambda: re.search(r"\b7000\b", it.serial()), "the guest sees the next one")
        tap.check("... and another one has its id", len(it.must("GET", "/vm/config")["drives"]) == 2)


def host_devices(tap):
    """There is none here; the test host has some."""
    faults = []
    with machine("--enable-pci") as it:
        it.configure()
        device = {"id": "gpu", "sbdf": "00ff:01:02.3"}
        for sbdf in ("", "1", "0000:01:02", "0000:01:02.3x", "/sys/x"):
            expect(it, "PUT", "/device-passthrough/gpu", {**device, "sbdf": sbdf}, 400, "is no SBDF", faults)
        it.must("PUT", "/device-passthrough/gpu", {**device, "sbdf": "01:02.3"})
        expect(it, "PUT", "/device-passthrough/b", {"id": "b", "sbdf": "0000:01:02.3"}, 400, "Duplicate device passthrough SBDF", faults)
        it.must("PUT", "/device-passthrough/gpu", device)
        expect(it, "PUT", "/actions", {"action_type": "InstanceStart"}, 400, "00ff:01:02.3", faults)
        tap.check("a host device is told of", it.must("GET", "/vm/config")["device-passthrough"] == [device])
    with machine("--enable-pci") as it:
        it.configure()
        it.start()
        expect(it, "PUT", "/device-passthrough/gpu", device, 400, "Device passthrough error: ", faults)
        expect(it, "DELETE", "/device-passthrough/gpu", None, 400, "Device not found", faults)
    with machine() as it:
        expect(it, "PUT", "/device-passthrough/gpu", device, 400, "PCI is not enabled", faults)
    tap.all("what is wrong with host devices", faults)


def ends(tap):
    with machine(guest="guest_button") as it:
        it.configure()
        it.start()
        it.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
        tap.check("a guest that shuts down ends the process with 0", it.process.wait(PATIENCE) == 0, it.process.returncode)
        said = it.end()
        tap.check("... which says so", "pressed" in said and "Firecracker exiting successfully. exit_code=0" in said, said[-300:])
    with machine(guest="guest_keyboard") as it:
        it.configure()
        it.must("PUT", "/serial", {"serial_out_path": "serial"})
        it.start()
        until(lambda: "listens" in it.serial(), "the guest listens to its keyboard")
        it.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
        tap.check("Ctrl-Alt-Del reaches a keyboard, and a reset by its controller is the end", it.process.wait(PATIENCE) == 0 and
                  re.search("1411e071.*14", it.serial().lower()), it.serial())
    with machine(guest="guest_panic") as it:
        it.configure()
        it.start()
        tap.check("... one that panics, too", it.process.wait(PATIENCE) == 0, it.process.returncode)


def pauses(tap):
    with machine() as it:
        it.configure()
        it.start()
        states = []
        other = Connection(it.path)
        for _ in range(20):  # two clients at once
            for state in ("Paused", "Paused", "Resumed", "Resumed"):
                states.append(it.ask("PATCH", "/vm", {"state": state})[0])
                states.append(it.ask("GET", "/", client=other)[1]["state"] == {"Paused": "Paused", "Resumed": "Running"}[state])
        other.close()
        tap.check("it is paused and resumed, and another client sees it", set(states) == {204, True}, states)
        it.process.send_signal(signal.SIGTERM)
        tap.check("SIGTERM ends a machine as a signal", it.process.wait(PATIENCE) == -signal.SIGTERM, it.process.returncode)


def extras(tap):
    with machine("--id", "extra") as it:
        status, reply = it.ask("GET", "/events")
        tap.check("there are no events before the start", status == 400 and reply["fault_message"] == NOT_BEFORE, reply)
        it.configure()
        it.start()
        stream = Connection(it.path)
        stream.request("GET", "/events")
        events = stream.getresponse()
        first = json.loads(events.readline())
        it.must("PATCH", "/vm", {"state": "Paused"})
        second = json.loads(events.readline())
        tap.check("events are told as they come", first["event"] == "state" and second["event"] == "paused" and
                  second["name"] == "extra", (first, second))
        it.must("PATCH", "/vm", {"state": "Resumed"})
        stream.close()
        it.client.request("GET", "/metrics")
        reply = it.client.getresponse()
        text = reply.read().decode()
        tap.check("metrics are Prometheus' text", reply.getheader("Content-Type").startswith("text/plain") and
                  re.search(r'^mvmm_vcpus{machine="extra"} 1$', text, re.M), text[:300])
        last = Connection(it.path)
        last.request("GET", "/events")
        events = last.getresponse()
        events.readline()
        it.process.send_signal(signal.SIGTERM)
        rest = events.read().decode()
        tap.check("... the last one is the end", json.loads(rest.splitlines()[-1])["event"] == "ended", rest)


def asked_at_a_start(tap):
    """Both requests are there when the process looks."""
    with machine() as it:
        it.configure()
        other = Connection(it.path)
        it.ask("GET", "/", client=other)
        it.process.send_signal(signal.SIGSTOP)
        it.client.request("PUT", "/actions", json.dumps({"action_type": "InstanceStart"}))
        other.request("GET", "/")
        it.process.send_signal(signal.SIGCONT)
        started, told = it.client.getresponse(), other.getresponse()
        text = started.read() + told.read()
        tap.check("a question at the time of a start is answered", (started.status, told.status) == (204, 200), text)
        other.close()


def failed_start(tap):
    with machine() as it:
        it.configure()
        broken = os.path.join(it.work, "kernel")
        with open(broken, "wb") as file:
            file.write(b"\x7fELF" + b"x" * 100)
        it.must("PUT", "/boot-source", {"kernel_image_path": broken})
        status, reply = it.ask("PUT", "/actions", {"action_type": "InstanceStart"})
        tap.check("a start that fails is told", status == 400 and reply["fault_message"].startswith("Start microvm error: "), reply)
        tap.check("... and the machine is as before", it.must("GET", "/")["state"] == "Not started")
        it.must("PUT", "/boot-source", {"kernel_image_path": "GUEST"})
        it.start()
        tap.check("... and starts with another kernel", it.must("GET", "/")["state"] == "Running")


def handler_loads(tap, work, load):
    backend = {"mem_backend": {"backend_type": "Uffd", "backend_path": "uffd"}, "resume_vm": True}
    it = Machine(work).ready()
    status, reply = load(it, **backend)
    tap.check("without a handler it is not loaded", status == 400 and "uffd" in reply["fault_message"] and
              it.process.wait(PATIENCE) == 1, reply)
    it.end()
    with subprocess.Popen([HANDLER, "uffd", "memory"], cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as handler:
        until(lambda: os.path.exists(os.path.join(work, "uffd")), "the handler listens")
        it = Machine(work).ready()
        it.must("PUT", "/serial", {"serial_out_path": "serial-uffd"})
        status, reply = load(it, **backend)
        it.must("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": disk_of(work, "served", 9000)})
        until(lambda: re.search(r"\b9000\b", it.serial("serial-uffd")), "the guest goes on")
        tap.check("a handler serves its memory", status == 204, reply)
        it.end()
        handler.terminate()


def snapshots(tap):
    with folder() as work:
        def load(it, **more):
            return it.ask("PUT", "/snapshot/load", {"snapshot_path": "state", "mem_backend": {"backend_type": "File", "backend_path": "memory"},
                                                    **more})

        it = Machine(work, "--id", "same", "--enable-pci", guest="guest_plug").ready()
        it.configure()
        it.must("PUT", "/serial", {"serial_out_path": "serial"})
        it.must("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "DISK"})
        it.must("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True})
        it.start()
        faults = []
        create = {"snapshot_path": "state", "mem_file_path": "memory"}
        expect(it, "PUT", "/snapshot/create", create, 400, "save/restore unavailable while running", faults)
        it.must("PATCH", "/vm", {"state": "Paused"})
        expect(it, "PUT", "/snapshot/create", {**create, "snapshot_type": "Diff"}, 400, "mvmm has no Diff snapshots", faults)
        expect(it, "PUT", "/snapshot/create", {**create, "mem_file_path": "nowhere/memory"}, 400, "No such file or directory", faults)
        expect(it, "PUT", "/snapshot/load", {"snapshot_path": "state", "mem_file_path": "memory"}, 400, NOT_AFTER, faults)
        for _ in range(2):  # the second one takes the place of the first
            it.must("PUT", "/snapshot/create", {**create, "snapshot_type": "Full"})
        tap.check("a snapshot leaves its machine paused", it.must("GET", "/")["state"] == "Paused")
        tap.check("... its memory is a file of RAM", os.path.getsize(os.path.join(work, "memory")) == 64 << 20)
        other = Machine(work, "--id", "same", socket_name="other.sock", guest="guest_plug").ready()
        for more, text in [({"mem_file_path": "memory"}, "too many fields"), ({"huge_pages": "2M"}, "mvmm has the huge pages of the snapshot"),
                           ({"mem_backend": None}, "missing field: either `mem_backend` or `mem_file_path`"),
                           ({"mem_backend": {"backend_type": "foo", "backend_path": "x"}}, "unknown variant `foo`, expected `File` or `Uffd`"),
                           ({"network_overrides": [{"iface_id": "a"}]}, "missing field `host_dev_name`")]:
            status, reply = load(other, **more)
            if status != 400 or text not in reply["fault_message"]:
                faults.append(f"{more}: {reply}")
        tap.all("what is wrong with snapshots", faults)
        other.must("PUT", "/serial", {"serial_out_path": "serial-other"})
        status, reply = load(other)
        tap.check("it is loaded while the first one is there", status == 204 and other.must("GET", "/")["state"] == "Paused", reply)
        tap.check("... with its size", other.must("GET", "/machine-config")["mem_size_mib"] == 64)
        other.must("PATCH", "/vm", {"state": "Resumed"})
        other.must("PATCH", "/balloon", {"amount_mib": 1})
        size = disk_of(work, "larger", 12000)
        other.must("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": size})
        until(lambda: re.search(r"\b12000\b", other.serial("serial-other")), "the guest goes on and sees its new disk")
        tap.check("... goes on, and its drive gets another image", True)
        other.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
        tap.check("... to its end", other.process.wait(PATIENCE) == 0, other.process.returncode)
        it.end()
        it = Machine(work, "--id", "same").ready()
        status, reply = load(it, resume_vm=True)
        tap.check("it is loaded and resumed", status == 204 and it.must("GET", "/")["state"] == "Running", reply)
        it.end()
        handler_loads(tap, work, load)
        it = Machine(work).ready()
        it.configure()
        status, reply = load(it)
        tap.check("it is not loaded over a configuration", status == 400 and "not allowed after configuring" in reply["fault_message"] and
                  it.must("GET", "/")["state"] == "Not started", reply)
        it.end()
        it = Machine(work).ready()
        os.truncate(os.path.join(work, "memory"), 4096)
        status, reply = load(it)
        tap.check("one that is damaged is told", status == 400 and "Failed to restore from snapshot" in reply["fault_message"], reply)
        tap.check("... and ends the process with 1", it.process.wait(PATIENCE) == 1, it.process.returncode)
        it.end()


def config_files(tap):
    with folder() as work:
        config = {
            "boot-source": {"kernel_image_path": f"{GUESTS}/guest_idle", "boot_args": "pci=off console=ttyS0"},
            "drives": [{"drive_id": "a", "is_root_device": True, "path_on_host": os.path.join(work, "disk"), "is_read_only": True}],
            "machine-config": {"vcpu_count": 2, "mem_size_mib": 64}, "vsock": None, "pmem": [], "frob": 1,
        }
        with open(os.path.join(work, "config"), "w", encoding="ascii") as file:
            json.dump(config, file)
        it = Machine(work, "--config-file", "config").ready()
        until(lambda: it.ask("GET", "/")[1]["state"] == "Running", "it runs")
        drives = it.must("GET", "/vm/config")["drives"]
        tap.check("a configuration file starts a machine", len(drives) == 1 and drives[0]["is_read_only"] is True, drives)
        it.end()
        faults = []
        for change, text in [({"drives": None}, "missing field `drives`"), ({"pmem": [{}]}, "mvmm has no pmem"),
                             ({"machine-config": {"vcpu_count": 0, "mem_size_mib": 1}}, "The number of vCPUs"),
                             ({"boot-source": {"kernel": 1}}, "unknown field `kernel`"),
                             ({"boot-source": {"kernel_image_path": os.path.join(work, "disk")}}, "Start microvm error")]:
            with open(os.path.join(work, "bad"), "w", encoding="ascii") as file:
                json.dump({**config, **change}, file)
            done = subprocess.run([os.path.join(work, "firecracker"), "--no-api", "--config-file", "bad"], cwd=work, text=True,
                                  capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)
            if done.returncode != 1 or text not in done.stdout + done.stderr:
                faults.append(f"{change}: {done}")
        tap.all("a bad one ends with 1", faults)
        config["boot-source"]["kernel_image_path"] = f"{GUESTS}/guest_reboot"
        with open(os.path.join(work, "config"), "w", encoding="ascii") as file:
            json.dump(config, file)
        done = subprocess.run([os.path.join(work, "firecracker"), "--no-api", "--config-file", "config"], cwd=work, text=True,
                              capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)
        tap.check("one without an API runs to its end", done.returncode == 0 and "up" in done.stdout and
                  "API server started" not in done.stdout, done)


def killed(tap):
    """After each request of a life, and while it is served; the next process has the same id and files."""
    steps = [("PUT", "/logger", {"log_path": "log"}), ("PUT", "/metrics", {"metrics_path": "metrics"}),
             ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}), ("PUT", "/boot-source", {"kernel_image_path": "GUEST"}),
             ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": True, "path_on_host": "DISK"}),
             ("PUT", "/actions", {"action_type": "InstanceStart"}), ("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": "DISK"}),
             ("PATCH", "/vm", {"state": "Paused"}), ("PUT", "/actions", {"action_type": "FlushMetrics"})]
    with folder() as work:
        for last in range(len(steps)):
            it = Machine(work, "--id", "same").ready()
            for step in steps[:last]:
                it.must(*step)
            body = json.dumps(it.fill(steps[last][2]))
            it.client.request(*steps[last][:2], body)
            it.process.kill()
            it.process.wait()
            it.end()
        it = Machine(work, "--id", "same").ready()
        for step in steps:
            it.must(*step)
        tap.check("it is killed at each request, and starts again", it.must("GET", "/")["state"] == "Paused")
        it.end()
    with machine() as it:  # a client that goes before each of its replies
        for step in steps:
            client = Connection(it.path)
            client.request(step[0], step[1], json.dumps(it.fill(step[2])))
            client.close()
            until(lambda: it.ask("GET", "/version")[0] == 200, "it serves others")
        tap.check("clients that go before their replies harm nobody", it.must("GET", "/version"))


def taps(tap):
    names = [f"api{PIDS % 100000}{letter}" for letter in "ab"]
    if any(subprocess.run(["ip", "tuntap", "add", name, "mode", "tap", "vnet_hdr"], check=False, capture_output=True).returncode
           for name in names):
        tap.check("no tap can be made here # SKIP", True)
        return
    try:
        with folder() as work:
            with_taps(tap, work, *names)
    finally:
        for name in names:
            subprocess.run(["ip", "link", "del", name], check=False)


def with_taps(tap, work, name, second):
    it = Machine(work).ready()
    it.configure()
    net = {"iface_id": "1", "host_dev_name": name, "guest_mac": "06:00:AC:10:00:02"}
    it.must("PUT", "/network-interfaces/1", net)
    it.must("PUT", "/network-interfaces/1", {**net, "rx_rate_limiter": {}})
    status, reply = it.ask("PUT", "/network-interfaces/2", {**net, "iface_id": "2"})
    tap.check("a MAC address is used once", status == 400 and "The MAC address is already in use" in reply["fault_message"], reply)
    status, reply = it.ask("PUT", "/network-interfaces/2", {"iface_id": "2", "host_dev_name": name})
    tap.check("... and a tap, too", status == 400 and "Could not create the network device" in reply["fault_message"], reply)
    it.must("PUT", "/drives/1", {"drive_id": "1", "is_root_device": False, "path_on_host": "DISK"})
    it.must("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v.sock"})
    it.start()
    it.must("PATCH", "/network-interfaces/1", {"iface_id": "1", "tx_rate_limiter": {"ops": {"size": 5, "refill_time": 100}}})
    nets = it.must("GET", "/vm/config")["network-interfaces"]
    tap.check("a drive and an interface may have the same id", len(nets) == 1)
    tap.check("... whose limits are told", nets[0]["tx_rate_limiter"]["ops"] == {"size": 5, "one_time_burst": None, "refill_time": 100} and
              nets[0]["rx_rate_limiter"] == {"bandwidth": None, "ops": None}, nets)
    it.must("PATCH", "/vm", {"state": "Paused"})
    it.must("PUT", "/snapshot/create", {"snapshot_path": "state", "mem_file_path": "memory"})
    other = Machine(work, socket_name="other.sock").ready()
    other.must("PUT", "/snapshot/load", {
        "snapshot_path": "state", "mem_backend": {"backend_type": "File", "backend_path": "memory"}, "resume_vm": True,
        "network_overrides": [{"iface_id": "1", "host_dev_name": second}], "vsock_override": {"uds_path": "other.v"}})
    other.must("PATCH", "/network-interfaces/1", {"iface_id": "1", "rx_rate_limiter": {"ops": {"size": 5, "refill_time": 100}}})
    tap.check("one that is loaded has another tap and socket", other.must("GET", "/")["state"] == "Running" and
              os.path.exists(os.path.join(work, "other.v")))
    other.end()
    it.end()
    it = Machine(work, "--enable-pci").ready()
    it.configure()
    it.must("PUT", "/network-interfaces/0", {**net, "iface_id": "0"})
    it.start()
    for last, this in zip("012", "123"):
        it.must("DELETE", f"/network-interfaces/{last}")
        it.must("PUT", f"/network-interfaces/{this}", {**net, "iface_id": this})
    tap.check("an interface comes and goes", [n["iface_id"] for n in it.must("GET", "/vm/config")["network-interfaces"]] == ["3"])
    it.end()


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("1..0 # SKIP /dev/kvm is missing or may not be used")
        return 0
    tap = Tap()
    for part in (lines, tables, missed_lines, tell_log, transport, deprecated, passed, swaps, plugs, host_devices, ends, pauses, extras, asked_at_a_start, failed_start, snapshots, config_files, killed, taps):
        try:
            part(tap)
        except (AssertionError, OSError, http.client.HTTPException) as fault:
            tap.check(f"{part.__name__} goes through", False, repr(fault))
        for left in Machine.begun[:]:
            left.end()
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


sys.exit(main())
