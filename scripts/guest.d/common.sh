# Shared by the guest scripts of the demo. The guest talks to the host in lines that start with @.

# Sets NOW to the guest's up-time in milliseconds, without starting a process.
now() {
    read -r up _ </proc/uptime
    # The fraction has two digits; the 1 before it keeps 08 from being read as octal.
    NOW=$((${up%.*} * 1000 + (1${up#*.} - 100) * 10))
}

fail() {
    echo "@failed $*"
    kernel_errors
    exit 1
}

# Prints what the kernel has to say against the disk or the file system; fails if there is anything.
kernel_errors() {
    dmesg | grep -E 'I/O error|blk_update_request|EXT4-fs error|EXT4-fs .*(aborted|read-only)|JBD2: .*rror|is not a head' |
        sed 's/^/@kernel /' | head -n 20 | tee /tmp/kernel-errors
    [ ! -s /tmp/kernel-errors ]
}

mount_volume() {
    mkdir -p /mnt
    mount -t ext4 /dev/vda /mnt || fail "cannot mount the volume"
}

# /tmp is for what must not touch the volume.
mount -t tmpfs tmp /tmp
