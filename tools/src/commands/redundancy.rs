//! How the copies of a volume do, as its gateway reports it: which parts of its addresses have fewer than they
//! should, and what is being done about it.

use super::lists::node_name;
use levee_proto::api::{Attachment, ChunkReport, NodeInfo, VolumeInfo, VolumeReport};
use levee_proto::units::show_size;
use serde::Serialize;

/// Chunks that are shown one by one to a person.
const MAX_SHOWN: usize = 8;

/// The attachment that somebody asked for: a volume that the cluster repairs is free.
pub fn user(volume: &VolumeInfo) -> Option<&Attachment> {
    volume.attachment.as_ref().filter(|attachment| !attachment.repair)
}

/// A chunk with fewer copies than it should have, and where in the volume it is.
#[derive(Serialize)]
pub struct Range {
    pub chunk: u32,
    /// The chunk's group covers these bytes of the volume.
    pub from: u64,
    pub to: u64,
    /// Which of each `of` stripes in there are the chunk's, counted from 1.
    pub stripe: u32,
    pub of: u32,
    pub copies: u8,
    pub wanted: u8,
    /// Whether reads and writes are answered.
    pub served: bool,
    /// The copies that are behind: where, and what is done about it.
    pub behind: Vec<String>,
}

pub fn ranges(volume: &VolumeInfo, report: &VolumeReport, nodes: &[NodeInfo]) -> Vec<Range> {
    report.degraded.iter().map(|chunk| range(volume, chunk, nodes)).collect()
}

fn range(volume: &VolumeInfo, chunk: &ChunkReport, nodes: &[NodeInfo]) -> Range {
    let geometry = volume.geometry;
    let of = u32::from(geometry.group_chunks).max(1);
    let from = u64::from(chunk.index / of).saturating_mul(geometry.group_size());
    let behind = chunk.behind.iter().map(|m| format!("{}, disk {}: {}", node_name(m.node, nodes), m.disk, m.doing));
    Range {
        chunk: chunk.index,
        from,
        to: from.saturating_add(geometry.group_size()).min(volume.size),
        stripe: chunk.index % of + 1,
        of,
        copies: chunk.current,
        wanted: chunk.wanted,
        served: chunk.served,
        behind: behind.collect(),
    }
}

impl Range {
    fn describe(&self) -> String {
        let Range { chunk, stripe, of, copies, wanted, .. } = self;
        let waits = if self.served { "" } else { ", not served until more are there" };
        let place = format!("{} to {}, stripe {stripe} of {of}", show_size(self.from), show_size(self.to));
        let mut behind: String = self.behind.iter().map(|b| format!("; {b}")).collect();
        if behind.is_empty() {
            behind = "; the others are made when another node has a disk in service with room".into();
        }
        format!("chunk {chunk} ({place}): {copies} of {wanted} copies{waits}{behind}")
    }
}

/// What a report says about copies, in lines; nothing if all is well.
pub fn lines(volume: &VolumeInfo, report: &VolumeReport, nodes: &[NodeInfo]) -> Vec<String> {
    let mut lines = Vec::new();
    if report.full {
        lines.push("Writes wait: the cluster is full. Add disks or nodes, or delete volumes.".into());
    }
    if report.leaving_replicas > 0 {
        let count = report.leaving_replicas;
        lines.push(format!(
            "{} on disks that are dead or drained, to be put elsewhere",
            counted(count, "copy", "copies")
        ));
    }
    let ranges = ranges(volume, report, nodes);
    lines.extend(ranges.iter().take(MAX_SHOWN).map(Range::describe));
    let shown = ranges.len().min(MAX_SHOWN);
    let more = (report.degraded_chunks as usize).saturating_sub(shown);
    if more > 0 && shown > 0 {
        lines.push(format!("and {} more", counted(more as u32, "chunk", "chunks")));
    }
    lines
}

/// How many chunks have how many copies, in one line.
pub fn summary(volume: &VolumeInfo, report: &VolumeReport) -> String {
    let mut text = format!("{} with all copies", report.healthy_chunks);
    if report.degraded_chunks > 0 {
        text.push_str(&format!(", {} below {} copies", report.degraded_chunks, volume.copies));
    }
    if report.waiting_chunks > 0 {
        text.push_str(&format!(", {} of them without a quorum: writes there wait", report.waiting_chunks));
    }
    text
}

pub fn counted(count: u32, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
