//! `levee volume create --from`, `delete` of many volumes, `flatten` and `resize`.

use crate::cli::Create;
use crate::client::{MetaClient, wait_for};
use crate::errors::{Found, Usage};
use crate::output::Output;
use levee_proto::api::*;
use levee_proto::units::show_size;
use serde_json::json;
use std::time::Duration;

/// Refused volumes that are shown to a person.
const MAX_SHOWN: usize = 5;

pub async fn create(meta: &MetaClient, args: &Create, from: &SnapshotName, out: &Output) -> anyhow::Result<()> {
    if let (Some(copies), Some(min_copies)) = (args.copies, args.min_copies)
        && min_copies > copies
    {
        return Err(Usage(format!("--min-copies {min_copies} is more than --copies {copies}")).into());
    }
    let request = CreateClones {
        from: from.clone(),
        names: family(&args.name, args.count, args.first)?,
        size: args.size,
        copies: args.copies,
        min_copies: args.min_copies,
    };
    let created = meta.create_clones(&request).await?;
    out.result(&created, || {
        let CreatedClones { count, first, last, size, .. } = &created;
        let size = show_size(*size);
        match args.count {
            None => format!("Volume {first} of {size} continues from {from}; `levee volume attach {first}` serves it."),
            Some(_) => format!("{count} volumes of {size}, {first} to {last}, continue from {from}."),
        }
    })
}

/// What one name on the command line stands for.
pub fn family(name: &str, count: Option<u32>, first: u32) -> Result<Family, Usage> {
    if count.is_none() && name.contains(NUMBER_MARK) {
        return Err(Usage(format!("'{name}' has a place for a number: say how many volumes with --count")));
    }
    Ok(Family { name: name.into(), count, first })
}

pub async fn delete(
    meta: &MetaClient,
    names: &[String],
    count: Option<u32>,
    first: u32,
    out: &Output,
) -> anyhow::Result<()> {
    if let ([name], None) = (names, count) {
        family(name, count, first)?;
        return super::volume::delete(meta, name, out).await;
    }
    let volumes: Vec<Family> = names.iter().map(|name| family(name, count, first)).collect::<Result<_, _>>()?;
    let deleted = meta.delete_volumes(&DeleteVolumes { volumes }).await?;
    out.result(&deleted, || format!("{} volumes are deleted.", deleted.deleted))?;
    if deleted.refusals == 0 {
        return Ok(());
    }
    let mut reasons: Vec<&str> = deleted.refused.iter().take(MAX_SHOWN).map(|r| r.detail.as_str()).collect();
    if deleted.refusals as usize > reasons.len() {
        reasons.push("and so on");
    }
    Err(Found(format!("{} volumes are not deleted: {}", deleted.refusals, reasons.join("; "))).into())
}

pub async fn resize(meta: &MetaClient, name: &str, size: u64, allow_shrink: bool, out: &Output) -> anyhow::Result<()> {
    let before = meta.volume(name).await?.size;
    if size < before && !allow_shrink {
        return Err(Usage(format!(
            "volume {name} has {}, more than {}: --allow-shrink makes it smaller, if nothing was written beyond",
            show_size(before),
            show_size(size)
        ))
        .into());
    }
    let volume = meta.resize(name, &ResizeVolume { size, allow_shrink }).await?;
    out.result(&volume, || format!("Volume {name} has {} now.", show_size(volume.size)))
}

/// Has the volume copied from its ancestors, and waits until that is done.
pub async fn flatten(meta: &MetaClient, name: &str, timeout: Duration, out: &Output) -> anyhow::Result<()> {
    let bar = out.spinner(format!("flattening {name}"));
    let done = match meta.flatten(name).await {
        Ok(_) => wait_flat(meta, name, timeout).await,
        Err(error) => Err(error.into()),
    };
    bar.finish_and_clear();
    done?;
    out.result(&json!({ "volume": name, "flattened": true }), || {
        format!("Volume {name} needs no other volume any more.")
    })
}

async fn wait_flat(meta: &MetaClient, name: &str, timeout: Duration) -> anyhow::Result<()> {
    let flat = wait_for(timeout, async || {
        let volume = meta.volume(name).await?;
        Ok::<_, anyhow::Error>(volume.parent.is_none().then_some(()))
    });
    match flat.await? {
        Some(()) => Ok(()),
        None => anyhow::bail!(
            "volume {name} is not flattened after {} s; it goes on in the background, `levee volume show {name}` shows its \
             parent until that is done",
            timeout.as_secs_f64()
        ),
    }
}
