//! What a cluster is to consist of, checked for what could never work.

use crate::cli::InitPlan;
use crate::errors::Usage;
use crate::values;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Copies that volumes have unless somebody asks for others: as many nodes with disks are needed.
const USUAL_COPIES: usize = 3;
/// Longest name of a folder for a host, as of a node.
const META_FOLDER: &str = "meta";

/// A disk as a storage daemon's option names it: a path, and what it is if that is not to be found out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskSpec {
    pub path: PathBuf,
    /// `class=ssd` or `class=hdd`.
    pub class: Option<String>,
}

impl DiskSpec {
    /// Takes a list apart, in which a class follows its disk.
    fn list(text: &str) -> Result<Vec<DiskSpec>, String> {
        let mut disks: Vec<DiskSpec> = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match (word, disks.last_mut()) {
                ("class=ssd" | "class=hdd", Some(disk)) if disk.class.is_none() => disk.class = Some(word.into()),
                (path, _) if path.starts_with('/') => disks.push(DiskSpec { path: path.into(), class: None }),
                (other, _) => {
                    return Err(format!(
                        "'{other}' is no disk: use a path that begins with /, and ,class=ssd or ,class=hdd behind it"
                    ));
                }
            }
        }
        Ok(disks)
    }

    /// As the option has it.
    pub fn option(&self) -> String {
        let class = self.class.iter().map(|class| format!(",{class}"));
        std::iter::once(self.path.display().to_string()).chain(class).collect()
    }
}

/// `NODE=PLACE`: in which zone or rack a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceSpec {
    pub node: String,
    pub place: String,
}

impl FromStr for PlaceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, place) = text.split_once('=').ok_or("use NODE=PLACE")?;
        Ok(PlaceSpec { node: values::name(node)?, place: values::name(place)? })
    }
}

/// `NAME=ADDRESS[:DISK,...]`; an IPv6 address that disks follow stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    pub name: String,
    pub address: IpAddr,
    pub disks: Vec<DiskSpec>,
}

impl FromStr for NodeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("use NAME=ADDRESS:DISK,DISK")?;
        let name = values::name(name)?;
        let (address, disks) = address_and_disks(rest)?;
        let disks = DiskSpec::list(disks)?;
        if disks.iter().map(|disk| &disk.path).collect::<BTreeSet<_>>().len() < disks.len() {
            return Err("a disk is named twice".into());
        }
        Ok(NodeSpec { name, address, disks })
    }
}

fn address_and_disks(text: &str) -> Result<(IpAddr, &str), String> {
    let wrong = |address: &str| format!("'{address}' is no IP address (an IPv6 address is written [ADDRESS])");
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let disks = rest.strip_prefix(':').unwrap_or(rest);
        return Ok((address.parse().map_err(|_| wrong(address))?, disks));
    }
    let (address, disks) = text.split_once(':').unwrap_or((text, ""));
    Ok((address.parse().map_err(|_| wrong(address))?, disks))
}

/// A cluster that can be set up.
pub struct Plan<'a> {
    pub args: &'a InitPlan,
}

/// One host: a meta server, a node, or both.
pub struct Host<'a> {
    /// Name of its folder.
    pub name: String,
    pub address: IpAddr,
    pub member: Option<usize>,
    pub node: Option<&'a NodeSpec>,
}

impl<'a> Plan<'a> {
    /// Refuses what the daemons would refuse later, one by one, on their hosts.
    pub fn new(args: &'a InitPlan) -> Result<Self, Usage> {
        let refuse = |what: String| Err(Usage(what));
        if ![1, 3, 5].contains(&args.meta.len()) {
            return refuse(format!("--meta names {} hosts: use 1, 3 or 5", args.meta.len()));
        }
        if let Some(twice) = duplicate(args.meta.iter()) {
            return refuse(format!("--meta names {twice} twice: each meta server runs on a host of its own"));
        }
        if let Some(twice) = duplicate(args.node.iter().map(|node| &node.name)) {
            return refuse(format!("two nodes are called {twice}: a name is a node's identity"));
        }
        if let Some(twice) = duplicate(args.node.iter().map(|node| &node.address)) {
            return refuse(format!("two nodes have the address {twice}: a host has one storage daemon"));
        }
        if let Some(odd) = args.meta.iter().chain(args.node.iter().map(|n| &n.address)).find(|a| a.is_unspecified()) {
            return refuse(format!("{odd} is no address that other hosts can reach"));
        }
        let files = args.node.iter().flat_map(|node| &node.disks).find(|disk| !is_device(&disk.path));
        if let (Some(file), None) = (files, args.disk_size) {
            return refuse(format!(
                "{} is not under /dev: say with --disk-size how large such files are",
                file.path.display()
            ));
        }
        let named = |place: &&PlaceSpec| args.node.iter().any(|node| node.name == place.node);
        if let Some(place) = args.zone.iter().chain(&args.rack).find(|place| !named(place)) {
            return refuse(format!("no --node is called {}: its zone or rack cannot be set", place.node));
        }
        let ports = args.node_port..=args.node_port.saturating_add(args.cores);
        if ports.contains(&args.meta_port) || args.node_port.checked_add(args.cores).is_none() {
            return refuse(format!(
                "nodes would use the ports {} to {}, the meta servers {}: choose others with --node-port and --meta-port",
                ports.start(),
                ports.end(),
                args.meta_port
            ));
        }
        Ok(Plan { args })
    }

    pub fn hosts(&self) -> impl Iterator<Item = Host<'a>> {
        let mut hosts: BTreeMap<IpAddr, Host<'a>> = BTreeMap::new();
        for node in &self.args.node {
            let host = Host { name: node.name.clone(), address: node.address, member: None, node: Some(node) };
            hosts.insert(node.address, host);
        }
        for (i, address) in self.args.meta.iter().enumerate() {
            let taken: BTreeSet<_> = hosts.values().map(|host| host.name.clone()).collect();
            let host = hosts.entry(*address).or_insert_with(|| Host {
                name: free_name(i + 1, &taken),
                address: *address,
                member: None,
                node: None,
            });
            host.member = Some(i + 1);
        }
        hosts.into_values()
    }

    pub fn member(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.args.meta_port)
    }

    pub fn admin(&self, node: &NodeSpec) -> SocketAddr {
        SocketAddr::new(node.address, self.args.node_port)
    }

    /// One address for each core.
    pub fn data(&self, node: &NodeSpec) -> Vec<SocketAddr> {
        (1..=self.args.cores).map(|core| SocketAddr::new(node.address, self.args.node_port + core)).collect()
    }

    pub fn zone(&self, node: &NodeSpec) -> Option<&'a str> {
        place_of(&self.args.zone, node)
    }

    pub fn rack(&self, node: &NodeSpec) -> Option<&'a str> {
        place_of(&self.args.rack, node)
    }

    pub fn meta_urls(&self) -> Vec<String> {
        self.args.meta.iter().map(|address| format!("http://{}", self.member(*address))).collect()
    }

    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let storing = self.args.node.iter().filter(|node| !node.disks.is_empty()).count();
        if storing < USUAL_COPIES {
            notes.push(format!(
                "{storing} nodes have disks: volumes with {USUAL_COPIES} copies, as by default, need {USUAL_COPIES}"
            ));
        }
        if self.args.meta.len() == 1 {
            notes.push(
                "one meta server: while it is down nothing can be changed, and its folder must not be lost".into(),
            );
        }
        notes
    }
}

/// The last one that was given.
fn place_of<'a>(places: &'a [PlaceSpec], node: &NodeSpec) -> Option<&'a str> {
    places.iter().rev().find(|place| place.node == node.name).map(|place| place.place.as_str())
}

/// A folder's name that no node has.
fn free_name(number: usize, taken: &BTreeSet<String>) -> String {
    let mut name = format!("{META_FOLDER}-{number}");
    while taken.contains(&name) {
        name.push('x');
    }
    name
}

pub fn is_device(disk: &std::path::Path) -> bool {
    disk.starts_with("/dev")
}

fn duplicate<T: Ord>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    for one in all {
        if seen.contains(&one) {
            return Some(one);
        }
        seen.insert(one);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<NodeSpec, String> {
        text.parse()
    }

    #[test]
    fn nodes_have_names_addresses_and_disks() {
        let node = spec("host-1=10.0.0.1:/dev/a,/dev/b").unwrap();
        assert_eq!((node.name.as_str(), node.disks.len()), ("host-1", 2));
        assert_eq!(spec("h=[fd00::1]:/dev/a").unwrap().address, "fd00::1".parse::<IpAddr>().unwrap());
        let disk = |path: &str, class: Option<&str>| DiskSpec { path: path.into(), class: class.map(Into::into) };
        let node = spec("h=10.0.0.1:/dev/a,class=hdd,/dev/b").unwrap();
        assert_eq!(node.disks, [disk("/dev/a", Some("class=hdd")), disk("/dev/b", None)]);
        assert_eq!(node.disks[0].option(), "/dev/a,class=hdd");
        for without in ["h=10.0.0.1", "h=10.0.0.1:", "h=[::1]"] {
            assert!(spec(without).unwrap().disks.is_empty(), "{without}");
        }
        for bad in [
            "",
            "h",
            "=10.0.0.1",
            "a/b=10.0.0.1",
            "h=host",
            "h=10.0.0.1:dev/a",
            "h=10.0.0.1:/a,/a",
            "h=::1:/a",
            "h=10.0.0.1:class=ssd",
            "h=10.0.0.1:/a,class=x",
        ] {
            assert!(spec(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn folders_of_meta_servers_have_free_names() {
        let taken = BTreeSet::from(["meta-1".to_string()]);
        assert_eq!((free_name(1, &taken), free_name(2, &taken)), ("meta-1x".into(), "meta-2".into()));
    }
}
