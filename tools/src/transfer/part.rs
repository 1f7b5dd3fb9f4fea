//! A file that is there under its name only when it is complete.

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Dropped before it was kept, it leaves nothing behind.
pub struct PartFile {
    part: PathBuf,
    path: PathBuf,
    overwrite: bool,
    kept: bool,
}

impl PartFile {
    /// Creates the file under another name beside its own.
    pub fn create(path: &Path, overwrite: bool) -> anyhow::Result<(PartFile, File)> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => anyhow::bail!("{} exists and is not a file", path.display()),
            Ok(_) if !overwrite => anyhow::bail!("{} exists; --overwrite replaces it", path.display()),
            _ => {}
        }
        let name = path.file_name().with_context(|| format!("{} is not the name of a file", path.display()))?;
        let part = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        // It holds all that a guest has.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.with_context(|| format!("cannot create {}", part.display()))?;
        Ok((PartFile { part, path: path.to_owned(), overwrite, kept: false }, file))
    }

    /// Gives the file its name.
    pub fn keep(mut self) -> anyhow::Result<()> {
        let flags = if self.overwrite { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
        let renamed = match renameat2(AT_FDCWD, &self.part, AT_FDCWD, &self.path, flags) {
            // Not every file system can tell; nobody was there when this began.
            Err(Errno::EINVAL | Errno::ENOSYS) => std::fs::rename(&self.part, &self.path),
            outcome => outcome.map_err(Into::into),
        };
        renamed.with_context(|| format!("cannot create {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.kept {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_only_when_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        drop(PartFile::create(&path, false).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let (part, _) = PartFile::create(&path, false).unwrap();
        assert!(!path.exists());
        part.keep().unwrap();
        assert!(path.exists());
        assert!(PartFile::create(&path, false).is_err());
        let (part, _) = PartFile::create(&path, true).unwrap();
        part.keep().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(PartFile::create(dir.path(), true).is_err());
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let (part, _) = PartFile::create(&path, false).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(part.keep().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
