//! One core of the daemon: its shards, its replicas, its links, and the volumes it serves.
//!
//! The control thread tells it what to do through a bounded channel; everything else stays here.

use crate::links::{AllocateAsk, Links, ReplicaLink, core_of_shard};
use crate::ports::{GlommioDisk, GlommioRuntime};
use crate::stats::IoSnapshot;
use crate::volume::{ServeOptions, Volume};
use levee_core::replica::{DiskShards, ReplicaService};
use levee_core::store::{Options, Shard, Superblock};
use levee_proto::api::{OpenedVolume, PeerInfo, ReplicaRef, VerifyEvent, VolumeReport};
use levee_proto::{DiskId, NodeId, VolumeId};
use levee_rdma::{Identity, Server, ServerLimits};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tracing::{error, info, warn};

type DaemonShard = Shard<GlommioDisk, GlommioRuntime>;
type Reply<T> = async_channel::Sender<T>;

/// What the control thread asks of a core.
pub enum Command {
    /// The cluster knows us: answer other daemons from now on.
    Join {
        cluster: [u8; 16],
        node: NodeId,
        disks: Vec<DiskId>,
        done: Reply<Result<(), String>>,
    },
    Peers(Arc<Vec<PeerInfo>>),
    Open {
        volume: Box<OpenedVolume>,
        serve: ServeOptions,
    },
    Close {
        volume: VolumeId,
        done: Reply<()>,
    },
    Delete {
        replicas: Vec<ReplicaRef>,
        done: Reply<Vec<ReplicaRef>>,
    },
    Report {
        done: Reply<CoreReport>,
    },
    Verify {
        volume: VolumeId,
        events: Reply<VerifyEvent>,
    },
    /// Close everything; the core ends.
    Stop {
        done: Reply<()>,
    },
}

/// How a core does.
#[derive(Default)]
pub struct CoreReport {
    pub volumes: Vec<VolumeStatus>,
    /// Per disk, in the order of the command line: this core's share.
    pub disks: Vec<DiskShare>,
}

/// A core's share of a disk, bytes.
#[derive(Default)]
pub struct DiskShare {
    pub capacity: u64,
    pub used: u64,
}

/// One volume of a core.
pub struct VolumeStatus {
    pub name: String,
    pub report: VolumeReport,
    /// One per kind of request.
    pub io: Vec<IoSnapshot>,
}

/// What a core is started with.
pub struct CoreConfig {
    pub core: u16,
    pub cores: usize,
    pub disks: Vec<(PathBuf, Superblock)>,
    pub listen: SocketAddr,
    pub commands: async_channel::Receiver<Command>,
    pub allocate: async_channel::Sender<AllocateAsk>,
    pub news: async_channel::Sender<()>,
}

/// What a core has once the cluster knows it.
struct Joined {
    node: NodeId,
    replicas: ReplicaService<GlommioDisk, GlommioRuntime>,
    links: Links,
    server: Server,
}

struct Core {
    config: CoreConfig,
    /// Per disk, by shard number.
    shards: Vec<BTreeMap<u16, DaemonShard>>,
    joined: RefCell<Option<Joined>>,
    volumes: RefCell<BTreeMap<VolumeId, Volume>>,
}

/// Recovers the core's shards, says so through `ready`, and serves until told to stop.
pub async fn run(config: CoreConfig, ready: async_channel::Sender<Result<(), String>>) {
    let shards = match open_shards(&config).await {
        Ok(shards) => shards,
        Err(why) => {
            let _ = ready.send(Err(why)).await;
            return;
        }
    };
    let commands = config.commands.clone();
    let core = Rc::new(Core { config, shards, joined: RefCell::default(), volumes: RefCell::default() });
    let _ = ready.send(Ok(())).await;
    while let Ok(command) = commands.recv().await {
        if let Command::Stop { done } = command {
            core.stop().await;
            let _ = done.send(()).await;
            return;
        }
        core.clone().carry_out(command).await;
    }
}

async fn open_shards(config: &CoreConfig) -> Result<Vec<BTreeMap<u16, DaemonShard>>, String> {
    let mut all = vec![];
    for (path, superblock) in &config.disks {
        let mut mine = BTreeMap::new();
        for shard in (0..superblock.shards).filter(|s| core_of_shard(*s, config.cores) == config.core) {
            let fail = |e: &dyn std::fmt::Display| format!("disk {}, shard {shard}: {e}", path.display());
            let disk = GlommioDisk::open(path).await.map_err(|e| fail(&e))?;
            let opened = Shard::open(disk, GlommioRuntime::new(), superblock, shard, Options::default()).await;
            let (opened, report) = opened.map_err(|e| fail(&e))?;
            if report.is_clean() {
                info!("disk {}, shard {shard}: {report}", path.display());
            } else {
                error!("disk {}, shard {shard}: {report}", path.display());
            }
            mine.insert(shard, opened);
        }
        all.push(mine);
    }
    Ok(all)
}

impl Core {
    async fn carry_out(self: Rc<Self>, command: Command) {
        match command {
            Command::Join { cluster, node, disks, done } => {
                let joined = self.join(cluster, node, &disks).await;
                let _ = done.send(joined).await;
            }
            Command::Peers(peers) => {
                if let Some(joined) = &*self.joined.borrow() {
                    joined.links.set_peers(&peers);
                }
            }
            Command::Open { volume, serve } => self.open(*volume, serve),
            Command::Close { volume, done } => {
                let volume = self.volumes.borrow_mut().remove(&volume);
                glommio::spawn_local(async move {
                    if let Some(volume) = volume {
                        volume.close("the volume was detached").await;
                    }
                    let _ = done.send(()).await;
                })
                .detach();
            }
            Command::Delete { replicas, done } => {
                glommio::spawn_local(async move { self.delete(replicas, done).await }).detach();
            }
            Command::Report { done } => {
                let _ = done.send(self.report()).await;
            }
            Command::Verify { volume, events } => {
                let Some(volume) = self.volumes.borrow().get(&volume).cloned() else { return };
                glommio::spawn_local(async move { volume.verify(events).await }).detach();
            }
            Command::Stop { .. } => unreachable!("handled by the caller"),
        }
    }

    async fn join(&self, cluster: [u8; 16], node: NodeId, ids: &[DiskId]) -> Result<(), String> {
        let mut disks = BTreeMap::new();
        for ((id, mine), (_, superblock)) in ids.iter().zip(&self.shards).zip(&self.config.disks) {
            disks.insert(*id, DiskShards { total: superblock.shards, mine: mine.clone() });
        }
        let replicas = ReplicaService::new(GlommioRuntime::new(), disks);
        let service = Rc::new(ReplicaLink(replicas.clone()));
        let core = self.config.core;
        let listen = self.config.listen.to_string();
        let identity = Identity { cluster, node, core };
        let server = Server::listen(&listen, identity, service.clone(), ServerLimits::default());
        let server = server.await.map_err(|e| e.to_string())?;
        let links = Links::new(cluster, node, core, service, self.config.allocate.clone());
        *self.joined.borrow_mut() = Some(Joined { node, replicas, links, server });
        Ok(())
    }

    fn open(&self, opened: OpenedVolume, serve: ServeOptions) {
        let joined = self.joined.borrow();
        let Some(joined) = joined.as_ref() else { return };
        if let Err(why) = levee_core::gateway::check(&opened) {
            error!(volume = %opened.name, "the meta server's description is refused: {why}");
            return;
        }
        let id = opened.id;
        let volume = Volume::open(opened, joined.node, joined.links.clone(), serve, self.config.news.clone());
        if let Some(old) = self.volumes.borrow_mut().insert(id, volume) {
            warn!(volume = %old.name(), "opened again");
            glommio::spawn_local(async move { old.close("the volume was opened again").await }).detach();
        }
    }

    async fn delete(&self, refs: Vec<ReplicaRef>, done: Reply<Vec<ReplicaRef>>) {
        let replicas = self.joined.borrow().as_ref().map(|j| j.replicas.clone());
        let mut gone = vec![];
        if let Some(replicas) = replicas {
            for r in refs {
                match replicas.delete(r.disk, r.chunk, r.replica).await {
                    Ok(()) => gone.push(r),
                    Err(e) => warn!("replica {} cannot be deleted: {e}", r.replica),
                }
            }
        }
        let _ = done.send(gone).await;
    }

    fn report(&self) -> CoreReport {
        let status =
            |v: &Volume| VolumeStatus { name: v.name().to_string(), report: v.report(), io: v.stats().snapshot() };
        let add = |sum: DiskShare, shard: &DaemonShard| {
            let usage = shard.usage();
            DiskShare { capacity: sum.capacity + usage.capacity, used: sum.used + usage.used }
        };
        let sum = |shards: &BTreeMap<u16, DaemonShard>| shards.values().fold(DiskShare::default(), add);
        CoreReport {
            volumes: self.volumes.borrow().values().map(status).collect(),
            disks: self.shards.iter().map(sum).collect(),
        }
    }

    async fn stop(&self) {
        let volumes = std::mem::take(&mut *self.volumes.borrow_mut());
        for volume in volumes.values() {
            volume.close("the daemon stops").await;
        }
        let joined = self.joined.borrow_mut().take();
        if let Some(joined) = joined {
            joined.server.stop().await;
        }
        for shard in self.shards.iter().flat_map(|s| s.values()) {
            if let Err(e) = shard.close().await {
                warn!("a shard was not closed cleanly: {e}; it recovers at the next start");
            }
        }
    }
}
