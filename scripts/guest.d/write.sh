# Guest 1: makes a file system on the volume and writes files with fsync until the host says stop.
#
# Every round writes one file of 1 MiB and then 4 KiB of another with O_DIRECT, each followed by fsync, and
# remembers the checksum of a file only once its fsync has come back: those are the promises that the
# second guest checks. After MAX_WRITES files only the small writes go on, so that the volume's use is
# bounded however long the host takes. Files are overwritten in place once FILES of them are there.

. /common.sh

longest=0 longest_small=0 writes=0 small=0

# timed WHAT COMMAND...: runs COMMAND, reports it if it took long, leaves the time in TOOK.
timed() {
    what=$1
    shift
    now && begun=$NOW
    "$@" 2>/tmp/error || fail "$what: $(tail -n 1 /tmp/error)"
    now && TOOK=$((NOW - begun))
    [ "$TOOK" -lt "$SLOW_MS" ] || echo "@slow $TOOK ms: $what"
}

write_file() {
    number=$((writes % FILES))
    dd if=/dev/urandom of=/tmp/content bs=64k count=16 2>/dev/null
    sum=$(sha256sum </tmp/content)
    timed "file $number" dd if=/tmp/content of=/mnt/data/$number bs=1M conv=notrunc,fsync
    [ "$TOOK" -le "$longest" ] || longest=$TOOK
    echo "${sum%% *}  /mnt/data/$number" >/tmp/sums/$number
    writes=$((writes + 1))
}

write_small() {
    dd if=/dev/urandom of=/tmp/content bs=4k count=1 2>/dev/null
    sum=$(sha256sum </tmp/content)
    timed "small write $small" dd if=/tmp/content of=/mnt/data/small bs=4k count=1 oflag=direct conv=notrunc,fsync
    [ "$TOOK" -le "$longest_small" ] || longest_small=$TOOK
    echo "${sum%% *}  /mnt/data/small" >/tmp/sums/small
    small=$((small + 1))
}

mkfs.ext4 -q -F /dev/vda || fail "mkfs.ext4"
mount_volume
mkdir /mnt/data /tmp/sums
# Whatever the host sends on the console means stop.
(read -r _ </dev/console && : >/tmp/stop) &
echo "@started"

now && deadline=$((NOW + LIMIT_S * 1000))
while [ ! -e /tmp/stop ]; do
    [ "$writes" -ge "$MAX_WRITES" ] || write_file
    write_small
    echo "@wrote $writes $small"
    now && [ "$NOW" -lt "$deadline" ] || fail "the host did not say stop within $LIMIT_S s"
    # Leaves the host some time, and spreads the bounded number of files over the kills.
    sleep 0.05
done

umount /mnt || fail "cannot unmount the volume"
sync
cat /tmp/sums/* | sed 's/^/@sum /'
kernel_errors || fail "the kernel reported errors"
echo "@done files=$(ls /tmp/sums | wc -l) file_writes=$writes small_writes=$small longest_ms=$longest longest_small_ms=$longest_small"
