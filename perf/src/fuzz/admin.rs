//! Requests to a daemon's admin port, most of them almost right.
//!
//! What they name as disks lies within the folder of the cluster, or is nothing that a disk can be: the daemon may well be told to
//! format a file.

use super::{Port, mutate};
use crate::cluster::Cluster;
use crate::http::ask_with;
use crate::rng::Rng;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// How long a request may take to be answered; only a hang takes so long.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// What the daemon serves, so that there is something to verify.
const VOLUME: &str = "served";
const VOLUME_SIZE: u64 = 64 << 20;
/// Bytes of a disk that is really added.
const DISK_SIZE: u64 = 64 << 20;
/// What exists on every machine and is no disk.
const NO_DISKS: [&str; 6] = ["/dev/null", "/dev/zero", "/proc/self/mem", "/", "/dev/ptmx", "/proc/version"];

/// The admin port of the first daemon, which serves a volume.
pub struct AdminPort {
    port: u16,
    /// Where it may make disks.
    dir: PathBuf,
}

impl AdminPort {
    pub fn open(cluster: &Cluster, _rng: &mut Rng) -> Result<AdminPort> {
        cluster.create_volume(VOLUME, VOLUME_SIZE)?;
        let at = cluster.attach(VOLUME)?;
        let dir = cluster.dir().join("fuzz");
        std::fs::create_dir_all(&dir)?;
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU)?;
        Ok(AdminPort { port: cluster.ports(&at.node)?.1, dir })
    }

    fn request(&self, rng: &mut Rng) -> (&'static str, String, Vec<u8>) {
        let method = if rng.chance(10) { *rng.pick(&["PUT", "DELETE", "HEAD", "PATCH", "x"]) } else { "POST" };
        let volume = if rng.chance(70) { VOLUME.to_string() } else { escaped(&mutate::text(rng)) };
        match rng.below(10) {
            0 => (
                "GET",
                (*rng.pick(&["/v1/status", "/metrics", "/v1/replicas", "/v1", "//", "/v1/volumes"])).into(),
                Vec::new(),
            ),
            1 => (
                method,
                format!("/v1/volumes/{volume}/{}", rng.pick(&["verify", "scrub", "usage"])),
                mutate::bytes(rng, 50),
            ),
            2..5 => (method, format!("/v1/volumes/{volume}/diff"), diff(rng)),
            5..7 => (method, format!("/v1/disks/{}/remove", disk_id(rng)), mutate::bytes(rng, 50)),
            _ => (method, "/v1/disks".into(), self.disk(rng)),
        }
    }

    fn disk(&self, rng: &mut Rng) -> Vec<u8> {
        let inside = self.dir.join(format!("disk-{}", rng.below(4)));
        // Formatting is for what is inside, whatever else is changed.
        let outside = rng.chance(30);
        let path = if outside { self.outside(rng) } else { inside.display().to_string() };
        let mut ask = json!({ "size": DISK_SIZE, "class": *rng.pick(&["ssd", "hdd", "nvme"]) });
        for _ in 0..rng.below(3) {
            mutate::change(&mut ask, rng);
        }
        if let Some(fields) = ask.as_object_mut() {
            fields.insert("path".into(), path.into());
            fields.insert("format".into(), (!outside && rng.chance(80)).into());
        }
        mutate::spoil(&ask, rng)
    }

    fn outside(&self, rng: &mut Rng) -> String {
        match rng.below(4) {
            0 => (*rng.pick(&NO_DISKS)).into(),
            1 => self.dir.join("fifo").display().to_string(),
            2 => self.dir.display().to_string(),
            _ => mutate::text(rng),
        }
    }
}

impl Port for AdminPort {
    fn attack(&mut self, rng: &mut Rng) -> Result<()> {
        let (method, path, body) = self.request(rng);
        let what = format!("{method} {path}");
        let headers = headers(rng);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // Whatever is answered, it is answered.
        let answer = ask_with(&format!("127.0.0.1:{}", self.port), &what, &headers, &body, ANSWER_LIMIT);
        answer.map(drop).with_context(|| {
            let start = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
            format!("the daemon has not answered {what} with {headers:?} and {start}")
        })
    }

    /// The daemons come back with what they were told, and serve as before.
    fn check(&mut self, cluster: &Cluster) -> Result<()> {
        for daemon in cluster.daemons()? {
            daemon.kill_and_wait()?;
        }
        cluster.up().context("after all daemons were killed")?;
        cluster.attach(VOLUME).context("the volume after a restart")?;
        cluster.verify(VOLUME).map(drop)
    }
}

fn diff(rng: &mut Rng) -> Vec<u8> {
    let mut ask: Value = json!({ "from": rng.below(3), "to": rng.below(3) });
    for _ in 0..rng.below(3) {
        mutate::change(&mut ask, rng);
    }
    mutate::spoil(&ask, rng)
}

fn disk_id(rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => rng.below(6).to_string(),
        1 => mutate::number(rng).to_string(),
        _ => escaped(&mutate::text(rng)),
    }
}

/// As it may stand in a path.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect()
}

fn headers(rng: &mut Rng) -> Vec<(&'static str, String)> {
    let kind = *rng.pick(&["application/json", "application/json", "application/json", "text/plain", ""]);
    let mut headers = vec![("Content-Type", kind.to_string())];
    if rng.chance(20) {
        headers.push(("Levee-Request-Id", escaped(&mutate::text(rng))));
    }
    headers
}
