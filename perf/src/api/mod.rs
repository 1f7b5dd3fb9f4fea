//! How many changes a second the meta server takes: volumes created one by one by many clients, and in batches.
//!
//! It runs a group with a folder of its own, on the file system of that folder: every change is durable on a majority when it
//! is answered, so the medium counts. Clients ask the member that leads.

mod connection;
mod server;

use crate::figures;
use crate::load::latency::Latencies;
use anyhow::{Result, ensure};
use connection::Connection;
use serde::Serialize;
use serde_json::json;
use server::Group;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    pub members: u16,
    pub clients: usize,
    /// Volumes created one by one.
    pub singles: u64,
    /// Volumes created in batches, and how many each has.
    pub batched: u64,
    pub batch: u64,
    pub dir: PathBuf,
    /// Of the first member; of the others, those behind it.
    pub port: u16,
    /// Where the figures go, as JSON.
    pub out: PathBuf,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct ApiFigures {
    pub members: u16,
    pub clients: usize,
    pub singles: Rate,
    pub batches: Rate,
    pub batch: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    pub volumes: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Of one request.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

pub fn run(options: &ApiOptions) -> Result<ApiFigures> {
    ensure!([1, 3, 5].contains(&options.members), "--members must be 1, 3 or 5");
    let mut group = Group::start(&options.dir, options.port, options.members)?;
    group.register()?;
    let options = &ApiOptions { port: group.leader()?, ..options.clone() };
    let singles = measure(options, options.singles, |connection, number| {
        let body = json!({ "name": format!("single-{number}"), "size": 1_u64 << 30, "copies": 1, "min_copies": 1 });
        connection.post("/v1/volumes", &body, 201)?;
        Ok(1)
    })?;
    let rounds = options.batched.div_ceil(options.batch.max(1));
    let few = ApiOptions { clients: options.clients.min(2), ..options.clone() };
    let batches = measure(&few, rounds, |connection, number| {
        let volume =
            |i| json!({ "name": format!("batch-{number}-{i}"), "size": 1_u64 << 30, "copies": 1, "min_copies": 1 });
        let volumes: Vec<_> = (0..options.batch).map(volume).collect();
        let answer = connection.post("/v1/volumes/batch", &json!({ "volumes": volumes }), 200)?;
        ensure!(answer["created"] == options.batch, "a batch was not created whole: {}", answer["refused"]);
        Ok(options.batch)
    })?;
    let figures =
        ApiFigures { members: options.members, clients: options.clients, singles, batches, batch: options.batch };
    figures::write(&options.out, &figures)?;
    Ok(figures)
}

/// Has all clients do `rounds` requests together, each on a connection of its own.
fn measure(
    options: &ApiOptions,
    rounds: u64,
    request: impl Fn(&mut Connection, u64) -> Result<u64> + Sync,
) -> Result<Rate> {
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let client = || -> Result<(u64, Latencies)> {
        let mut connection = Connection::open(options.port)?;
        let (mut volumes, mut latency) = (0, Latencies::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= rounds {
                return Ok((volumes, latency));
            }
            let sent = Instant::now();
            volumes += request(&mut connection, number)?;
            latency.record(sent.elapsed());
        }
    };
    let results: Vec<Result<(u64, Latencies)>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|c| c.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client died")))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let (mut volumes, mut all) = (0, Latencies::default());
    for result in results {
        let (more, latency) = result?;
        volumes += more;
        all.add(&latency);
    }
    let us = all.percentiles();
    Ok(Rate {
        volumes,
        seconds,
        per_second: volumes as f64 / seconds,
        p50_ms: us.p50 / 1000.0,
        p99_ms: us.p99 / 1000.0,
    })
}

impl ApiFigures {
    /// For people.
    pub fn table(&self) -> String {
        let line = |what: String, rate: &Rate| {
            format!(
                "{what:<28}{:>10} {:>9.0}/s   p50 {:>8.1} ms   p99 {:>8.1} ms",
                rate.volumes, rate.per_second, rate.p50_ms, rate.p99_ms
            )
        };
        let singles = line(format!("one by one, {} clients", self.clients), &self.singles);
        let batches = line(format!("in batches of {}", self.batch), &self.batches);
        format!("volumes created, meta servers: {}\n{singles}\n{batches}\n", self.members)
    }
}
