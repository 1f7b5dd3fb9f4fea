//! Files that lie: whatever their bytes say, reading ends, within bounds, with the disk or an error.

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{noise, read_all, read_file, write_file};
use levee_image::{Error, Format, Image, OpenOptions};
use proptest::prelude::*;

const CLUSTER: usize = 65536;
const SIZE: usize = 40 * CLUSTER;

fn disk() -> Vec<u8> {
    let mut disk = vec![0; SIZE];
    disk[..3 * CLUSTER].copy_from_slice(&noise(1, 3 * CLUSTER));
    disk[20 * CLUSTER..22 * CLUSTER].copy_from_slice(&noise(2, 2 * CLUSTER));
    disk
}

/// A good image, to be spoilt. Its clusters: header, first level, data (3), data (2), second level, refcounts (2).
fn good(dir: &Path) -> PathBuf {
    let path = dir.join("good.qcow2");
    write_file(&path, Format::Qcow2, &disk(), SIZE);
    path
}

const L1: u64 = CLUSTER as u64;
const L2: u64 = 7 * CLUSTER as u64;

/// Where, and what is written there.
type Change<'a> = (u64, &'a [u8]);

fn spoilt(changes: &[Change<'_>]) -> levee_image::Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = good(dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (at, bytes) in changes {
        file.write_all_at(bytes, *at).unwrap();
    }
    read_file(&path)
}

fn be(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

#[test]
fn each_wrong_number_is_named() {
    assert!(spoilt(&[]).unwrap() == disk());
    let cases: &[(&str, &[Change<'_>])] = &[
        ("version 7", &[(4, &[0, 0, 0, 7])]),
        ("2^40 bytes", &[(20, &[0, 0, 0, 40])]),
        ("encrypted", &[(32, &[0, 0, 0, 1])]),
        ("larger than the largest volume", &[(24, &be(u64::MAX))]),
        ("does not fit a disk", &[(24, &be(1 << 45))]),
        ("does not begin at a cluster", &[(40, &be(512))]),
        ("copied as a whole", &[(40, &be(1 << 40))]),
        ("not known here", &[(72, &be(1 << 9))]),
        ("marked as corrupt", &[(72, &be(2))]),
        ("another file", &[(72, &be(4))]),
        ("clusters are too small", &[(72, &be(16)), (20, &[0, 0, 0, 12])]),
        ("header of 8 bytes", &[(100, &[0, 0, 0, 8])]),
        ("backing file lies outside", &[(8, &be(1 << 30)), (16, &[0, 0, 0, 9])]),
        ("backing file lies outside", &[(8, &be(200)), (16, &[0xff; 4])]),
        ("--allow-backing", &[(8, &be(200)), (16, &[0, 0, 0, 9])]),
        ("first-level entry", &[(L1, &be(77))]),
        ("second-level table at", &[(L1, &be(1 << 40))]),
        ("second-level entry", &[(L2, &be(1 << 3))]),
        ("a cluster at", &[(L2, &be(1 << 40))]),
        ("compressed cluster", &[(L2, &be(1 << 62 | 512))]),
    ];
    for (words, changes) in cases {
        let error = spoilt(changes).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    // An image that was not closed in good order has good data.
    assert!(spoilt(&[(72, &be(1))]).unwrap() == disk());
}

#[test]
fn a_file_that_is_cut_is_damaged() {
    for len in [10, 80, 110, CLUSTER as u64, L2 - 1, L2 + 8] {
        let dir = tempfile::tempdir().unwrap();
        let path = good(dir.path());
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        assert!(matches!(read_file(&path), Err(Error::Damaged { .. })), "{len}");
    }
}

/// A small file that says it is a large disk by naming one cluster for each of its own.
#[test]
fn a_cluster_is_not_multiplied() {
    let mut table = Vec::new();
    for _ in 0..CLUSTER / 8 {
        table.extend_from_slice(&be(2 * CLUSTER as u64));
    }
    let size = be(512 << 20);
    let error = spoilt(&[(24, &size), (L2, &table)]).unwrap_err().to_string();
    assert!(error.contains("several times"), "{error}");
    // The same with the table itself, for a disk of 4 TiB.
    let dir = tempfile::tempdir().unwrap();
    let path = good(dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&(8192u32).to_be_bytes(), 36).unwrap();
    file.write_all_at(&be(4 << 40), 24).unwrap();
    file.write_all_at(&be(L2 | 1 << 63).repeat(8192), L1).unwrap();
    file.write_all_at(&vec![0; CLUSTER], L2).unwrap();
    let mut image = Image::open(&path, OpenOptions::default()).unwrap();
    let error = image.next_data(0).unwrap_err().to_string();
    assert!(error.contains("several times"), "{error}");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), PathBuf::from("/dev/null")] {
        assert!(matches!(Image::open(&path, OpenOptions::default()), Err(Error::Refused { .. })));
    }
    let missing = Image::open(&dir.path().join("missing"), OpenOptions::default());
    assert!(matches!(missing, Err(Error::Io { .. })));
    let raw = dir.path().join("raw");
    std::fs::write(&raw, [7; 1000]).unwrap();
    let as_qcow2 = OpenOptions { format: Some(Format::Qcow2), ..Default::default() };
    assert!(matches!(Image::open(&raw, as_qcow2), Err(Error::Refused { .. })));
}

/// Where a change of bytes says something: the header and the tables.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..120, 2 => L1..L1 + 16, 3 => L2..L2 + 64 * 8, 1 => 0u64..10 * CLUSTER as u64]
}

fn change() -> impl Strategy<Value = (u64, Vec<u8>)> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..9),
        (0u32..64).prop_map(|bit| be(1 << bit).to_vec()),
        (0u64..12).prop_map(|cluster| be(cluster * CLUSTER as u64).to_vec()),
        (0u64..1 << 20, 0u64..4).prop_map(|(at, sectors)| be(1 << 62 | sectors << 54 | at).to_vec()),
    ];
    (place(), value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_survived(changes in prop::collection::vec(change(), 1..6), cut in prop::option::of(0u64..10 * CLUSTER as u64)) {
        let dir = tempfile::tempdir().unwrap();
        let path = good(dir.path());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, bytes) in &changes {
            file.write_all_at(bytes, *at).unwrap();
        }
        if let Some(len) = cut {
            file.set_len(len).unwrap();
        }
        let options = OpenOptions { allow_backing: true, ..Default::default() };
        if let Ok(mut image) = Image::open(&path, options) {
            walk(&mut image);
        }
    }

    #[test]
    fn what_is_written_is_read(
        size in 1u64..3 << 20,
        pieces in prop::collection::vec((0u64..3 << 20, 1usize..200_000, any::<u64>()), 0..8),
        format in prop_oneof![Just(Format::Raw), Just(Format::Qcow2)],
        step in 1usize..40,
    ) {
        let mut disk = vec![0; size as usize];
        for (at, len, seed) in pieces {
            let at = (at % size) as usize;
            let len = len.min(disk.len() - at);
            disk[at..at + len].copy_from_slice(&noise(seed, len));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        write_file(&path, format, &disk, step * CLUSTER);
        let mut image = Image::open(&path, OpenOptions { format: Some(format), ..Default::default() }).unwrap();
        prop_assert!(read_all(&mut image, 1 << 30).unwrap() == disk);
    }
}

/// Reads a disk of any size as far as it goes; a file that is small has little to read.
fn walk(image: &mut Image) {
    const MOST: u64 = 4 << 10;
    let mut at = 0;
    let mut reads = 0;
    while let Ok(Some(data)) = image.next_data(at) {
        let len = (CLUSTER as u64 - data % CLUSTER as u64).min(image.size() - data);
        if image.read(data, &mut vec![0; len as usize]).is_err() {
            return;
        }
        at = data + len;
        reads += 1;
        assert!(reads <= MOST, "a file of 10 clusters has data for {reads} reads");
    }
}
