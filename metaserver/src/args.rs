//! The command line.

use crate::limits::{CHANGE_RATE, CLIENT_RATE};
use crate::rates::Rates;
use crate::repair::Policy;
use clap::Parser;
use levee_meta_state::{FIRST_LEVEL, LEVEL};
use levee_proto::units::parse_size;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Meta server of a Levee cluster.
///
/// One, three or five of them form a group that keeps working while a minority is down. Any member
/// answers API requests. On the first start of a group, the member with the lowest id sets it up once all
/// others answer.
///
/// `levee-metad recover --help` tells how to go on when most members are lost for good.
#[derive(Clone, Debug, Parser)]
#[command(name = "levee-metad", version, after_help = EXAMPLE, max_term_width = 100)]
pub struct Args {
    /// File with options: TOML, one `name = value` a line; what is given here wins over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Number of this member within the group; it never changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,

    /// Where to serve the API and the other members
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400")]
    pub listen: String,

    /// Folder for this member's data; created if absent
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// All members, this one included; without it the member is a group of one
    #[arg(long, value_name = "N=URL,...", value_delimiter = ',', value_parser = parse_peer)]
    pub peers: Vec<(u64, String)>,

    /// Where other members and clients reach this one, if not at --listen or as --peers says
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub url: Option<String>,

    /// Join the group of these members: this one is new and its folder is empty
    ///
    /// It announces itself there until it is taken in. Once it is, the option has no effect.
    #[arg(long, value_name = "URL,...", value_delimiter = ',', value_parser = parse_url, conflicts_with = "peers")]
    pub join: Vec<String>,

    /// Behave as the program that knew commands up to this level
    #[arg(long, value_name = "N", hide = true, default_value_t = LEVEL, value_parser = parse_level)]
    pub level: u32,

    /// A storage daemon that was not heard for this long counts as down; they report every second
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub down_after: u64,

    /// Replace what is on a storage daemon's disks when it was not heard for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub repair_after: u64,

    /// Most bytes per second for background copying in the whole cluster, such as 500M [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub repair_rate: Option<u64>,

    /// Requests a second that one client (address) may send; 0: any number
    ///
    /// What storage daemons ask is not counted.
    #[arg(long, value_name = "N", default_value_t = CLIENT_RATE)]
    pub client_rate: u32,

    /// Changes a second that all clients together may ask for; 0: any number
    #[arg(long, value_name = "N", default_value_t = CHANGE_RATE)]
    pub change_rate: u32,

    /// Log entries between two snapshots of the state
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("copies could never be made whole again: use a rate above 0".into()),
        rate => Ok(rate),
    }
}

const EXAMPLE: &str = "\
Example, three members on three hosts; this one is the first:
  levee-metad --id 1 --listen 10.0.0.1:7400 --dir /var/lib/levee/meta \\
    --peers 1=http://10.0.0.1:7400,2=http://10.0.0.2:7400,3=http://10.0.0.3:7400
The same from a file, which packages install under /usr/share/doc/levee/examples with every option explained:
  levee-metad --config /etc/levee/levee-metad.toml

Stops cleanly on SIGTERM. RUST_LOG sets what is logged to standard error, such as RUST_LOG=debug.";

fn parse_peer(text: &str) -> Result<(u64, String), String> {
    let (id, url) = text.split_once('=').ok_or("use N=http://HOST:PORT")?;
    let id: u64 = id.trim().parse().ok().filter(|id| *id > 0).ok_or("the part before '=' must be a member's number")?;
    let url = parse_url(url).map_err(|_| "the part after '=' must be http://HOST:PORT")?;
    Ok((id, url))
}

/// Levels that there were, for tests of upgrades.
fn parse_level(text: &str) -> Result<u32, String> {
    let level: u32 = text.parse().map_err(|_| "a level is a number")?;
    if (FIRST_LEVEL..=LEVEL).contains(&level) { Ok(level) } else { Err(format!("use {FIRST_LEVEL} to {LEVEL}")) }
}

pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    let url = text.trim().trim_end_matches('/');
    let plain = reqwest::Url::parse(url)
        .is_ok_and(|u| u.scheme() == "http" && u.host_str().is_some() && u.path() == "/" && u.query().is_none());
    if !plain {
        return Err("use http://HOST:PORT".into());
    }
    Ok(url.to_string())
}

impl Args {
    pub fn policy(&self) -> Policy {
        Policy {
            down_after: Duration::from_secs(self.down_after),
            after: Duration::from_secs(self.repair_after),
            rate: self.repair_rate,
        }
    }

    pub fn rates(&self) -> Rates {
        let limit = |rate: u32| Some(rate).filter(|rate| *rate > 0);
        Rates { client: limit(self.client_rate), changes: limit(self.change_rate) }
    }

    /// Where this member is, as others are told, if somebody has said so.
    pub fn told_url(&self) -> Option<&str> {
        let listed = self.peers.iter().find(|(id, _)| *id == self.id).map(|(_, url)| url.as_str());
        self.url.as_deref().or(listed)
    }

    /// The group's members; what is wrong with them, if anything is.
    pub fn members(&self, own_url: &str) -> Result<BTreeMap<u64, String>, String> {
        if self.peers.is_empty() {
            return Ok(BTreeMap::from([(self.id, own_url.to_string())]));
        }
        let members: BTreeMap<u64, String> = self.peers.iter().cloned().collect();
        if members.len() < self.peers.len() {
            return Err("--peers names a member twice".into());
        }
        if !members.contains_key(&self.id) {
            return Err(format!("--peers must name all members, this one (--id {}) included", self.id));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(words.split_whitespace())
    }

    #[test]
    fn members_come_from_peers_or_are_this_one() {
        let alone = parse("levee-metad --id 3 --dir d").unwrap();
        assert_eq!(alone.members("http://me").unwrap(), BTreeMap::from([(3, "http://me".into())]));
        let three = parse("levee-metad --id 1 --dir d --peers 1=http://a:1,2=http://b:2/").unwrap();
        assert_eq!(three.members("").unwrap()[&2], "http://b:2");
        let stranger = parse("levee-metad --id 4 --dir d --peers 1=http://a:1").unwrap();
        assert!(stranger.members("").is_err());
        let twice = parse("levee-metad --id 1 --dir d --peers 1=http://a:1,1=http://b:1").unwrap();
        assert!(twice.members("").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "--id 0 --dir d",
            "--dir d",
            "--id 1 --dir d --peers 1",
            "--id 1 --dir d --peers 1=ftp://x:1",
            "--id 1 --dir d --repair-rate 0",
            "--id 1 --dir d --repair-after 0",
        ] {
            assert!(parse(&format!("levee-metad {bad}")).is_err(), "{bad}");
        }
    }
}
