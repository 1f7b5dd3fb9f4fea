//! The disks that this daemon has served before, remembered in its folder.
//!
//! A disk that cannot be read does not say who it is. What is remembered of it tells the cluster which one is gone.

use anyhow::{Context, Result, ensure};
use levee_proto::DiskId;
use levee_proto::api::DiskClass;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const NAME: &str = "disks.json";
/// Longest file that is read, bytes.
const MAX_LEN: u64 = 1 << 20;

/// A disk as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDisk {
    /// Where it was found last: names of devices shift.
    pub path: PathBuf,
    pub cluster: Uuid,
    pub uuid: Uuid,
    pub disk: DiskId,
    /// Bytes usable for data.
    pub capacity: u64,
    pub shards: u16,
    /// It was added while the daemon ran: it is taken at the next start though the command line does not name it.
    #[serde(default)]
    pub added: bool,
    #[serde(default)]
    pub class: DiskClass,
}

/// All that are remembered.
#[derive(Debug, Default)]
pub struct KnownDisks {
    file: PathBuf,
    disks: Vec<KnownDisk>,
}

impl KnownDisks {
    /// Reads what is remembered in the daemon's folder; nothing, if it is new.
    pub fn load(dir: &Path) -> Result<KnownDisks> {
        let file = dir.join(NAME);
        let disks = match File::open(&file) {
            Ok(open) => read(open).with_context(|| format!("{} is damaged: delete it", file.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => vec![],
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(KnownDisks { file, disks })
    }

    pub fn of(&self, uuid: Uuid) -> Option<&KnownDisk> {
        self.disks.iter().find(|d| d.uuid == uuid)
    }

    pub fn all(&self) -> &[KnownDisk] {
        &self.disks
    }

    /// Disks that were added while the daemon ran.
    pub fn added(&self) -> impl Iterator<Item = &KnownDisk> {
        self.disks.iter().filter(|d| d.added)
    }

    /// Remembers all but this disk.
    pub fn forget(&mut self, uuid: Uuid) -> Result<()> {
        let left = self.disks.iter().filter(|d| d.uuid != uuid).cloned().collect();
        self.replace(left)
    }

    /// Remembers these instead.
    pub fn replace(&mut self, disks: Vec<KnownDisk>) -> Result<()> {
        if disks != self.disks {
            self.write(&disks).with_context(|| format!("cannot write {}", self.file.display()))?;
            self.disks = disks;
        }
        Ok(())
    }

    /// The file is whole at any moment: another takes its place.
    fn write(&self, disks: &[KnownDisk]) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(disks)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn read(file: File) -> Result<Vec<KnownDisk>> {
    let mut text = vec![];
    file.take(MAX_LEN + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= MAX_LEN, "it is too long");
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, number: u128) -> KnownDisk {
        KnownDisk {
            path: path.into(),
            cluster: Uuid::from_u128(1),
            uuid: Uuid::from_u128(number),
            disk: DiskId(3),
            capacity: 1 << 30,
            shards: 2,
            added: false,
            class: DiskClass::Ssd,
        }
    }

    #[test]
    fn what_was_remembered_is_found_by_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = KnownDisks::load(dir.path()).unwrap();
        let uuid = Uuid::from_u128;
        assert_eq!(known.of(uuid(7)), None);
        known.replace(vec![disk("/a", 7), disk("/b", 8), disk("/b", 9)]).unwrap();
        known.forget(uuid(9)).unwrap();
        known.replace(vec![disk("/a", 8)]).unwrap();
        let again = KnownDisks::load(dir.path()).unwrap();
        assert_eq!((again.of(uuid(7)), again.of(uuid(8))), (None, Some(&disk("/a", 8))));
    }

    #[test]
    fn a_damaged_memory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"[{\"path\":1}]").unwrap();
        let said = format!("{:#}", KnownDisks::load(dir.path()).unwrap_err());
        assert!(said.contains("disks.json is damaged: delete it"), "{said}");
    }
}
