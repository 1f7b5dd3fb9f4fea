//! Making a file or device a Levee disk.

use super::lock::exclusively;
use super::owned::{PlainDisk, size_of_disk};
use super::signature;
use crate::args::FormatArgs;
use anyhow::{Context, Result, anyhow, bail, ensure};
use levee_core::store::{self, Superblock};
use levee_proto::units::show_size;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
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
    let has = existing.as_ref().filter(|m| m.is_file()).map_or(0, |m| m.len());
    if let Some(m) = &existing {
        ensure!(is_device || m.is_file(), "{path} is neither a file nor a block device");
    }
    match args.size {
        Some(_) if is_device => bail!("{path} is a block device: leave --size out, all of it is used"),
        None if !is_device && has == 0 => bail!("{path} is a file: say how large it shall be with --size"),
        Some(size) if has > 0 && size != has => {
            bail!("{path} exists and has {}: leave --size out, or remove it first", show_size(has))
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    // The kernel grants a device exclusively only if nobody has mounted it, or made it a part of another one.
    let exclusive = if is_device { libc::O_EXCL } else { 0 };
    options.read(true).write(true).create(!is_device).truncate(false).mode(0o600).custom_flags(exclusive);
    let file = options.open(&args.path).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => anyhow!("{path} is in use: it is mounted, swapped to, or part of another device"),
        _ => anyhow!("cannot open {path}: {e}"),
    })?;
    let lock = exclusively(file, &args.path, Duration::ZERO)?;
    let made = make(&lock, args, is_device || has > 0);
    if made.is_err() && existing.is_none() {
        let _ = std::fs::remove_file(&args.path);
    }
    made.with_context(|| format!("cannot make {path} a disk"))
}

/// `exists`: it may hold something.
fn make(file: &File, args: &FormatArgs, exists: bool) -> Result<u64> {
    if exists {
        if let Some(found) = signature::find(file)?.or(signature::find_data(file)?)
            && !args.force
        {
            bail!("there is {found} on it: use --force if nothing on it is needed");
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
