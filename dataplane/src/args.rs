//! The command line of `levee-stored`.

use clap::{Args, Parser, Subcommand};
use levee_proto::api::{DiskClass, MAX_NAME, is_valid_name};
use levee_proto::units::parse_size;
use levee_vhost::Access;
use nix::unistd::{Gid, Group, Uid, User};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Levee's storage daemon: keeps replicas on this host's disks, and serves volumes to its VMs.
#[derive(Debug, Parser)]
#[command(name = "levee-stored", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  levee-stored format /srv/levee/disk-1 --size 100G
  levee-stored run --name host-1 --meta http://10.0.0.1:7400 --dir /var/lib/levee --disk /srv/levee/disk-1 \\
      --admin 10.0.0.11:7500 --data 10.0.0.11:7501 --sockets /run/levee";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a file or block device a Levee disk. What is on it is lost.
    Format(FormatArgs),
    /// Run the daemon until it is told to stop.
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levee-stored format /srv/levee/disk-1 --size 100G --cores 2")]
pub struct FormatArgs {
    /// File or block device. A file is created; one that exists must hold nothing but zeros.
    pub path: PathBuf,
    /// Size of the file, such as 100G. Not given for a block device, or a file that has its size.
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Cores that will share the disk: one log for each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cores: u16,
    /// Also a device or file that holds something: it is lost. A device that is mounted is never formatted.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  levee-stored run --name host-1 --meta http://10.0.0.1:7400 --dir /var/lib/levee --disk /srv/levee/disk-1 \\
      --admin 10.0.0.11:7500 --data 10.0.0.11:7501,10.0.0.11:7502 --sockets /run/levee
The same from a file, which packages install under /usr/share/doc/levee/examples with every option explained:
  levee-stored run --config /etc/levee/levee-stored.toml")]
pub struct RunArgs {
    /// File with options: TOML, one `name = value` a line. What is given here wins over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node, the same at every start.
    #[arg(long)]
    pub name: String,
    /// Meta servers: URLs, separated by commas. One that answers is enough: it names the others, and the daemon remembers them.
    #[arg(long, value_delimiter = ',', required = true, env = "LEVEE_CLUSTER")]
    pub meta: Vec<String>,
    /// Folder for the daemon's own state.
    #[arg(long)]
    pub dir: PathBuf,
    /// A formatted disk, such as /dev/sdb or /dev/sdb,class=hdd; repeat for several. The class, ssd or hdd, is found out if it is not
    /// given. Disks that were added while the daemon ran need not be named. None: the node only serves volumes.
    #[arg(long, value_name = "PATH[,class=ssd|hdd]")]
    pub disk: Vec<DiskArg>,
    /// The zone (building, power supply) that this node stands in: copies are put in different ones.
    #[arg(long, value_parser = domain)]
    pub zone: Option<String>,
    /// The rack that this node stands in.
    #[arg(long, value_parser = domain)]
    pub rack: Option<String>,
    /// Where the admin endpoint listens.
    #[arg(long)]
    pub admin: SocketAddr,
    /// Where each core listens for other daemons: one address per core, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub data: Vec<SocketAddr>,
    /// Folder for the sockets that virtual machines connect to.
    #[arg(long)]
    pub sockets: PathBuf,
    /// The user whom the sockets belong to, by name or number: they are for that user alone then. The daemon must be allowed to give
    /// files away. Without this and --socket-group, the umask decides.
    #[arg(long, value_name = "USER")]
    pub socket_owner: Option<String>,
    /// The group whose members may connect to the sockets, by name or number: one that the daemon is in.
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    /// Virtqueues offered to each virtual machine.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: u16,
    /// Memory for the data of guests' requests in flight, shared by all volumes of the host. What comes beyond it waits.
    #[arg(long, default_value = "512M", value_parser = memory)]
    pub guest_memory: u64,
    /// The same of each volume: half for reads, half for writes.
    #[arg(long, default_value = "32M", value_parser = memory)]
    pub volume_memory: u64,
    /// How long a core looks for new requests of a busy guest before it sleeps, microseconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub poll_us: u64,
    /// Memory for what clones have read of their images and snapshots, shared by all volumes of the host; 0 for none.
    #[arg(long, default_value = "256M", value_parser = parse_size)]
    pub shared_cache: u64,
}

impl RunArgs {
    /// Who may connect to volumes' sockets; an error if this host does not know them.
    pub fn access(&self) -> Result<Access, String> {
        let owner = self.socket_owner.as_deref().map(|name| match name.parse() {
            Ok(number) => Ok(Uid::from_raw(number)),
            Err(_) => known(User::from_name(name), "--socket-owner", name).map(|user| user.uid),
        });
        let group = self.socket_group.as_deref().map(|name| match name.parse() {
            Ok(number) => Ok(Gid::from_raw(number)),
            Err(_) => known(Group::from_name(name), "--socket-group", name).map(|group| group.gid),
        });
        Ok(Access { owner: owner.transpose()?, group: group.transpose()? })
    }
}

fn known<T>(found: nix::Result<Option<T>>, option: &str, name: &str) -> Result<T, String> {
    let found = found.map_err(|e| format!("{option} {name}: {e}"))?;
    found.ok_or_else(|| format!("{option} {name}: this host knows no such name"))
}

/// A disk as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArg {
    pub path: PathBuf,
    /// `None`: to be found out.
    pub class: Option<DiskClass>,
}

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<DiskArg, String> {
        let (path, class) = match text.rsplit_once(",class=") {
            Some((path, "ssd")) => (path, Some(DiskClass::Ssd)),
            Some((path, "hdd")) => (path, Some(DiskClass::Hdd)),
            Some((_, other)) => return Err(format!("'{other}' is no class of disk: write class=ssd or class=hdd")),
            None => (text, None),
        };
        match path.is_empty() {
            true => Err("a disk needs a path".into()),
            false => Ok(DiskArg { path: path.into(), class }),
        }
    }
}

/// Memory in which at least a few pieces of requests fit.
fn memory(text: &str) -> Result<u64, String> {
    let least = 8 * levee_vhost::limits::PIECE_LEN;
    match parse_size(text)? {
        size if size < least => Err(format!("it takes at least {}", levee_proto::units::show_size(least))),
        size => Ok(size),
    }
}

/// The name of a failure domain.
fn domain(text: &str) -> Result<String, String> {
    match is_valid_name(text) {
        true => Ok(text.to_string()),
        false => Err(format!("use letters, digits, '.', '_' and '-', at most {MAX_NAME} of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_say_its_class() {
        let disk = |path: &str, class| Ok(DiskArg { path: path.into(), class });
        assert_eq!("/dev/sdb".parse(), disk("/dev/sdb", None));
        assert_eq!("/a,b,class=hdd".parse(), disk("/a,b", Some(DiskClass::Hdd)));
        assert_eq!("d,class=ssd".parse(), disk("d", Some(DiskClass::Ssd)));
        for bad in ["", ",class=ssd", "/d,class=tape", "/d,class="] {
            assert!(bad.parse::<DiskArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_are_named_like_volumes() {
        assert!(domain("row-3.b").is_ok() && domain("a b").is_err() && domain("").is_err());
    }
}
