//! A disk that grows while it is used.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::Served;
use common::ram::RamDisk;
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
    common::wait_until("the write is answered", || {
        front.poll(Duration::from_millis(10), &mut done).unwrap();
        !done.is_empty()
    });
    done[0].status
}

fn until_capacity(front: &mut FrontEnd, capacity: u64) {
    common::wait_until("the front end learns the new size", || {
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
