//! A network for the daemons: each has a network namespace with one address, all hang on one bridge, and
//! any direction between two of them can be cut.
//!
//! A cut drops packets silently at the receiver, as a dead switch does: a routing rule that comes before the
//! one for local addresses swallows whatever arrives from the other's address. The host stays connected, so that
//! the cluster can be asked how it does. Names carry this process's id, so that what a killed run left is
//! known by it, and removed by the next one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// What all names begin with, followed by a process id.
const PREFIX: &str = "lvf";
/// First two bytes of the addresses, and how many subnets are tried.
const SUBNET: [u8; 2] = [10, 231];
const SUBNETS: u32 = 250;
/// Last byte of the bridge's address.
const BRIDGE_HOST: u8 = 254;
/// Where `levee up` expects the meta servers; nodes begin at 1.
const META_HOSTS_OFFSET: usize = 200;
/// Priority that the rule for local addresses is moved to, so that cuts come before it.
const LOCAL_PRIORITY: u32 = 30_000;

struct Member {
    daemon: String,
    host: u8,
}

/// The namespaces and links; dropping it removes them.
pub struct Network {
    prefix: String,
    subnet: [u8; 3],
    members: Vec<Member>,
    next_priority: AtomicU32,
}

/// A direction that is cut, to be mended.
#[derive(Debug)]
pub struct CutLink {
    namespace: String,
    priority: u32,
}

impl Network {
    /// Makes a network for a cluster. An error says in one line what this machine does not allow.
    pub fn create(nodes: usize, metas: usize) -> Result<Network> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        remove_leftovers()?;
        let prefix = format!("{PREFIX}{}", std::process::id());
        let [a, b] = SUBNET;
        let subnet = [a, b, free_subnet()?];
        let node = |number| Member { daemon: format!("node-{number}"), host: number as u8 };
        let meta = |id| Member { daemon: format!("meta-{id}"), host: (META_HOSTS_OFFSET + id) as u8 };
        let members = (1..=nodes).map(node).chain((1..=metas).map(meta)).collect();
        // From here on dropping it takes away whatever was made.
        let network = Network { prefix, subnet, members, next_priority: AtomicU32::new(1) };
        network.make_bridge()?;
        network.members.iter().try_for_each(|member| network.make_namespace(member))?;
        Ok(network)
    }

    /// What `levee up --network` is told.
    pub fn argument(&self) -> String {
        let [a, b, c] = self.subnet;
        format!("{}={a}.{b}.{c}", self.prefix)
    }

    /// All daemons but one.
    pub fn others<'n>(&'n self, daemon: &'n str) -> impl Iterator<Item = &'n str> {
        self.members.iter().map(|member| member.daemon.as_str()).filter(move |name| *name != daemon)
    }

    /// From now on `to` hears nothing of `from`.
    pub fn cut(&self, from: &str, to: &str) -> Result<CutLink> {
        let Some(sender) = self.members.iter().find(|member| member.daemon == from) else {
            bail!("{from} is not part of the network")
        };
        let number = self.next_priority.fetch_add(1, Ordering::Relaxed);
        let cut = CutLink { namespace: self.namespace(to), priority: 1 + number % (LOCAL_PRIORITY - 1) };
        let (priority, address) = (cut.priority.to_string(), self.address(sender.host));
        ip(&["-n", &cut.namespace, "rule", "add", "pref", &priority, "from", &address, "blackhole"])?;
        Ok(cut)
    }

    pub fn mend(&self, cut: &CutLink) -> Result<()> {
        ip(&["-n", &cut.namespace, "rule", "del", "pref", &cut.priority.to_string()])
    }

    fn namespace(&self, daemon: &str) -> String {
        format!("{}-{daemon}", self.prefix)
    }

    fn address(&self, host: u8) -> String {
        let [a, b, c] = self.subnet;
        format!("{a}.{b}.{c}.{host}")
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn make_bridge(&self) -> Result<()> {
        let (bridge, address) = (self.bridge(), format!("{}/24", self.address(BRIDGE_HOST)));
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &address, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])
    }

    fn make_namespace(&self, member: &Member) -> Result<()> {
        let (namespace, link) = (self.namespace(&member.daemon), format!("{}h{}", self.prefix, member.host));
        let address = format!("{}/24", self.address(member.host));
        let n = namespace.as_str();
        ip(&["netns", "add", n])?;
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", n])?;
        ip(&["link", "set", &link, "master", &self.bridge(), "up"])?;
        ip(&["-n", n, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", n, "link", "set", "lo", "up"])?;
        ip(&["-n", n, "link", "set", "eth0", "up"])?;
        ip(&["-n", n, "rule", "add", "pref", &LOCAL_PRIORITY.to_string(), "lookup", "local"])?;
        ip(&["-n", n, "rule", "del", "pref", "0"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.prefix) {
            eprintln!("levee-faults: the network {} is left: {e:#}", self.prefix);
        }
    }
}

/// Removes what runs left whose process is dead.
fn remove_leftovers() -> Result<()> {
    let mut owners: Vec<u32> = names()?.iter().filter_map(|name| owner(name)).collect();
    owners.sort_unstable();
    owners.dedup();
    owners.retain(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    owners.iter().try_for_each(|pid| remove(&format!("{PREFIX}{pid}")))
}

/// Removes all namespaces and links of one run.
fn remove(prefix: &str) -> Result<()> {
    let all = names()?;
    let ours = all.iter().filter(|name| owner(name).is_some_and(|pid| format!("{PREFIX}{pid}") == prefix));
    let mut first = Ok(());
    for name in ours {
        let removed = match name.contains('-') {
            true => ip(&["netns", "del", name]),
            false => ip(&["link", "del", name]),
        };
        first = first.and(removed);
    }
    first
}

/// Names of all links and namespaces on this machine. Links come first: one may outlive its namespace while
/// a process is in that.
fn names() -> Result<Vec<String>> {
    let links = output(&["-o", "link", "show"])?;
    let links = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let namespaces = output(&["netns", "list"])?;
    let namespaces = namespaces.lines().filter_map(|line| line.split_whitespace().next());
    Ok(links.chain(namespaces).map(str::to_string).collect())
}

/// The process that a name belongs to, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    matches!(rest.as_bytes()[digits], b'-' | b'b' | b'h').then(|| rest[..digits].parse().ok())?
}

fn free_subnet() -> Result<u8> {
    let used = output(&["-o", "-4", "addr", "show"])?;
    let first = std::process::id() % SUBNETS;
    let [a, b] = SUBNET;
    let candidates = (0..SUBNETS).map(|step| ((first + step) % SUBNETS) as u8);
    let free = candidates.into_iter().find(|c| !used.contains(&format!(" {a}.{b}.{c}.")));
    free.context("no address range is free for the network")
}

fn ip(arguments: &[&str]) -> Result<()> {
    output(arguments).map(drop)
}

fn output(arguments: &[&str]) -> Result<String> {
    let output =
        Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("cannot run ip (iproute2)")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_they_are() {
        assert_eq!(owner("lvf12-node-1"), Some(12));
        assert_eq!(owner("lvf12b"), Some(12));
        assert_eq!(owner("lvf12h201"), Some(12));
        for other in ["lvf", "lvf-1", "lvf12", "lvfx1b", "eth0", "lvf12z"] {
            assert_eq!(owner(other), None);
        }
    }
}
