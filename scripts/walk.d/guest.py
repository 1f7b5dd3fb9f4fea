"""A guest that stays: it writes and reads back, one request at a time, and knows how long each of them took.

Also volumes that are filled once, to be moved about, and read back at the end.
"""

import random
import struct
import threading
import time

import vhost

CHUNK = 64 << 20
BLOCK = 4096
# Blocks of each chunk that the guest uses.
SLOTS = 64
PAUSE_S = 0.004
# A request of this age waits.
WAITS_S = 1.0


def block_of(offset, generation):
    return struct.pack("<QQ", offset, generation) * (BLOCK // 16) if generation else bytes(BLOCK)


class Guest(threading.Thread):
    def __init__(self, socket, size, seed=1):
        super().__init__(name="guest", daemon=True)
        self.device = vhost.Device(socket)
        self.chunks = size // CHUNK
        self.random = random.Random(seed)
        self.generations = {}
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.begun = None
        self.longest = self.done = self.reconnects = 0
        self.last_done = time.monotonic()
        self.errors = []

    def run(self):
        try:
            self.connect()
            turn = 0
            while not self.stopping.is_set():
                self.one(turn)
                turn += 1
                time.sleep(PAUSE_S)
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(f"the guest has ended: {e!r}")

    def connect(self):
        """Until the daemon is there."""
        while not self.stopping.is_set():
            try:
                return self.device.connect()
            except vhost.Gone:
                time.sleep(0.05)
        return None

    def one(self, turn):
        """One request: a write with half of them. Chunks have their turns, so that one that waits is soon met."""
        offset = turn % self.chunks * CHUNK + self.random.randrange(SLOTS) * BLOCK
        generation = self.generations.get(offset, 0)
        writes = self.random.random() < 0.5
        if writes:
            status, _ = self.request(vhost.WRITE, offset, data=block_of(offset, generation + 1))
            self.generations[offset] = generation + 1
        else:
            status, data = self.request(vhost.READ, offset, length=BLOCK)
            if status == 0 and data != block_of(offset, generation):
                self.errors.append(f"at {offset} is not what was written there last (generation {generation})")
        if status not in (0, None):
            self.errors.append(f"a {'write' if writes else 'read'} at {offset} ended with status {status}")

    def request(self, kind, offset, data=b"", length=0):
        with self.lock:
            self.begun = time.monotonic()
        self.device.submit(kind, offset, data, length)
        while not self.stopping.is_set():
            try:
                if self.device.wait(0.2):
                    break
            except vhost.Gone:
                self.reconnects += 1
                self.connect()
        else:
            return None, b""
        with self.lock:
            now = time.monotonic()
            self.longest = max(self.longest, now - self.begun)
            self.begun, self.last_done = None, now
            self.done += 1
        return self.device.result(length)

    def age(self):
        """Of the request under way, seconds."""
        with self.lock:
            return time.monotonic() - self.begun if self.begun else 0.0

    def waits(self):
        return self.age() >= WAITS_S

    def take_longest(self):
        """The longest wait since this was asked last, that of the request under way included."""
        with self.lock:
            longest = max(self.longest, time.monotonic() - self.begun if self.begun else 0)
            self.longest = 0
            return longest

    def finish(self):
        """Stops the load, then reads everything back that was ever written; how many blocks."""
        self.stopping.set()
        self.join(10)
        if self.is_alive():
            raise RuntimeError("the guest does not stop")
        if self.device.done() != self.device.sent:
            raise RuntimeError("the guest's last request was never answered")
        for offset, generation in self.generations.items():
            if vhost.transfer(self.device, vhost.READ, offset, length=BLOCK) != block_of(offset, generation):
                self.errors.append(f"at {offset} is not what was written there last")
        return len(self.generations)

    def close(self):
        self.stopping.set()
        if self.is_alive():
            self.join(2)
        if not self.is_alive():
            self.device.close()


def places(size, per_chunk):
    return [chunk * CHUNK + at for chunk in range(size // CHUNK) for at in range(0, per_chunk, vhost.MOST)]


def content(offset):
    return struct.pack("<QQ", offset, ~offset & (1 << 64) - 1) * (vhost.MOST // 16)


def fill(socket, size, per_chunk):
    with_device(socket, lambda device: [
        vhost.transfer(device, vhost.WRITE, offset, data=content(offset)) for offset in places(size, per_chunk)])


def check(socket, size, per_chunk):
    """Offsets of what is not as it was filled."""
    found = []
    def look(device):
        for offset in places(size, per_chunk):
            if vhost.transfer(device, vhost.READ, offset, length=vhost.MOST) != content(offset):
                found.append(offset)
    with_device(socket, look)
    return found


def with_device(socket, work):
    device = vhost.Device(socket)
    try:
        device.connect()
        work(device)
    finally:
        device.close()
