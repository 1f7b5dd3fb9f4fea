//! Making a file or device a Levee disk.

use super::lock::exclusively;
use super::owned::{PlainDisk, size_of_disk};
use crate::args::FormatArgs;
use anyhow::{Context, Result, bail, ensure};
use levee_core::store::{self, FormatError, Superblock};
use levee_proto::units::show_size;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;
use uuid::Uuid;

/// Carries `levee-stored format` out.
pub fn format(args: &FormatArgs) -> Result<()> {
    let size = make_disk(args)?;
    println!("{} is a Levee disk of {} for {} core(s)", args.path.display(), show_size(size), args.cores);
    Ok(())
}

/// Makes a file or device a Levee disk; its size.
pub fn make_disk(args: &FormatArgs) -> Result<u64> {
    let path = args.path.display();
    let existing = std::fs::symlink_metadata(&args.path).ok();
    let is_device = existing.as_ref().is_some_and(|m| m.file_type().is_block_device());
    if let Some(m) = &existing {
        ensure!(is_device || m.is_file(), "{path} is neither a file nor a block device");
        ensure!(
            is_device || m.len() == 0,
            "{path} exists and is not empty: remove it first if nothing on it is needed"
        );
    }
    ensure!(
        is_device != args.size.is_some(),
        "{}",
        match is_device {
            true => format!("{path} is a block device: leave --size out, all of it is used"),
            false => format!("{path} is a file: say how large it shall be with --size"),
        }
    );
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&args.path);
    let file = file.with_context(|| format!("cannot create {path}"))?;
    let lock = exclusively(file, &args.path, Duration::ZERO)?;
    let made = make(&lock, args, is_device);
    if made.is_err() && existing.is_none() {
        let _ = std::fs::remove_file(&args.path);
    }
    made.with_context(|| format!("cannot make {path} a disk"))
}

fn make(file: &File, args: &FormatArgs, is_device: bool) -> Result<u64> {
    if is_device {
        match futures_lite::future::block_on(store::read_superblock(&PlainDisk::of(file)?)) {
            Err(FormatError::NotLevee) => {}
            Ok(_) => bail!("it is a Levee disk already: wipe its first MiB if nothing on it is needed"),
            Err(e) => bail!("it may be a Levee disk ({e}): wipe its first MiB if nothing on it is needed"),
        }
    } else if let Some(size) = args.size {
        // Checked before the file grows, so that a refused size leaves nothing behind.
        Superblock::plan(size, args.cores, [0; 16])?;
        file.set_len(size)?;
    }
    let size = size_of_disk(file)?;
    futures_lite::future::block_on(store::format(&PlainDisk::of(file)?, size, args.cores, *Uuid::new_v4().as_bytes()))?;
    file.sync_all()?;
    Ok(size)
}
