#!/usr/bin/env bash
# In a mount name space of its own: makes ROOT the root directory, with a /dev, /proc and /run of its
# own, and goes on there. With a folder `upper` beside ROOT it is this system's root, and what changes
# goes to that folder. Usage: mounts.sh ROOT chroot COMMAND… | mounts.sh ROOT boot
set -euo pipefail
root=$1 how=$2
shift 2
mount --make-rprivate /
work=$(dirname "$root")
if [ -d "$work/upper" ]; then
  mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/overlay" "$root"
else
  mount --bind "$root" "$root"
fi
cd "$root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
# Nodes of its own: what happens to them does not happen to this system's.
while read -r device number; do
  # shellcheck disable=SC2086  # two numbers
  mknod -m 666 "dev/$device" c $number
done <<NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
ln -s /proc/self/fd dev/fd
for number in 0 1 2; do
  ln -s "/proc/self/fd/$number" "dev/$(printf 'stdin stdout stderr' | cut -d' ' -f$((number + 1)))"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
ip link set lo up  # where the network is its own, it is the only interface
if [ "$how" = chroot ]; then
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 chroot . "$@"
fi
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
pivot_root . mnt
umount -l /mnt
exec env -i container=chimera PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --log-target=console --show-status=false
