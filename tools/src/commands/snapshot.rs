//! `levee snapshot create`, `list`, `delete` and `rollback`.

use super::usage;
use crate::client::{MetaClient, wait_for};
use crate::limits::SNAPSHOT_WAIT;
use crate::output::Output;
use crate::values::utc;
use levee_proto::api::{CreateSnapshots, SnapshotInfo, SnapshotName, SnapshotState, SnapshotUsage};
use levee_proto::units::show_size;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// Takes them, and waits until all are complete.
pub async fn create(meta: &MetaClient, names: &[SnapshotName], timeout: Duration, out: &Output) -> anyhow::Result<()> {
    let request = CreateSnapshots { snapshots: names.to_vec(), image: None };
    let bar = out.spinner(format!("taking {}", joined(names)));
    let done = take(meta, &request, timeout).await;
    bar.finish_and_clear();
    let done = done?;
    out.result(&json!({ "snapshots": done }), || {
        let what = if names.len() == 1 { "Snapshot" } else { "Snapshots" };
        format!("{what} {} taken; `levee volume create NAME --from {}` makes a volume of it.", joined(names), names[0])
    })
}

/// Takes them, and waits until all are complete.
pub async fn take(
    meta: &MetaClient,
    request: &CreateSnapshots,
    timeout: Duration,
) -> anyhow::Result<Vec<SnapshotInfo>> {
    let taken = meta.create_snapshots(request, SNAPSHOT_WAIT.min(timeout)).await?;
    wait_complete(meta, taken, timeout).await
}

async fn wait_complete(
    meta: &MetaClient,
    mut snapshots: Vec<SnapshotInfo>,
    timeout: Duration,
) -> anyhow::Result<Vec<SnapshotInfo>> {
    let complete = wait_for(timeout.saturating_sub(SNAPSHOT_WAIT), async || {
        for snapshot in snapshots.iter_mut().filter(|s| s.state == SnapshotState::Pending) {
            *snapshot = meta.snapshot(&name_of(snapshot)).await?;
            if snapshot.state == SnapshotState::Pending {
                return Ok::<_, anyhow::Error>(None);
            }
        }
        Ok(Some(()))
    });
    if complete.await?.is_some() {
        return Ok(snapshots);
    }
    let pending: Vec<SnapshotName> =
        snapshots.iter().filter(|s| s.state == SnapshotState::Pending).map(name_of).collect();
    anyhow::bail!(
        "snapshot {} is taken, but not complete after {} s: the volume's gateway does not report that enough copies hold \
         all of it; it will be completed in the background, `levee snapshot list {}` shows it, `levee doctor` looks for \
         what is in the way",
        joined(&pending),
        timeout.as_secs_f64(),
        pending[0].volume
    )
}

fn name_of(snapshot: &SnapshotInfo) -> SnapshotName {
    SnapshotName { volume: snapshot.volume.clone(), snapshot: snapshot.name.clone() }
}

fn joined(names: &[SnapshotName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A snapshot, and what its deletion gives back if that could be found out.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    snapshot: SnapshotInfo,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive: Option<u64>,
}

/// Those of one volume are measured.
pub async fn list(
    meta: &MetaClient,
    volume: Option<&str>,
    measure: Option<Duration>,
    out: &Output,
) -> anyhow::Result<()> {
    let mut snapshots = meta.snapshots(volume).await?;
    snapshots.sort_by(|a, b| (&a.volume, a.version).cmp(&(&b.volume, b.version)));
    let used = match volume.filter(|_| !snapshots.is_empty()) {
        Some(volume) => used(meta, volume, measure, out).await?,
        None => Vec::new(),
    };
    let exclusive = |s: &SnapshotInfo| used.iter().find(|u| u.version == s.version).map(|u| u.exclusive);
    let listed = snapshots.into_iter().map(|s| Listed { exclusive: exclusive(&s), snapshot: s });
    let snapshots: Vec<Listed> = listed.collect();
    out.result(&snapshots, || match (snapshots.as_slice(), volume) {
        ([], Some(volume)) => {
            format!("Volume {volume} has no snapshot; `levee snapshot create {volume}@NAME` takes one.")
        }
        ([], None) => "There is no snapshot; `levee snapshot create VOLUME@NAME` takes one.".into(),
        (snapshots, _) => table(snapshots, volume.is_some(), out),
    })
}

/// What snapshots of a volume need alone; where that is not known, a note says why.
async fn used(
    meta: &MetaClient,
    volume: &str,
    measure: Option<Duration>,
    out: &Output,
) -> anyhow::Result<Vec<SnapshotUsage>> {
    let otherwise = usage::if_detached(measure, "levee snapshot list");
    Ok(match usage::measure(meta, &meta.volume(volume).await?, otherwise, out).await {
        Ok(usage) => usage.snapshots,
        Err(why) => {
            out.note(&format!("levee: what the snapshots of volume {volume} hold alone is not known: {why}"));
            Vec::new()
        }
    })
}

fn table(listed: &[Listed], measured: bool, out: &Output) -> String {
    let mut header = vec!["SNAPSHOT", "SIZE", "STATE", "CLONES", "COPIES", "TAKEN"];
    if measured {
        header.insert(2, "EXCLUSIVE");
    }
    let rows = listed.iter().map(|Listed { snapshot: s, exclusive }| {
        let size = [Some(show_size(s.size)), measured.then(|| exclusive.map_or("-".into(), show_size))];
        let mut row = vec![name_of(s).to_string()];
        row.extend(size.into_iter().flatten());
        row.extend([state_word(s.state).into(), s.clones.to_string(), s.read_copies.to_string(), utc(s.created_ms)]);
        row
    });
    out.table(&header, rows)
}

fn state_word(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Pending => "pending",
        SnapshotState::Done => "done",
        SnapshotState::Deleting => "deleting",
    }
}

/// One after the other; the first that is refused ends it.
pub async fn delete(meta: &MetaClient, names: &[SnapshotName], out: &Output) -> anyhow::Result<()> {
    let mut kept = Vec::new();
    for (done, name) in names.iter().enumerate() {
        let was = meta.delete_snapshot(name).await.map_err(|error| {
            let context = (done > 0).then(|| format!("after {} of {} snapshots were deleted", done, names.len()));
            context.into_iter().fold(anyhow::Error::from(error), anyhow::Error::context)
        })?;
        kept.extend(was.filter(|s| s.state == SnapshotState::Deleting));
    }
    out.result(&json!({ "deleted": names.len(), "kept_for_clones": kept }), || {
        let mut lines: Vec<String> = names.iter().map(|name| format!("Snapshot {name} is deleted.")).collect();
        lines.extend(kept.iter().map(|s| {
            format!("{} stays, as deleting, until its {} clones are deleted or flattened.", name_of(s), s.clones)
        }));
        lines.join("\n")
    })
}

pub async fn rollback(meta: &MetaClient, name: &SnapshotName, out: &Output) -> anyhow::Result<()> {
    let volume = meta.rollback(name).await?;
    out.result(&volume, || {
        format!("Volume {} is what it was at {name}; `levee volume attach {0}` serves it.", name.volume)
    })
}
