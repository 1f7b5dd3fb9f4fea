"""The driver's side of a vhost-user block device: one queue, one request at a time, and a new connection when the daemon is back.

A request that the daemon had when it went is done again by the next one, for the ring says that it is not done (QEMU does the same).
"""

import mmap
import os
import select
import socket
import struct
import time

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 12, 13
GET_PROTOCOL, SET_PROTOCOL, SET_VRING_ENABLE = 15, 16, 18
VERSION, NEED_REPLY = 1, 8
# VIRTIO_F_VERSION_1, protocol features, flush.
FEATURES = 1 << 32 | 1 << 30 | 1 << 9
# Several queues (the device insists), replies, configuration.
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 9
READ, WRITE, FLUSH = 0, 1, 4
DESC_NEXT, DESC_WRITE = 1, 2

RING = 64
MEMORY = 1 << 20
DESCRIPTORS, AVAILABLE, USED, HEADER, STATUS, DATA = 0, 0x4000, 0x6000, 0x8000, 0x9000, 0x10000
MOST = 128 << 10
BASE = 0x7F0000000000
ANSWER_S = 10


class Gone(Exception):
    """The daemon has closed the connection, or there is none."""


class Device:
    def __init__(self, path):
        self.path = str(path)
        self.memory_fd = os.memfd_create("walk-guest")
        os.ftruncate(self.memory_fd, MEMORY)
        self.memory = mmap.mmap(self.memory_fd, MEMORY)
        self.kick, self.call = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
        self.sent = 0
        self.socket = None

    def close(self):
        if self.memory.closed:
            return
        if self.socket:
            self.socket.close()
        self.memory.close()
        for fd in (self.memory_fd, self.kick, self.call):
            os.close(fd)

    def connect(self):
        """Once; raises Gone if nobody answers."""
        if self.socket:
            self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(ANSWER_S)
        try:
            self.socket.connect(self.path)
            self.set_up()
        except (OSError, struct.error) as e:
            raise Gone(str(e)) from e

    def set_up(self):
        offered = self.ask(GET_FEATURES)
        self.send(SET_OWNER)
        self.ask(GET_PROTOCOL)
        self.send(SET_PROTOCOL, struct.pack("<Q", PROTOCOL))
        self.change(SET_FEATURES, struct.pack("<Q", offered & FEATURES))
        self.change(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, MEMORY, BASE, 0), [self.memory_fd])
        self.change(SET_VRING_NUM, struct.pack("<II", 0, RING))
        self.change(SET_VRING_BASE, struct.pack("<II", 0, self.done()))
        self.change(SET_VRING_ADDR, struct.pack("<IIQQQQ", 0, 0, BASE + DESCRIPTORS, BASE + USED, BASE + AVAILABLE, 0))
        self.change(SET_VRING_CALL, struct.pack("<Q", 0), [self.call])
        self.change(SET_VRING_KICK, struct.pack("<Q", 0), [self.kick])
        self.change(SET_VRING_ENABLE, struct.pack("<II", 0, 1))
        if self.done() != self.sent:
            os.eventfd_write(self.kick, 1)

    def send(self, request, body=b"", fds=(), flags=VERSION):
        socket.send_fds(self.socket, [struct.pack("<III", request, flags, len(body)) + body], list(fds))

    def answer(self):
        size = struct.unpack("<III", self.receive(12))[2]
        return struct.unpack("<Q", self.receive(size))[0]

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise Gone("the daemon closed the connection")
            data += more
        return data

    def ask(self, request):
        self.send(request)
        return self.answer()

    def change(self, request, body, fds=()):
        self.send(request, body, fds, VERSION | NEED_REPLY)
        if self.answer() != 0:
            raise Gone(f"the daemon refused request {request}")

    def done(self):
        return struct.unpack_from("<H", self.memory, USED + 2)[0]

    def submit(self, kind, offset, data=b"", length=0):
        struct.pack_into("<IIQ", self.memory, HEADER, kind, 0, offset // 512)
        self.memory[STATUS] = 0xEE
        chain = [(HEADER, 16, 0)]
        if data:
            self.memory[DATA:DATA + len(data)] = data
            chain.append((DATA, len(data), 0))
        elif length:
            chain.append((DATA, length, DESC_WRITE))
        chain.append((STATUS, 1, DESC_WRITE))
        for i, (at, size, flags) in enumerate(chain):
            more = DESC_NEXT if i + 1 < len(chain) else 0
            struct.pack_into("<QIHH", self.memory, DESCRIPTORS + 16 * i, at, size, flags | more, i + 1 if more else 0)
        struct.pack_into("<H", self.memory, AVAILABLE + 4 + 2 * (self.sent % RING), 0)
        self.sent = (self.sent + 1) & 0xFFFF
        struct.pack_into("<H", self.memory, AVAILABLE + 2, self.sent)
        os.eventfd_write(self.kick, 1)

    def wait(self, seconds):
        """Whether the request is done within this time; raises Gone if the daemon goes."""
        end = time.monotonic() + seconds
        while self.done() != self.sent:
            left = end - time.monotonic()
            if left <= 0:
                return False
            ready, _, _ = select.select([self.call, self.socket], [], [], min(left, 0.2))
            if self.call in ready:
                os.eventfd_read(self.call)
            if self.socket in ready and self.done() != self.sent:
                try:
                    self.receive(1)
                except OSError as e:
                    raise Gone(str(e)) from e
        return True

    def result(self, length=0):
        """Status, and what was read."""
        return self.memory[STATUS], bytes(self.memory[DATA:DATA + length])


def transfer(device, kind, offset, data=b"", length=0, seconds=30):
    """One request on a connected device that must succeed in this time."""
    device.submit(kind, offset, data, length)
    if not device.wait(seconds):
        raise RuntimeError(f"a request at {offset} has not been answered for {seconds} s")
    status, read = device.result(length)
    if status != 0:
        raise RuntimeError(f"a request at {offset} was answered with status {status}")
    return read
