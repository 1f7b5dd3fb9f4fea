//! The command line's grammar and its help.

mod cluster;
#[cfg(test)]
mod guide_tests;
mod image;
mod init;
mod meta;
mod node;
mod operate;
mod snapshot;
mod top;
mod transfer;

pub use cluster::Cluster;
pub use image::{Image, ImageImport};
pub use init::{Init, InitCheck, InitCommand, InitPlan};
pub use meta::Meta;
pub use node::{Disk, Drain, How, NewDisk, Node};
pub use operate::{Events, Maintenance, Rebalance};
pub use snapshot::Snapshot;
pub use top::Top;
pub use transfer::{FileFormat, Place, SourceFile, TargetFile};

use crate::limits::{MAX_CORES, MAX_DISKS_PER_NODE, MAX_NODES};
use crate::local::Network;
use crate::values;
use clap::{Args, Parser, Subcommand};
use levee_proto::api::{MAX_FAMILY, SnapshotName};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "levee",
    version,
    about = "Elastic block storage for virtual machines",
    long_about = "Elastic block storage for virtual machines: volumes live in several copies on the disks of many servers.",
    after_help = "Examples:
  levee up --detach                     start a cluster on this machine
  levee volume create vm1 --size 10G    create a volume
  levee volume attach vm1               serve it to virtual machines on a node
  levee qemu vm1                        show the QEMU command that uses it

Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The cluster's meta servers [default: $LEVEE_CLUSTER, else the cluster in --dir, else http://127.0.0.1:7400]
    #[arg(long, global = true, value_name = "URL[,URL...]", value_delimiter = ',', value_parser = values::url)]
    pub cluster: Vec<String>,
    /// Folder of a cluster on this machine that `levee up` started [default: ./levee-data]
    #[arg(long, global = true)]
    pub dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine, or what is missing of it
    Up(Up),
    /// Stop the cluster on this machine; its data is kept
    Down(Down),
    /// Write the configuration of a cluster of several hosts, or check whether a host is ready
    Init(Box<Init>),
    /// Show how the cluster does
    #[command(after_help = "Examples:
  levee status
  levee --cluster http://10.0.0.1:7400,http://10.0.0.2:7400 status
  levee status --json")]
    Status,
    /// Find out what is wrong, and what is being done about it
    #[command(after_help = "\
Exit status: 0 all is well, 1 there are problems.

Examples:
  levee doctor
  levee doctor --json")]
    Doctor,
    /// Show the busiest volumes, chunks, disks and nodes
    Top(Top),
    /// Create, show, attach and check volumes
    #[command(subcommand)]
    Volume(Volume),
    /// Take snapshots of volumes, list and delete them, go back to one
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Make images of disks in files, from which volumes continue; write them to files
    #[command(subcommand)]
    Image(Image),
    /// Show and set what the whole cluster may promise and take
    #[command(subcommand)]
    Cluster(Cluster),
    /// Show the storage nodes, empty them, take them out of the cluster
    /// Show the meta servers, add, remove and replace them
    #[command(subcommand)]
    Meta(Meta),
    /// Show the storage nodes
    #[command(subcommand)]
    Node(Node),
    /// Show the nodes' disks, add, empty, replace and remove them
    #[command(subcommand)]
    Disk(Disk),
    /// Move copies so that disks are used alike
    #[command(subcommand)]
    Rebalance(Rebalance),
    /// Have nothing repaired while somebody works on the machines
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Show what happened
    Events(Events),
    /// Print, or run, the QEMU command that uses a volume
    Qemu(Qemu),
}

#[derive(Args)]
#[command(after_help = "\
A second `levee up` in the same folder starts what is not running and keeps ports, disks and data;
a larger --nodes adds nodes. Meta server I listens on port BASE+I-1; node J has its admin endpoint
on port BASE+100+10*(J-1) and its cores on the ports after that.

Examples:
  levee up                              three nodes and a meta server; Ctrl-C stops them
  levee up --detach --dir /srv/levee    the same in the background; `levee down` stops them
  levee up --metas 3 --nodes 5 --disks-per-node 2 --disk-size 100G
  levee up --detach node-2              start just that daemon again")]
pub struct Up {
    /// Start only these daemons, such as meta-1 or node-2 [default: all that do not run]
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub names: Vec<String>,
    /// Storage nodes [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NODES)))]
    pub nodes: Option<u16>,
    /// Meta servers: 1, 3 or 5 [default: 1]
    #[arg(long, value_parser = ["1", "3", "5"])]
    pub metas: Option<String>,
    /// First port [default: 7400]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1024..))]
    pub base_port: Option<u16>,
    /// Disks of each node: files in its folder [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_DISKS_PER_NODE)))]
    pub disks_per_node: Option<u16>,
    /// Size of each disk [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = values::whole_blocks)]
    pub disk_size: Option<u64>,
    /// Cores of each node [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_CORES)))]
    pub cores: Option<u16>,
    /// How long a node may be silent before copies of its data are made elsewhere; meta servers that run
    /// keep theirs until they are started again [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub repair_after: Option<u64>,
    /// Leave the cluster running in the background
    #[arg(long)]
    pub detach: bool,
    /// Start each daemon in a network namespace `PREFIX-DAEMON` that is there, with address SUBNET.J for
    /// node-J and SUBNET.200+I for meta-I. For tests that cut links.
    #[arg(long, hide = true, value_name = "PREFIX=A.B.C", value_parser = values::network)]
    pub network: Option<Network>,
    /// How long the daemons may take to be ready
    #[arg(long, value_parser = values::duration, default_value = "60s")]
    pub timeout: Duration,
}

#[derive(Args)]
#[command(after_help = "Examples:
  levee down                            stop everything in ./levee-data
  levee down node-2                     stop one daemon; `levee up` starts it again
  levee down node-2 --kill              the same without warning, as if it crashed
  levee down --dir /srv/levee --destroy delete the cluster and everything stored in it")]
pub struct Down {
    /// Stop only these daemons, such as meta-1 or node-2 [default: all]
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub names: Vec<String>,
    /// How long a daemon may take to stop before it is killed
    #[arg(long, value_parser = values::duration, default_value = "20s")]
    pub timeout: Duration,
    /// Kill at once
    #[arg(long)]
    pub kill: bool,
    /// Delete the cluster's data as well
    #[arg(long, conflicts_with = "names")]
    pub destroy: bool,
}

#[derive(Subcommand)]
pub enum Volume {
    /// Create a volume, or many that continue from a snapshot
    Create(Create),
    /// List all volumes
    #[command(after_help = "Examples:
  levee volume list
  levee volume list --json")]
    List,
    /// Show one volume, and how much of it is in use, or a snapshot
    #[command(after_help = "\
Its gateway counts blocks of 4 KiB, exactly as long as nothing is written:
  written     blocks that read as data; those never written, or discarded, do not
  exclusive   of these, those that no snapshot of the volume and no ancestor has as well
  shared      of these, the others
  stored      blocks with data in the volume's own chunks, those that only its snapshots show included
  on disks    stored, times copies

Examples:
  levee volume show vm1
  levee volume show vm1 --measure       also if nobody uses it
  levee volume show vm1@monday")]
    Show {
        /// Name of the volume, or VOLUME@NAME of a snapshot
        #[arg(value_parser = values::attachable)]
        name: String,
        #[command(flatten)]
        measure: Measure,
    },
    /// Delete volumes and their data; they must be detached, and have no snapshots
    #[command(after_help = "\
With several names or --count each volume is deleted or refused by itself; exit status 1 if some were refused.

Examples:
  levee volume delete vm1
  levee volume delete vm1 vm2
  levee volume delete desk --count 1000         desk-1 to desk-1000")]
    Delete {
        /// Names of the volumes
        #[arg(value_name = "NAME", required = true, value_parser = values::family_name)]
        names: Vec<String>,
        /// Delete NAME-1 to NAME-N; `{}` in NAME stands for the number
        #[arg(long, value_name = "N", value_parser = count())]
        count: Option<u32>,
        /// First number
        #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "count")]
        first: u32,
    },
    /// Make a volume larger, in use or not
    #[command(after_help = "Examples:
  levee volume resize vm1 --size 20G
  levee volume resize vm1 --size 5G --allow-shrink      only where nothing was ever written")]
    Resize {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        name: String,
        /// New size, such as 10G or 512M: a multiple of 4 KiB
        #[arg(long, value_parser = values::volume_size)]
        size: u64,
        /// Allow less than it has; it must be detached, and what is cut off unused
        #[arg(long)]
        allow_shrink: bool,
    },
    /// Make a clone independent of the snapshot that it continues from
    #[command(after_help = "\
Copies into it all that it does not have itself. It may be in use meanwhile, but must not have snapshots.

Example:
  levee volume flatten vm2")]
    Flatten {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        name: String,
        /// How long to wait until it is done
        #[arg(long, value_parser = values::duration, default_value = "1h")]
        timeout: Duration,
    },
    /// Let a volume be opened again whose copies refuse every gateway because something has fenced them too high
    #[command(after_help = "\
The daemons' logs then say that an epoch is below a much higher one. The volume has to be detached. What was deposed before stays so, and
nothing that was written is changed.

Example:
  levee volume detach vm1 && levee volume recover-epochs vm1 && levee volume attach vm1")]
    RecoverEpochs {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        name: String,
    },
    /// Use a volume again without what was lost of it together with the meta servers
    #[command(after_help = "\
After `levee-metad recover` a volume is held that was given chunks which the meta servers do not know any more: `levee doctor` names
it. What was written there is not found again; it reads as zeros, or as what the volume was cloned from.

Example:
  levee volume accept-loss vm1")]
    AcceptLoss {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        name: String,
    },
    /// Serve a volume on a node, and wait until it is ready for a virtual machine
    #[command(after_help = "\
A snapshot is attached as VOLUME@NAME, read-only, whether its volume is in use or not, and is not deleted meanwhile.

Examples:
  levee volume attach vm1
  levee volume attach vm1 --node node-2 --timeout 1m
  levee volume attach vm1@monday        a disk that can only be read
  levee volume attach vm1 --json        prints volume, node, epoch, socket (a path) and read_only")]
    Attach {
        /// Name of the volume, or VOLUME@NAME of a snapshot
        #[arg(value_parser = values::attachable)]
        name: String,
        /// Node that serves it [default: the meta server picks one]
        #[arg(long, value_parser = values::name)]
        node: Option<String>,
        /// How long to wait until it is served
        #[arg(long, value_parser = values::duration, default_value = "30s")]
        timeout: Duration,
    },
    /// Stop serving a volume, or a snapshot; refused while a guest is connected
    #[command(after_help = "Examples:
  levee volume detach vm1
  levee volume detach vm1@monday")]
    Detach {
        /// Name of the volume, or VOLUME@NAME of a snapshot
        #[arg(value_parser = values::attachable)]
        name: String,
        /// Take it away from the guest that is connected
        #[arg(long)]
        force: bool,
    },
    /// Fill a volume with the disk in a file; the volume must be detached
    #[command(after_help = "\
This runs on a machine with a storage daemon: the volume is attached there for the time of the import.
What is zero in the file takes no space in the volume. A file is taken for qcow2 if it begins as such.

Examples:
  levee volume create vm1 --size 20G
  levee volume import debian-12.qcow2 vm1
  levee volume import disk.raw vm1 --overwrite")]
    Import {
        #[command(flatten)]
        source: SourceFile,
        /// Name of the volume
        #[arg(value_parser = values::name)]
        volume: String,
        /// Replace what the volume holds
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Write the disk of a volume to a file, or that of a snapshot; a volume must be detached
    #[command(after_help = "\
This runs on a machine with a storage daemon: the volume, or the snapshot, is attached there for the time of the export.
A snapshot is exported while its volume is in use.

Examples:
  levee volume export vm1 vm1.qcow2
  levee volume export vm1 vm1.raw --format raw
  levee volume export vm1@monday monday.qcow2")]
    Export {
        /// Name of the volume, or VOLUME@NAME of a snapshot
        #[arg(value_parser = values::attachable)]
        volume: String,
        #[command(flatten)]
        target: TargetFile,
        #[command(flatten)]
        place: Place,
    },
    /// Compare all copies of a volume, block by block
    #[command(after_help = "\
A volume that is not attached is attached for the time of the check.

Examples:
  levee volume verify vm1
  levee volume verify vm1 --json        exit status 1 if copies differ")]
    Verify {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        name: String,
        /// How long to wait until the volume is served
        #[arg(long, value_parser = values::duration, default_value = "30s")]
        timeout: Duration,
    },
}

#[derive(Args)]
#[command(after_help = "\
With --from the volumes continue from a snapshot or an image: no data is copied, and --size, --copies and --min-copies are those of the
snapshot unless given. With --count they are NAME-1 to NAME-N, or have the number where NAME has {}.

Examples:
  levee volume create vm1 --size 10G
  levee volume create scratch --size 512M --copies 2 --min-copies 1
  levee volume create vm2 --from vm1@monday
  levee volume create vm3 --from debian-12 --size 20G
  levee volume create desk --from golden@v3 --count 1000        desk-1 to desk-1000
  levee volume create 'vm-{}-root' --from golden@v3 --count 10 --first 11")]
pub struct Create {
    /// Name of the volume
    #[arg(value_parser = values::family_name)]
    pub name: String,
    /// Size, such as 10G or 512M: a multiple of 4 KiB
    #[arg(long, value_parser = values::volume_size, required_unless_present = "from")]
    pub size: Option<u64>,
    /// Copies of every block [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub copies: Option<u8>,
    /// Copies that must be durable before a write is answered [default: 2, or 1 with a single copy]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub min_copies: Option<u8>,
    /// Only on disks of this class [default: on all]
    #[arg(long, conflicts_with = "from")]
    pub class: Option<node::Class>,
    /// Snapshot or image to continue from
    #[arg(long, value_name = "VOLUME@NAME|IMAGE", value_parser = values::origin)]
    pub from: Option<SnapshotName>,
    /// How many volumes
    #[arg(long, value_name = "N", requires = "from", value_parser = count())]
    pub count: Option<u32>,
    /// First number
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "count")]
    pub first: u32,
}

#[derive(Args)]
pub struct Measure {
    /// Attach the volume, if it is not, for as long as it takes to count what is in use
    #[arg(long)]
    measure: bool,
    /// How long to wait until it is served for that
    #[arg(long, requires = "measure", value_parser = values::duration, default_value = "30s")]
    timeout: Duration,
}

impl Measure {
    /// How long a volume that is attached for it is waited for; `None`: it is not to be attached.
    pub fn wait(&self) -> Option<Duration> {
        self.measure.then_some(self.timeout)
    }
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_FAMILY))
}

#[derive(Args)]
#[command(after_help = "Examples:
  levee qemu vm1
  levee qemu vm1@monday                 a disk that the guest can only read
  levee qemu vm1 --memory 4G --cpus 4 -- -nographic
  levee qemu vm1 --run -- -drive file=boot.qcow2,if=virtio -nographic")]
pub struct Qemu {
    /// Volume to use, or VOLUME@NAME of a snapshot; it must be attached on this machine
    #[arg(value_parser = values::attachable)]
    pub volume: String,
    /// Start QEMU
    #[arg(long)]
    pub run: bool,
    /// The guest's memory
    #[arg(long, value_name = "SIZE", value_parser = values::whole_blocks, default_value = "1G")]
    pub memory: u64,
    /// The guest's processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub cpus: u16,
    /// Queues of the disk [default: one per processor, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
    /// The QEMU program
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub args: Vec<OsString>,
}
