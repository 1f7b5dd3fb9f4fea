//! A disk that grows while it is used: by our own front end, and by a Linux guest under QEMU where one can be booted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::Served;
use crate::common::ram::RamDisk;
use bytes::Bytes;
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape};
use levee_vhost::{BlockDevice, IoError};

const BEFORE: u64 = 1 << 20;
const AFTER: u64 = 4 << 20;

/// A disk whose size is set from outside, up to that of its memory.
struct Growing {
    disk: RamDisk,
    capacity: Arc<AtomicU64>,
}

impl BlockDevice for Growing {
    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    fn id(&self) -> String {
        self.disk.id()
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<Bytes>, IoError> {
        self.disk.read(offset, len).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), IoError> {
        self.disk.write(offset, data).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.disk.discard(offset, len).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), IoError> {
        self.disk.write_zeroes(offset, len, unmap).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.disk.flush().await
    }
}

fn served() -> (Served, Arc<AtomicU64>) {
    let capacity = Arc::new(AtomicU64::new(BEFORE));
    let shared = capacity.clone();
    let served = Served::start(move || Growing { disk: RamDisk::new(AFTER as usize), capacity: shared });
    (served, capacity)
}

fn front(served: &Served) -> FrontEnd {
    let options = FrontEndOptions { socket: served.socket().to_path_buf(), queues: 1, max_data: 4096 };
    FrontEnd::connect(options).unwrap()
}

/// Status of a write of one block.
fn write(front: &mut FrontEnd, offset: u64) -> u8 {
    let tag = front.free_slot(0).unwrap();
    front.put_data(tag, 0, &[7; 4096]);
    front.submit(tag, Operation::Write { offset, len: 4096 }, Shape::default());
    front.kick();
    let mut done: Vec<Completion> = Vec::new();
    crate::common::wait_until("the write is answered", || {
        front.poll(Duration::from_millis(10), &mut done).unwrap();
        !done.is_empty()
    });
    done[0].status
}

fn until_capacity(front: &mut FrontEnd, capacity: u64) {
    crate::common::wait_until("the front end learns the new size", || {
        front.poll(Duration::from_millis(10), &mut Vec::new()).unwrap();
        front.config().capacity == capacity
    });
}

#[test]
fn a_disk_grows_under_its_guest() {
    let (served, capacity) = served();
    let mut front = front(&served);
    assert_eq!(front.config().capacity, BEFORE);
    assert_ne!(write(&mut front, BEFORE), 0, "beyond the end");
    capacity.store(AFTER, Ordering::Release);
    served.resized();
    until_capacity(&mut front, AFTER);
    assert_eq!(write(&mut front, BEFORE), 0);
    assert_eq!(write(&mut front, AFTER - 4096), 0);
    front.close().unwrap();
    served.stop();
}

#[test]
fn what_was_told_to_nobody_is_told_at_the_next_start() {
    let (served, capacity) = served();
    let first = front(&served);
    first.close().unwrap();
    // Between two connections there is nobody to tell.
    capacity.store(AFTER, Ordering::Release);
    served.resized();
    let mut second = front(&served);
    until_capacity(&mut second, AFTER);
    assert_eq!(write(&mut second, AFTER - 4096), 0);
    second.close().unwrap();
    served.stop();
}

/// The notices of many changes may be one; the last size is what counts.
#[test]
fn a_disk_that_grows_often_ends_with_its_last_size() {
    let (served, capacity) = served();
    let mut front = front(&served);
    for size in (BEFORE..=AFTER).step_by(64 << 10) {
        capacity.store(size, Ordering::Release);
        served.resized();
        assert_eq!(write(&mut front, 0), 0);
    }
    until_capacity(&mut front, AFTER);
    front.close().unwrap();
    served.stop();
}

/// What the guest does: tells its disk's size whenever that changes, until it is the last; then uses the last sector.
const GUEST: &str = r#"
size() { cat /sys/block/vda/size; }
last=none waited=0
while [ "$last" != "$AFTER" ]; do
    now=$(size)
    if [ "$now" != "$last" ]; then
        echo "@size $now"
        last=$now
    fi
    sleep 0.1
    waited=$((waited + 1))
    [ "$waited" -lt 600 ] || exit 9
done
head -c 512 /dev/urandom >/tmp-sector
dd if=/tmp-sector of=/dev/vda bs=512 seek=$((AFTER - 1)) oflag=direct 2>/dev/null || exit 10
dd if=/dev/vda of=/tmp-read bs=512 skip=$((AFTER - 1)) count=1 iflag=direct 2>/dev/null || exit 11
cmp /tmp-sector /tmp-read || exit 12
"#;

/// Ends the guest with the test.
struct Booted(Child);

impl Drop for Booted {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // The script ends its QEMU when it is asked to.
            let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}

fn boot(socket: &Path, script: &Path) -> Option<Booted> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    if !root.join("target/guest/vmlinux").exists() {
        eprintln!("skipped: there is no guest to boot; scripts/guest-image makes one");
        return None;
    }
    let mut command = Command::new(root.join("scripts/guest"));
    command.arg("--socket").arg(socket).args(["--env", &format!("AFTER={}", AFTER / 512), "--limit", "300"]);
    command.arg(script).stdin(Stdio::null()).stdout(Stdio::piped());
    Some(Booted(command.spawn().unwrap()))
}

#[test]
fn linux_sees_its_disk_grow() {
    let (served, capacity) = served();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("guest.sh");
    std::fs::write(&script, GUEST).unwrap();
    let Some(mut guest) = boot(served.socket(), &script) else { return };
    let lines = BufReader::new(guest.0.stdout.take().unwrap()).lines();
    let mut sizes = Vec::new();
    for line in lines.map_while(Result::ok) {
        let Some(size) = line.trim().strip_prefix("@size ") else { continue };
        sizes.push(size.parse::<u64>().unwrap() * 512);
        if sizes == [BEFORE] {
            capacity.store(AFTER, Ordering::Release);
            served.resized();
        }
    }
    assert_eq!(guest.0.wait().unwrap().code(), Some(0), "sizes seen: {sizes:?}");
    assert_eq!(sizes, [BEFORE, AFTER]);
    drop(guest);
    served.stop();
}
