# Guest 2: checks the file system and the checksum of every file that guest 1 was promised.
# /sums comes from the host, so that a volume that went back in time as a whole is found out, too.

. /common.sh

e2fsck -fn /dev/vda >/tmp/fsck 2>&1 || {
    sed 's/^/@fsck /' /tmp/fsck | tail -n 20
    fail "e2fsck found the file system damaged"
}
mount_volume
sha256sum -c /sums >/tmp/checked 2>&1
grep -v ': OK$' /tmp/checked | sed 's/^/@wrong /'
good=$(grep -c ': OK$' /tmp/checked)
umount /mnt || fail "cannot unmount the volume"
kernel_errors || fail "the kernel reported errors"
echo "@done promised=$(wc -l </sums) good=$good"
[ "$good" = "$(wc -l </sums)" ]
