//! What the tests share: disks in memory, and `qemu-img` where it is installed.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::path::Path;
use std::process::Command;

use levee_image::{Format, Image, OpenOptions, Result, Writer};

/// What is read in one go, bytes.
const WINDOW: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// Bytes that do not compress and differ from place to place.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Reads a disk as importing it does.
pub fn read_all(image: &mut Image, most: u64) -> Result<Vec<u8>> {
    let size = image.size();
    assert!(size <= most, "the test's disks are small");
    let mut disk = vec![0; size as usize];
    let mut at = 0;
    while let Some(data) = image.next_data(at)? {
        let start = data / BLOCK * BLOCK;
        let end = (data / WINDOW + 1) * WINDOW;
        let end = end.min(size);
        image.read(start, &mut disk[start as usize..end as usize])?;
        at = end;
    }
    Ok(disk)
}

pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    read_all(&mut Image::open(path, OpenOptions::default())?, 1 << 30)
}

/// Writes a disk as exporting it does, `step` bytes at a time.
pub fn write_file(path: &Path, format: Format, disk: &[u8], step: usize) {
    let mut writer = Writer::create(File::create_new(path).unwrap(), path, format, disk.len() as u64).unwrap();
    for (i, piece) in disk.chunks(step).enumerate() {
        writer.write((i * step) as u64, piece).unwrap();
    }
    writer.finish().unwrap();
}

/// Runs `qemu-img`; `None` where it is not installed.
pub fn qemu_img(arguments: &[&str]) -> Option<()> {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "qemu-img {arguments:?}: {said}");
            Some(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: qemu-img is not installed");
            None
        }
        Err(e) => panic!("qemu-img cannot be started: {e}"),
    }
}
