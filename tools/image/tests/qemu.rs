//! Files that `qemu-img` makes are read as it reads them, and it finds nothing wrong with ours.

mod common;

use std::path::{Path, PathBuf};

use common::{noise, qemu_img, read_file, write_file};
use levee_image::{Error, Format, Image, OpenOptions};

/// A disk with data, compressible and not, holes, and an end within a cluster.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; (9 << 20) + 512 * 5];
    disk[65536..65536 + 300_000].copy_from_slice(&noise(1, 300_000));
    disk[3 << 20..(3 << 20) + 1_000_000].fill(b'x');
    disk[(5 << 20) + 4096] = 1;
    let end = disk.len();
    disk[end - 100_000..].copy_from_slice(&noise(2, 100_000));
    disk
}

struct Files {
    dir: tempfile::TempDir,
    raw: PathBuf,
}

impl Files {
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk.raw");
        std::fs::write(&raw, disk()).unwrap();
        Files { dir, raw }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn convert(&self, name: &str, options: &[&str]) -> Option<PathBuf> {
        let to = self.path(name);
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options);
        arguments.extend([text(&self.raw), text(&to)]);
        qemu_img(&arguments)?;
        Some(to)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn images_of_every_kind_are_read() {
    let files = Files::new();
    let kinds: &[&[&str]] = &[
        &[],
        &["-o", "compat=0.10"],
        &["-c"],
        &["-c", "-o", "compat=0.10"],
        &["-c", "-o", "compression_type=zstd"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=4k,compression_type=zstd"],
        &["-o", "extended_l2=on"],
        &["-o", "extended_l2=on,cluster_size=2M"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=falloc"],
        &["-o", "lazy_refcounts=on"],
    ];
    for (i, options) in kinds.iter().enumerate() {
        let Some(path) = files.convert(&format!("{i}.qcow2"), options) else { return };
        assert!(read_file(&path).unwrap() == disk(), "{options:?}");
    }
}

#[test]
fn what_we_write_is_whole_and_the_same() {
    let files = Files::new();
    for (i, step) in [65536, 1 << 20, 3 << 20].into_iter().enumerate() {
        let path = files.path(&format!("{i}.qcow2"));
        write_file(&path, Format::Qcow2, &disk(), step);
        assert!(read_file(&path).unwrap() == disk());
        if qemu_img(&["check", "-f", "qcow2", text(&path)]).is_none() {
            return;
        }
        qemu_img(&["compare", "-f", "raw", "-F", "qcow2", text(&files.raw), text(&path)]).unwrap();
        assert!(path.metadata().unwrap().len() < 3 << 20, "holes take no space");
    }
}

/// More clusters than one refcount block counts, and second-level tables far from each other.
#[test]
fn a_large_sparse_disk_is_written_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.qcow2");
    let size: u64 = 5 << 40;
    let file = std::fs::File::create_new(&path).unwrap();
    let mut writer = levee_image::Writer::create(file, &path, Format::Qcow2, size).unwrap();
    let piece = noise(3, 1 << 20);
    let places = [0, 1 << 20, (512 << 20) - (1 << 20), 512 << 20, 3 << 40, size - (1 << 20)];
    for place in places {
        writer.write(place, &piece).unwrap();
    }
    writer.finish().unwrap();
    let mut image = Image::open(&path, OpenOptions::default()).unwrap();
    let mut at = 0;
    let mut seen = Vec::new();
    while let Some(data) = image.next_data(at).unwrap() {
        let mut bytes = vec![0; 1 << 20];
        image.read(data, &mut bytes).unwrap();
        assert!(bytes == piece);
        seen.push(data);
        at = data + (1 << 20);
    }
    assert_eq!(seen, places);
    qemu_img(&["check", "-f", "qcow2", text(&path)]);
}

#[test]
fn a_backing_file_is_read_when_it_is_allowed_and_near() {
    let files = Files::new();
    let Some(base) = files.convert("base.qcow2", &[]) else { return };
    let top = files.path("top.qcow2");
    qemu_img(&["create", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&top), "12M"]).unwrap();
    let refused = Image::open(&top, OpenOptions::default()).err().unwrap();
    assert!(matches!(&refused, Error::Refused { why, .. } if why.contains("--allow-backing")), "{refused}");
    let allow = OpenOptions { allow_backing: true, ..Default::default() };
    let mut image = Image::open(&top, allow).unwrap();
    let mut expected = disk();
    expected.resize(12 << 20, 0);
    assert!(common::read_all(&mut image, 1 << 30).unwrap() == expected);
    // The same base from a folder beside it.
    std::fs::create_dir(files.path("far")).unwrap();
    let far = files.path("far/top.qcow2");
    qemu_img(&["create", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&far)]).unwrap();
    let refused = Image::open(&far, allow).err().unwrap();
    assert!(matches!(&refused, Error::Refused { why, .. } if why.contains("outside")), "{refused}");
    // Two that complete each other.
    let (loops, other) = (files.path("loop.qcow2"), files.path("other.qcow2"));
    for (image, base) in [(&loops, &other), (&other, &loops)] {
        qemu_img(&["create", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(base), text(image), "1M"]).unwrap();
    }
    let refused = Image::open(&loops, allow).err().unwrap();
    assert!(matches!(&refused, Error::Refused { why, .. } if why.contains("chain")), "{refused}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let files = Files::new();
    let cases: &[(&str, &str)] = &[("data_file=data.raw,data_file_raw=on", "another file")];
    for (options, words) in cases {
        let to = files.path("refused.qcow2");
        let options = options.replace("data.raw", text(&files.path("data.raw")));
        if qemu_img(&["create", "-f", "qcow2", "-o", &options, text(&to), "8M"]).is_none() {
            return;
        }
        let refused = Image::open(&to, OpenOptions::default()).err().unwrap();
        assert!(matches!(&refused, Error::Refused { why, .. } if why.contains(words)), "{refused}");
    }
}

/// A small file may hold a large disk, but does not fill a cluster by surprise.
#[test]
fn what_unpacks_to_far_more_than_it_takes_has_to_be_asked_for() {
    let files = Files::new();
    let large = std::fs::File::create(&files.raw).unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    (0..1100).for_each(|_| std::io::Write::write_all(&mut &large, &megabyte).unwrap());
    let options = ["-c", "-o", "compression_type=zstd,cluster_size=2M"];
    let Some(packed) = files.convert("packed.qcow2", &options) else { return };
    let read = |allow_expansion| {
        let mut image = Image::open(&packed, OpenOptions { allow_expansion, ..OpenOptions::default() })?;
        let mut window = vec![0; 1 << 20];
        (0..1100u64).try_for_each(|i| image.read(i << 20, &mut window))
    };
    assert!(matches!(read(false), Err(Error::Refused { why, .. }) if why.contains("--allow-expansion")));
    read(true).unwrap();
}

#[test]
fn a_name_that_contradicts_its_content_is_refused() {
    let files = Files::new();
    let Some(packed) = files.convert("disk.qcow2", &[]) else { return };
    let open =
        |path: &Path, format| Image::open(path, OpenOptions { format, ..OpenOptions::default() }).map(|i| i.format());
    let wrong = files.path("wrong.raw");
    std::fs::rename(&packed, &wrong).unwrap();
    assert!(matches!(open(&wrong, None), Err(Error::Refused { .. })));
    assert_eq!(open(&wrong, Some(Format::Qcow2)).unwrap(), Format::Qcow2);
    let wrong = files.path("wrong.qcow2");
    std::fs::copy(&files.raw, &wrong).unwrap();
    assert!(matches!(open(&wrong, None), Err(Error::Refused { .. })));
    assert_eq!(open(&wrong, Some(Format::Raw)).unwrap(), Format::Raw);
}
