//! Disks that come and go while the daemon runs.
//!
//! A disk is added in this order: it is locked and read, every core recovers its shards of it, the cluster gives it an id, the cores answer for
//! it, and it is remembered. Whatever fails on the way is undone. It is removed in the opposite order, and only when nothing
//! is lost with it: it holds no replicas, and gets none any more, or it is broken. One change is made at a time.

use super::{Control, Joined, MetaError};
use crate::args::{DiskArg, FormatArgs};
use crate::core::Command;
use crate::disks::{self, Disk, DiskState as Standing};
use levee_core::store::Superblock;
use levee_proto::DiskId;
use levee_proto::api::*;
use std::path::{Path, PathBuf};
use tracing::{info, warn};
use uuid::Uuid;

/// Most disks of one daemon that the cluster takes.
const MAX_DISKS: usize = 64;
/// Bytes of a path that the cluster takes.
const MAX_PATH: usize = 1024;

type Outcome<T> = Result<T, Problem>;

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Conflict, detail)
}

impl From<MetaError> for Problem {
    fn from(e: MetaError) -> Problem {
        match e {
            MetaError::Refused(problem) => problem,
            MetaError::Unreachable(why) => Problem::new(ProblemKind::Unavailable, why),
        }
    }
}

impl Control {
    /// Takes one more disk.
    pub(super) async fn add_disk(&self, ask: AddDisk) -> Outcome<AddedDisk> {
        let _one = self.changing_disks.lock().await;
        let joined = self.joined_or_unavailable()?;
        self.check_new(&ask)?;
        let disk = self.take_disk(&ask).await?;
        if disk.cluster().is_some_and(|cluster| cluster != joined.cluster) {
            return Err(conflict(format!(
                "disk {} belongs to another cluster: format it anew to use it here",
                ask.path
            )));
        }
        let Some(superblock) = disk.superblock().cloned() else {
            return Err(conflict(format!("disk {} cannot be used", ask.path)));
        };
        let uuid = Uuid::from_bytes(superblock.disk_uuid);
        let missing = self.make_way(uuid, &ask.path).await?;
        let position = self.disks.borrow_mut().next_position();
        let added = self.bring_in(position, disk, superblock).await;
        match added {
            Ok((disk, capacity)) => {
                info!("disk {} ({disk}) was added", ask.path);
                Ok(AddedDisk { disk, uuid, capacity })
            }
            Err(problem) => {
                warn!("disk {} was not added: {problem}", ask.path);
                self.let_go(position).await;
                if let Some(missing) = missing {
                    self.disks.borrow_mut().insert(position, missing);
                }
                // It may have heard of the disk.
                if let Err(e) = self.register_again().await {
                    warn!("the cluster was not told that disk {} is gone again: {e}", ask.path);
                }
                Err(problem)
            }
        }
    }

    /// A disk that was missing may come back, wherever it is now. One that is here already is not added again: it was copied.
    async fn make_way(&self, uuid: Uuid, path: &str) -> Outcome<Option<Disk>> {
        let Some(position) = self.disks.borrow().position_of(uuid) else { return Ok(None) };
        let here = self.disks.borrow().get(position).filter(|disk| !is_missing(disk)).map(|disk| disk.path.clone());
        match here {
            Some(other) => {
                let other = other.display();
                Err(conflict(format!("disk {path} is a copy of {other}, which is in use: format it anew to use it")))
            }
            None => Ok(self.let_go(position).await),
        }
    }

    fn joined_or_unavailable(&self) -> Outcome<Joined> {
        let waiting =
            || Problem::new(ProblemKind::Unavailable, "the daemon has not joined its cluster yet: try again soon");
        self.node.borrow().clone().ok_or_else(waiting)
    }

    fn check_new(&self, ask: &AddDisk) -> Outcome<()> {
        let path = Path::new(&ask.path);
        if !path.is_absolute() {
            return Err(invalid(format!("'{}' is no absolute path", shown_name(&ask.path))));
        }
        // Else it is formatted, and the cluster refuses the daemon that has it.
        if ask.path.len() > MAX_PATH || ask.path.chars().any(char::is_control) {
            return Err(invalid(format!("a disk's path must be at most {MAX_PATH} bytes of plain text")));
        }
        if ask.size.is_some() && !ask.format {
            return Err(invalid(
                "a size is only of use for a disk that is formatted: ask for that, too, or leave it out",
            ));
        }
        let disks = self.disks.borrow();
        if disks.used_paths().any(|p| p == path) {
            return Err(conflict(format!(
                "disk {} is one of this daemon's already: remove it first to put another in its place",
                ask.path
            )));
        }
        match disks.len() < MAX_DISKS {
            true => Ok(()),
            false => Err(Problem::new(ProblemKind::NoSpace, format!("the daemon has its most, {MAX_DISKS} disks"))),
        }
    }

    /// Formats the disk if asked to, locks it and reads what it is.
    async fn take_disk(&self, ask: &AddDisk) -> Outcome<Disk> {
        let (path, cores) = (PathBuf::from(&ask.path), self.args.data.len() as u16);
        let format = ask.format.then(|| FormatArgs { path: path.clone(), size: ask.size, cores, force: ask.force });
        let class = ask.class;
        let take = move || -> anyhow::Result<Disk> {
            format.as_ref().map(disks::make_disk).transpose()?;
            Disk::take(&DiskArg { path, class })
        };
        let taken = tokio::task::spawn_blocking(take).await;
        let failed = |e: String| conflict(format!("disk {} cannot be added: {e}", ask.path));
        taken.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(format!("{e:#}")))
    }

    /// Has the disk served and known; its id and capacity.
    async fn bring_in(&self, position: usize, disk: Disk, superblock: Superblock) -> Outcome<(DiskId, u64)> {
        let path = disk.path.clone();
        self.disks.borrow_mut().insert(position, disk);
        let add =
            |done| Command::AddDisk { position, path: path.clone(), superblock: Box::new(superblock.clone()), done };
        let mut capacity = 0;
        for part in self.cores.ask_all(add).await {
            capacity += part.map_err(|why| conflict(format!("disk {} cannot be used: {why}", path.display())))?;
        }
        self.register_again().await?;
        let id = self.joined().ids().get(&position).copied();
        let id = id.ok_or_else(|| Problem::new(ProblemKind::Internal, "the disk got no id"))?;
        self.cores.ask_all(|done| Command::ServeDisk { position, disk: id, done }).await;
        Ok((id, capacity))
    }

    /// Tells the cluster which disks there are now.
    pub(super) async fn register_again(&self) -> Outcome<()> {
        let internal = |e: anyhow::Error| Problem::new(ProblemKind::Internal, format!("{e:#}"));
        let cores = self.cores.report().await;
        let described = self.disks.borrow().describe(&cores).map_err(internal)?;
        let request = self.introduction(&described).await.map_err(internal)?;
        let registered = self.meta.register(&request).await?;
        let joined = self.disks.borrow_mut().settle(&registered, &described).map_err(internal)?;
        *self.node.borrow_mut() = Some(joined);
        Ok(())
    }

    /// The cores let go of a disk, and so does the daemon.
    pub(super) async fn let_go(&self, position: usize) -> Option<Disk> {
        self.cores.ask_all(|done| Command::RemoveDisk { position, done }).await;
        let disk = self.disks.borrow_mut().remove(position);
        if let Some(joined) = &mut *self.node.borrow_mut() {
            joined.disks.remove(&position);
        }
        disk
    }

    /// Lets go of a disk that holds nothing, or is broken.
    pub(super) async fn remove_disk(&self, id: DiskId) -> Outcome<RemovedDisk> {
        let _one = self.changing_disks.lock().await;
        let joined = self.joined_or_unavailable()?;
        let position = joined.disks.iter().find(|(_, d)| d.id == id).map(|(position, _)| *position);
        let position = position.ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("disk {id} is not one of node '{}'", self.args.name))
        })?;
        if !self.is_broken(position).await {
            self.check_empty(id).await?;
        }
        let Some(disk) = self.let_go(position).await else {
            return Err(Problem::new(ProblemKind::Internal, format!("disk {id} has no place")));
        };
        let path = disk.path.display().to_string();
        if let Err(e) = self.disks.borrow_mut().forget(&disk) {
            warn!("{e:#}; disk {path} will be taken again at the next start");
        }
        info!("disk {path} ({id}) was removed");
        if let Err(problem) = self.register_again().await {
            warn!(
                "the cluster was not told that disk {path} is gone: {problem}; it hears so at the daemon's next start"
            );
        }
        let note = self.named_in_vain(&disk.path).map(|path| {
            let path = path.display();
            format!(
                "The daemon was started with `disk` {path}: take that out of /etc/levee/levee-stored.toml, or off its command line"
            )
        });
        Ok(RemovedDisk { disk: id, path, note })
    }

    /// The path that the command line names for a disk that has been removed: where it was, or, if names have shifted, one at which there
    /// is none.
    fn named_in_vain(&self, was: &Path) -> Option<&Path> {
        let disks = self.disks.borrow();
        let named = self.args.disk.iter().map(|named| named.path.as_path());
        let empty: Vec<&Path> = named.filter(|path| !disks.used_paths().any(|p| p == path)).collect();
        empty.iter().find(|path| **path == was).or(empty.first()).copied()
    }

    async fn is_broken(&self, position: usize) -> bool {
        let cores = self.cores.report().await;
        self.disks.borrow().get(position).is_some_and(is_missing)
            || cores.iter().filter_map(|c| c.disks.get(&position)).any(|share| share.failed.is_some())
    }

    /// Sees to it that the disk holds no replicas and that none are placed on it any more.
    async fn check_empty(&self, id: DiskId) -> Outcome<()> {
        let known = self.meta.disk(id).await?;
        let Some(disk) = known else { return Ok(()) };
        refuse_full(&disk)?;
        if disk.state != DiskState::InService {
            return Ok(());
        }
        let reason = Some("it is being removed".to_string());
        self.meta.set_disk_state(id, &SetDiskState { state: DiskState::Draining, reason }).await?;
        match self.meta.disk(id).await? {
            Some(disk) => refuse_full(&disk),
            None => Ok(()),
        }
    }
}

fn is_missing(disk: &Disk) -> bool {
    matches!(disk.state, Standing::Missing { .. })
}

fn refuse_full(disk: &DiskInfo) -> Outcome<()> {
    match disk.replicas {
        0 => Ok(()),
        n => Err(conflict(format!(
            "disk {} ({}) holds {n} replicas: drain it, and remove it when it is empty",
            disk.id, disk.path
        ))),
    }
}
