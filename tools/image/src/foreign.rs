//! Files that hold something else than a disk in a format that is read here. Taken as raw they would make a volume that
//! looks filled and that nobody can use.

use crate::error::Result;
use crate::file::ReadFile;

/// What a file is, and what helps.
struct Foreign {
    /// Where the mark is, bytes from the file's start, or from its end.
    at: At,
    mark: &'static [u8],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum At {
    Start(u64),
    End(u64),
}

#[derive(Clone, Copy)]
enum Kind {
    /// A disk in a format that `qemu-img` reads.
    Image(&'static str),
    /// A disk in a format that its maker's tools read.
    Other(&'static str),
    Compressed(&'static str, &'static str),
    Archive(&'static str),
    /// What a web server answers instead of a file.
    Page(&'static str),
}

const fn start(at: u64, mark: &'static [u8], kind: Kind) -> Foreign {
    Foreign { at: At::Start(at), mark, kind }
}

const fn end(before: u64, mark: &'static [u8], kind: Kind) -> Foreign {
    Foreign { at: At::End(before), mark, kind }
}

const VHD: Kind = Kind::Image("VHD (vpc)");
const PARALLELS: Kind = Kind::Image("Parallels");
const VMDK: Kind = Kind::Image("VMDK");

/// Marks of the formats, from their specifications and from QEMU's drivers' documentation.
const FOREIGN: &[Foreign] = &[
    start(0, b"KDMV", VMDK),
    start(0, b"COWD", VMDK),
    start(0, b"# Disk DescriptorFile", VMDK),
    start(0, b"vhdxfile", Kind::Image("VHDX")),
    start(0, b"conectix", VHD),
    end(512, b"conectix", VHD),
    end(511, b"conectix", VHD),
    start(0x40, &0xbeda_107fu32.to_le_bytes(), Kind::Image("VDI")),
    start(0, b"QED\0", Kind::Image("QED")),
    start(0, b"QFI\xfb\0\0\0\x01", Kind::Image("QCOW1")),
    start(0, b"WithoutFreeSpace", PARALLELS),
    start(0, b"WithouFreSpacExt", PARALLELS),
    start(0, b"Bochs Virtual HD Image", Kind::Image("Bochs")),
    start(0, b"#!/bin/sh\n#V2.0 Format\n", Kind::Image("cloop")),
    end(512, b"koly", Kind::Image("DMG")),
    start(0, b"VMA\0", Kind::Other("a Proxmox backup: unpack it with `vma extract`")),
    start(0, &0xed26_ff3au32.to_le_bytes(), Kind::Other("an Android sparse image: convert it with `simg2img`")),
    start(0, b"\x1f\x8b", Kind::Compressed("gzip", "gunzip")),
    start(0, b"\xfd7zXZ\0", Kind::Compressed("xz", "unxz")),
    start(0, b"\x28\xb5\x2f\xfd", Kind::Compressed("zstd", "unzstd")),
    start(0, b"BZh", Kind::Compressed("bzip2", "bunzip2")),
    start(0, b"\x04\x22\x4d\x18", Kind::Compressed("lz4", "unlz4")),
    start(0, b"LZIP", Kind::Compressed("lzip", "lzip -d")),
    start(0, b"\x5d\0\0", Kind::Compressed("lzma", "unlzma")),
    start(0, b"\x89LZO\0", Kind::Compressed("lzop", "lzop -d")),
    start(0, b"PK\x03\x04", Kind::Archive("zip")),
    start(0, b"7z\xbc\xaf\x27\x1c", Kind::Archive("7z")),
    start(0, b"Rar!\x1a\x07", Kind::Archive("rar")),
    start(257, b"ustar", Kind::Archive("tar (an OVA is one)")),
    start(0, b"070701", Kind::Archive("cpio")),
    start(0, b"070707", Kind::Archive("cpio")),
    start(0, b"!<arch>\n", Kind::Archive("ar or Debian")),
    start(0, b"\xed\xab\xee\xdb", Kind::Archive("RPM")),
    start(0, b"hsqs", Kind::Archive("squashfs")),
];

/// Beginnings of pages, in small letters.
const PAGES: &[(&[u8], Kind)] = &[
    (b"<!doctype", Kind::Page("a web page")),
    (b"<html", Kind::Page("a web page")),
    (b"<?xml", Kind::Page("an XML document")),
    (b"{\"", Kind::Page("a JSON document")),
];

/// Bytes at the start of a file that are looked at for a page.
const PAGE_HEAD: usize = 64;

/// Refuses a file that is known to be something else than a raw disk.
pub(crate) fn check(file: &ReadFile) -> Result<()> {
    match find(file)? {
        None => Ok(()),
        Some(kind) => file.refused(complaint(kind)),
    }
}

fn find(file: &ReadFile) -> Result<Option<Kind>> {
    for foreign in FOREIGN {
        let at = match foreign.at {
            At::Start(at) => Some(at),
            At::End(before) => file.len.checked_sub(before),
        };
        let mut found = [0; 32];
        let found = &mut found[..foreign.mark.len()];
        if let Some(at) = at
            && file.read_some(at, found)? == foreign.mark.len()
            && *found == *foreign.mark
        {
            return Ok(Some(foreign.kind));
        }
    }
    let mut head = [0; PAGE_HEAD];
    let len = file.read_some(0, &mut head)?;
    let head =
        head[..len].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head[..len]).trim_ascii_start().to_ascii_lowercase();
    Ok(PAGES.iter().find(|(begin, _)| head.starts_with(begin)).map(|(_, kind)| *kind))
}

fn complaint(kind: Kind) -> String {
    let what = match kind {
        Kind::Image(name) => {
            format!(
                "this is a {name} image, which is not read here: `qemu-img convert -O qcow2 FILE NEW` makes one that is"
            )
        }
        Kind::Other(what) => format!("this is {what}"),
        Kind::Compressed(name, tool) => format!("this is a file compressed with {name}: unpack it with `{tool}` first"),
        Kind::Archive(name) => format!("this is an archive ({name}): unpack it and import the disk in it"),
        Kind::Page(name) => format!("this is {name}, not a disk: was the download refused?"),
    };
    format!("{what}; --format raw takes the bytes as they are")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn found(bytes: &[u8], at: u64, len: u64) -> Option<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"").unwrap();
        file.as_file().set_len(len).unwrap();
        file.as_file().write_all_at(bytes, at).unwrap();
        let file = ReadFile::open(file.path()).unwrap();
        check(&file).err().map(|e| e.to_string())
    }

    #[test]
    fn every_mark_is_found_where_it_belongs() {
        const LEN: u64 = 1 << 20;
        for foreign in FOREIGN {
            let at = match foreign.at {
                At::Start(at) => at,
                At::End(before) => LEN - before,
            };
            let why = found(foreign.mark, at, LEN).expect("it was taken");
            assert!(why.contains("--format raw"), "{why}");
            assert!(foreign.mark.len() <= 32);
        }
        for page in ["\n <!DOCTYPE html>", "<html>", "\u{feff}<?xml version", "{\"error\": 404}"] {
            assert!(found(page.as_bytes(), 0, 600).is_some_and(|why| why.contains("download")), "{page}");
        }
    }

    #[test]
    fn disks_are_taken() {
        assert_eq!(found(b"\xeb\x63\x90", 0, 1 << 20), None, "a boot sector");
        assert_eq!(found(b"", 0, 0), None);
        assert_eq!(found(b"LUKS\xba\xbe", 0, 4096), None, "an encrypted disk is the guest's");
        assert_eq!(found(b"CD001", 0x8001, 1 << 20), None, "a disk that boots from a CD as well");
        assert_eq!(found(b"conectix", 100, 4096), None);
    }
}
