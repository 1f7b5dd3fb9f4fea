"""A folder on a file system of its own that can be made to fail for good: from then on every access is an I/O error.

It is ext4 in a file on a loop device; a disk in it fails when the file system is shut down (as `xfs_io -c shutdown` does), which needs
no module and no work of this script while it runs.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from network import run

# _IOR('X', 125, u32), and its mode that flushes nothing.
EXT4_IOC_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
NO_FLUSH = 2


class WeakFolder:
    def __init__(self, path, size):
        self.path = Path(path)
        image = self.path.with_suffix(".img")
        with open(image, "wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(image))
        self.path.mkdir()
        run("mount", "-o", "loop", str(image), str(self.path))

    def fail(self):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(fd)


def unmount_all(folder):
    """Whatever is mounted below a folder; daemons may still have it open. The loop devices go with it."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        path = line.split()[1]
        if path.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", path], capture_output=True, timeout=20, check=False)
