#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# systemd starts machines by the units of docs/examples, as they are: it is the first process of a PID namespace, with a /run and a
# control group namespace of its own, and has no other units than the targets that services need.
# host: --memory 2G
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

units=$work/units guests=$tree/build-release/tests/guests

# -- what a host has: a user, the program, a configuration for each machine

getent group kvm >/dev/null || groupadd --system kvm
getent passwd mvmm >/dev/null || useradd --system --no-create-home --groups kvm mvmm
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
install -D "$mvmm" /usr/local/bin/mvmm
install -d -o mvmm /var/lib/mvmm
mkdir -p /etc/mvmm
# machine NAME GUEST
machine()
{
	cp "$guests/guest_$2" "/var/lib/mvmm/$1"
	printf '{"kernel": "/var/lib/mvmm/%s", "memory": "32M"}' "$1" >"/etc/mvmm/$1.json"
}
machine web button
machine lazy button
machine held button
machine short hello
machine wrong hello
rm /var/lib/mvmm/wrong
install -d -o mvmm /var/lib/mvmm/jail
echo 'MVMM_OPTIONS=--jail /var/lib/mvmm/jail' >/etc/mvmm/held.options

mkdir -p "$units/mvmm@.service.d"
for unit in sysinit basic sockets timers paths slices shutdown umount final; do
	cp "/lib/systemd/system/$unit.target" "$units/"
done
printf '[Unit]\nDescription=nothing by itself\n' >"$units/default.target"
cp "$tree"/docs/examples/mvmm* "$units/"
# There is no journal, and a machine that does not live is found out soon.
cat >"$units/mvmm@.service.d/test.conf" <<'END'
[Service]
StandardOutput=append:/run/mvmm-%i.log
StandardError=append:/run/mvmm-%i.log
WatchdogSec=6
RestartSec=1
END

# -- systemd

cat >"$work/first" <<END
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /run/units
cp -r $units/. /run/units
container=mvmm SYSTEMD_UNIT_PATH=/run/units exec /lib/systemd/systemd --system --log-target=console --show-status=0
END
unshare --fork --pid --mount --cgroup --ipc --uts --kill-child bash "$work/first" >"$work/systemd.log" 2>&1 &
starter=$!
manager() { pid=$(pgrep -x systemd -P "$starter"); }
until_true 30 manager
inside() { nsenter -t "$pid" -a "$@"; }
ctl() { timeout $((60 * patience)) nsenter -t "$pid" -a systemctl "$@" 2>>"$work/ctl.log"; }
shown() { ctl show "$1" -p "$2" --value; }
is_up() { ctl is-system-running --quiet; }
until_true 60 is_up
is 'systemd is up' "$(ctl is-system-running)" running
logged() { inside grep -q "$2" "/run/mvmm-$1.log"; }

# -- a machine

ctl start mvmm@web
is 'a machine starts' "$?" 0
is '... and is active when its guest runs' "$(ctl is-active mvmm@web) $(shown mvmm@web StatusText)" 'active running'
until_true 20 logged web waiting
is '... which has its say' "$?" 0
main=$(shown mvmm@web MainPID)
inside cat "/proc/$main/status" >"$work/status"
has 'it is the user that the unit names' "$work/status" "^Uid:[[:space:]]$(id -u mvmm)[[:space:]]"
has '... without capabilities' "$work/status" '^CapBnd:[[:space:]]0000000000000000'
has '... which it cannot get' "$work/status" '^NoNewPrivs:[[:space:]]1'
is 'it is in the slice of all machines' "$(shown mvmm@web ControlGroup)" '/mvmm.slice/mvmm@web.service'
is '... which is limited' "$(shown mvmm.slice TasksMax)" 16384
listed() { inside setpriv --reuid=mvmm --regid=mvmm --clear-groups mvmm ps | grep -c "^$1 "; }
is 'ps lists it' "$(listed web)" 1
inside mvmm pause web
is 'its status tells that it is paused' "$(shown mvmm@web StatusText)" paused
sleep 14
is 'it lives for the watchdog while it is paused' "$(ctl is-active mvmm@web) $(shown mvmm@web NRestarts)" 'active 0'
inside mvmm resume web
is '... and that it runs' "$(shown mvmm@web StatusText)" running

ctl kill -s STOP --kill-whom=main mvmm@web
restarted() { [ "$(shown mvmm@web NRestarts)" = 1 ] && [ "$(ctl is-active mvmm@web)" = active ]; }
until_true 60 restarted
is 'one whose event loop stands still is ended and started again' "$?" 0
is '... as another process' "$([ "$(shown mvmm@web MainPID)" != "$main" ] && echo yes)" yes

ctl stop mvmm@web
is 'its end is orderly' "$(ctl is-active mvmm@web) $(shown mvmm@web Result)" 'inactive success'
logged web pressed
is '... by its power button' "$?" 0
is '... and leaves nothing in the runtime folder' "$(inside find /run/mvmm -mindepth 1 | wc -l)" 0

# -- sockets, and other ends

ctl start mvmm@lazy.socket
is 'a socket waits without a machine' "$(ctl is-active mvmm@lazy.socket) $(ctl is-active mvmm@lazy)" 'active inactive'
inside timeout $((60 * patience)) python3 -c '
import socket
client = socket.socket(socket.AF_UNIX)
client.connect("/run/mvmm-lazy.sock")
client.sendall(b"{\"method\": \"io.mvmm.Machine.Info\"}\0")
print(client.recv(65536)[:-1].decode())' >"$work/info"
has 'the first request starts it, and it answers' "$work/info" '"name": ?"lazy"'
is '... as a machine like others' "$(ctl is-active mvmm@lazy) $(listed lazy)" 'active 1'
ctl stop mvmm@lazy.socket mvmm@lazy

ctl start mvmm@held
is 'a jailed machine is ready, too' "$(ctl is-active mvmm@held) $(shown mvmm@held StatusText)" 'active running'
inside cat /run/mvmm-held.log | sed 's/^/    /'
held=$(shown mvmm@held MainPID)
held=$(inside pgrep -P "$held")
inside cat "/proc/$held/status" >"$work/status"
has '... and has no rights' "$work/status" '^CapEff:[[:space:]]0000000000000000'
is '... and sees nothing but its folder' "$(inside ls "/proc/$held/root/etc" 2>&1 | grep -c 'No such file')" 1
sleep 14
is '... and lives for the watchdog' "$(ctl is-active mvmm@held) $(shown mvmm@held NRestarts)" 'active 0'
ctl stop mvmm@held
is '... and ends in order, and leaves nothing' "$(shown mvmm@held Result) $(inside find /run/mvmm /var/lib/mvmm/jail -mindepth 1 | wc -l)" \
	'success 0'

ctl start mvmm@short
ended() { [ "$(ctl is-active mvmm@short)" = inactive ]; }
until_true 30 ended
is 'a guest that powers off ends its service' "$(shown mvmm@short Result) $(shown mvmm@short NRestarts)" 'success 0'

ctl start mvmm@wrong
is 'a machine that cannot start fails' "$(ctl is-active mvmm@wrong) $(shown mvmm@wrong ExecMainStatus)" 'failed 2'
sleep 3
is '... and is not tried again' "$(shown mvmm@wrong NRestarts)" 0
inside cat /run/mvmm-wrong.log >"$work/wrong.log"
is '... with one line about it' "$(wc -l <"$work/wrong.log") $(grep -c '^mvmm: .*/var/lib/mvmm/wrong' "$work/wrong.log")" '1 1'

has 'systemd understands each line of the units' <(grep -c 'Unknown key\|Failed to parse\|Unknown lvalue' "$work/systemd.log") '^0$'
sed 's/^/    /' "$work/systemd.log" "$work/ctl.log" | tail -n 40
