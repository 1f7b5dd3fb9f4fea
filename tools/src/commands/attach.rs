//! `levee volume attach`: asks for an attachment and waits until the gateway serves it.

use crate::client::{MetaClient, wait_for};
use crate::output::Output;
use indicatif::ProgressBar;
use levee_proto::api::{AttachVolume, Attachment, ServeState, VolumeInfo};
use levee_proto::ids::Epoch;
use serde::Serialize;
use std::time::Duration;

/// A volume that is ready for a virtual machine.
#[derive(Debug, Serialize)]
pub struct Served {
    pub volume: String,
    pub node: String,
    pub epoch: Epoch,
    /// Path of the vhost-user socket on the node.
    pub socket: String,
    /// It is a snapshot.
    pub read_only: bool,
}

pub async fn attach(
    meta: &MetaClient,
    name: &str,
    node: Option<&str>,
    timeout: Duration,
    out: &Output,
) -> anyhow::Result<()> {
    let volume = meta.attach(name, &AttachVolume { node: node.map(String::from), job: None }).await?;
    let bar = out.spinner(format!("attaching {name}"));
    let served = wait_served(meta, &volume, timeout, &bar, Unserved::StaysAttached).await;
    bar.finish_and_clear();
    let served = served?;
    out.result(&served, || {
        let (what, way) = if served.read_only { ("Snapshot", ", for reading only") } else { ("Volume", "") };
        format!(
            "{what} {name} is served by {} at {}{way} (epoch {}); `levee qemu {name}` shows how to use it.",
            served.node, served.socket, served.epoch
        )
    })
}

/// What becomes of an attachment that is not served.
#[derive(Clone, Copy)]
pub enum Unserved {
    StaysAttached,
    IsDetached,
}

impl Unserved {
    /// The end of a sentence that says why.
    fn words(self, name: &str) -> String {
        match self {
            Unserved::StaysAttached => format!(
                "it stays attached, `levee volume show {name}` tells more and `levee volume detach {name}` gives up"
            ),
            Unserved::IsDetached => "it is detached again".into(),
        }
    }
}

/// Waits until the attachment that `volume` shows is served.
pub async fn wait_served(
    meta: &MetaClient,
    volume: &VolumeInfo,
    timeout: Duration,
    bar: &ProgressBar,
    unserved: Unserved,
) -> anyhow::Result<Served> {
    let name = &volume.name;
    let Some(asked) = &volume.attachment else { anyhow::bail!("volume {name} was detached at once by somebody else") };
    let mut reported = String::from("the gateway has not reported yet");
    let served = wait_for(timeout, async || {
        let now = meta.volume(name).await?;
        let attachment = match now.attachment {
            Some(attachment) if attachment.attachment == asked.attachment => attachment,
            Some(other) => anyhow::bail!("volume {name} was attached to {} meanwhile", other.node_name),
            None => anyhow::bail!("volume {name} was detached meanwhile"),
        };
        let progress = look(volume, &attachment, unserved)?;
        if let Progress::Waiting(words) = &progress {
            bar.set_message(format!("attaching {name} to {}: {words}", attachment.node_name));
            reported.clone_from(words);
        }
        Ok(match progress {
            Progress::Served(served) => Some(served),
            Progress::Waiting(_) => None,
        })
    });
    let (seconds, node) = (timeout.as_secs_f64(), &asked.node_name);
    match served.await? {
        Some(served) => Ok(served),
        None => anyhow::bail!(
            "volume {name} is not served by {node} after {seconds} s: {reported}; {}",
            unserved.words(name)
        ),
    }
}

enum Progress {
    Served(Served),
    Waiting(String),
}

fn look(volume: &VolumeInfo, attachment: &Attachment, unserved: Unserved) -> anyhow::Result<Progress> {
    let name = &volume.name;
    let node = &attachment.node_name;
    let Some(report) = &attachment.report else {
        return Ok(Progress::Waiting(format!("{node} has not reported yet")));
    };
    let detail = report.detail.as_deref();
    Ok(match (report.state, &report.socket) {
        (ServeState::Serving, Some(socket)) => Progress::Served(Served {
            volume: name.clone(),
            node: node.clone(),
            epoch: report.epoch,
            socket: socket.clone(),
            read_only: volume.read_only,
        }),
        (ServeState::Failed, _) => anyhow::bail!(
            "{node} cannot serve volume {name}: {}; {}",
            detail.unwrap_or("it gives no reason"),
            unserved.words(name)
        ),
        (ServeState::Serving, None) => Progress::Waiting(detail.unwrap_or("its socket is not ready").into()),
        (ServeState::Opening, _) => Progress::Waiting(detail.unwrap_or("opening").into()),
        (ServeState::Closing, _) => Progress::Waiting(detail.unwrap_or("closing an earlier attachment").into()),
    })
}
