//! The control thread: makes what is, what the meta server says should be, and reports it.
//!
//! The data path never waits for it, except to allocate chunks.

mod admin;
mod allocate;
mod background;
mod change;
mod cores;
mod deletes;
mod disks;
mod intent;
mod inventory;
mod join;
mod maps;
mod members;
mod meta;
mod metrics;
mod parts;
mod report;
mod request_id;
mod systemd;
mod versions;

use crate::args::RunArgs;
use crate::asks::Asked;
use anyhow::{Context, Result, bail};
use background::Background;
pub use cores::{Cores, QUEUE};
use deletes::Deletes;
pub use join::Disks;
use levee_core::shared::SharedBlocks;
use levee_proto::api::*;
use levee_proto::{DiskId, Epoch, NodeId, VolumeId};
use levee_vhost::Access;
use members::Members;
use meta::{MetaClient, MetaError};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::{error, info, warn};
use uuid::Uuid;

/// Before a meta server that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// A message about the same trouble is repeated no more often.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The control thread's state.
pub struct Control {
    args: RunArgs,
    /// Who may connect to sockets.
    access: Access,
    meta: MetaClient,
    cores: Cores,
    incarnation: Uuid,
    started: Instant,
    node: RefCell<Option<Joined>>,
    /// Held to the end: others are to find them locked until this process is dead.
    disks: RefCell<Disks>,
    /// Held by whoever adds or removes one.
    changing_disks: tokio::sync::Mutex<()>,
    /// Volumes that cores have taken.
    served: RefCell<BTreeMap<VolumeId, Serving>>,
    /// Replicas that nothing needs any more.
    deletes: Deletes,
    /// What is done beside serving guests.
    background: Background,
    /// The newest state of the meta servers that an intent came of.
    state: Cell<StateMark>,
    /// The generation in which the meta servers were told what the disks hold.
    told_generation: Cell<u64>,
    /// Of these, those whose gateways have stopped by themselves.
    stopped: RefCell<BTreeSet<VolumeId>>,
    /// There are some.
    stopping: Notify,
    /// Volumes that were given to a core and that it did not take.
    not_opened: RefCell<BTreeMap<VolumeId, VolumeReport>>,
    /// Why volumes were not opened, as the log says.
    said: RefCell<BTreeMap<VolumeId, String>>,
    /// Served volumes that cannot get chunks for now, and why.
    without_chunks: RefCell<BTreeMap<VolumeId, String>>,
    /// Versions of served volumes.
    told_versions: versions::Told,
    /// What the cores remember of snapshots.
    shared: Option<SharedBlocks>,
}

#[derive(Clone)]
struct Joined {
    cluster: Uuid,
    node: NodeId,
    /// By position.
    disks: BTreeMap<usize, JoinedDisk>,
}

/// What a volume is served for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Serving {
    attachment: u64,
    epoch: Epoch,
}

/// A disk of this node.
#[derive(Clone)]
struct JoinedDisk {
    id: DiskId,
    /// Why it could not be used when the daemon started, if so.
    missing: Option<String>,
}

/// Another daemon is the node that this one says it is: this one must not serve.
#[derive(Debug)]
pub struct NotTheNode(String);

impl std::fmt::Display for NotTheNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the cluster does not take this daemon for the node: {}", self.0)
    }
}

impl std::error::Error for NotTheNode {}

/// What the control thread hears from the cores.
pub struct FromCores {
    pub asked: Asked,
    pub news: async_channel::Receiver<()>,
}

/// Runs until a signal asks to stop.
pub async fn run(
    args: RunArgs,
    disks: Disks,
    cores: Cores,
    from_cores: FromCores,
    shared: Option<SharedBlocks>,
) -> Result<()> {
    let control = Rc::new(Control {
        meta: MetaClient::new(Members::load(&args.meta, &args.dir)),
        access: args.access().map_err(anyhow::Error::msg)?,
        args,
        cores,
        incarnation: Uuid::new_v4(),
        started: Instant::now(),
        node: RefCell::default(),
        disks: RefCell::new(disks),
        changing_disks: tokio::sync::Mutex::default(),
        served: RefCell::default(),
        deletes: Deletes::default(),
        background: Background::default(),
        state: Cell::default(),
        told_generation: Cell::default(),
        stopped: RefCell::default(),
        stopping: Notify::new(),
        not_opened: RefCell::default(),
        said: RefCell::default(),
        without_chunks: RefCell::default(),
        told_versions: versions::Told::default(),
        shared,
    });
    let admin = admin::listen(control.clone()).await?;
    systemd::ready();
    let work = async {
        control.join().await?;
        let FromCores { asked, news } = from_cores;
        let serve = async {
            tokio::join!(
                control.carry_out_deletes(),
                control.allocate(&asked.allocate),
                control.change(&asked.change),
                control.report_versions(&asked.versions),
                control.find_parents(&asked.parent),
            )
        };
        let replaced = tokio::select! {
            other = control.beat(&news) => other,
            other = control.follow_intent() => other,
            _ = serve => return Ok(()),
        };
        error!("{replaced}: stopping");
        bail!(replaced)
    };
    let mut asked = false;
    let ended: Result<()> = tokio::select! {
        done = work => done,
        () = control.follow_members() => Ok(()),
        never = control.sign() => match never {},
        done = admin => done,
        name = signal() => {
            info!("{name}: stopping");
            asked = true;
            Ok(())
        }
    };
    control.cores.stop().await;
    if asked {
        control.say_goodbye().await;
    }
    info!("stopped");
    ended
}

async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

impl Control {
    fn joined(&self) -> Joined {
        self.node.borrow().clone().expect("only used once joined")
    }
}

/// Says the same thing only now and then.
struct Complaint(Option<Instant>);

impl Complaint {
    fn new() -> Complaint {
        Complaint(None)
    }

    fn say(&mut self, what: &str) {
        if self.0.is_none_or(|at| at.elapsed() > COMPLAIN) {
            warn!("{what}");
            self.0 = Some(Instant::now());
        }
    }
}

/// Checks what can be checked before anything is started: addresses that are free, folders that can be made.
pub fn check(args: &RunArgs) -> Result<()> {
    if !is_valid_name(&args.name) {
        bail!("'{}' cannot name a node: use letters, digits, '.', '_' and '-', at most {MAX_NAME} of them", args.name);
    }
    for address in args.data.iter().chain([&args.admin]) {
        if let Err(e) = std::net::TcpListener::bind(address) {
            bail!("cannot listen on {address}: {e}; stop the process that uses it or choose another port");
        }
    }
    args.access().map_err(anyhow::Error::msg)?;
    let longest = intent::numbered_socket(&args.sockets, levee_proto::VolumeId(u64::MAX)).as_os_str().len();
    if longest > intent::MAX_SOCKET_PATH {
        let (folder, most) =
            (args.sockets.display(), intent::MAX_SOCKET_PATH + args.sockets.as_os_str().len() - longest);
        bail!("--sockets {folder} is too long a path for sockets in it: choose one of at most {most} bytes");
    }
    std::fs::create_dir_all(&args.sockets).with_context(|| format!("cannot create {}", args.sockets.display()))?;
    if args.meta.iter().any(|u| !u.starts_with("http://")) {
        bail!("--meta takes URLs such as http://10.0.0.1:7400, separated by commas");
    }
    Ok(())
}
