//! Marks a volume for the time that a command works on it, so that the cluster knows what a command that is killed leaves behind.

use crate::client::{ClientError, MetaClient, wait_for};
use crate::limits::JOB_WAIT;
use levee_proto::api::{BeginJob, JOB_RENEWAL_MS, JobKind, ProblemKind, VolumeInfo};
use std::convert::Infallible;
use std::time::Duration;
use uuid::Uuid;

/// The level from which on meta servers know marks.
const LEVEL_OF_JOBS: u32 = 4;

/// A volume that is marked.
pub struct Marked<'a> {
    meta: &'a MetaClient,
    volume: &'a str,
    request: BeginJob,
}

impl<'a> Marked<'a> {
    /// Refused while another command works on the volume; one that is heard of no more is waited for. None: it cannot be marked,
    /// because it is a snapshot, which is only read, or because the meta servers are older and know of no marks.
    pub async fn begin(
        meta: &'a MetaClient,
        volume: &'a VolumeInfo,
        kind: JobKind,
    ) -> anyhow::Result<Option<Marked<'a>>> {
        if volume.read_only {
            return Ok(None);
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let by = format!("levee (process {}) on {}", std::process::id(), host.trim());
        let request = BeginJob { id: Uuid::new_v4(), kind, by };
        let name = volume.name.as_str();
        let begun = wait_for(JOB_WAIT, async || match meta.begin_job(name, &request).await {
            Err(error) if volume.job.is_some() && error.is(ProblemKind::Conflict) && !is_used(meta, name).await? => {
                Ok(None)
            }
            begun => begun.map(Some),
        });
        match begun.await {
            Ok(Some(_)) => Ok(Some(Marked { meta, volume: name, request })),
            Ok(None) => {
                anyhow::bail!("volume {name} is in use by another command: `levee volume show {name}` says by which")
            }
            Err(error) => match meta.members().await {
                Ok(members) if members.level < LEVEL_OF_JOBS => Ok(None),
                _ => Err(error.into()),
            },
        }
    }

    pub fn id(&self) -> Uuid {
        self.request.id
    }

    /// Says now and then that the work goes on, for as long as it is polled.
    async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(Duration::from_millis(JOB_RENEWAL_MS)).await;
            // What matters is told when the job ends.
            let _ = self.meta.begin_job(self.volume, &self.request).await;
        }
    }

    /// The volume is what it should be.
    pub async fn end(self) -> anyhow::Result<()> {
        Ok(self.meta.end_job(self.volume, self.request.id).await?)
    }
}

/// Whether something is connected to the volume: then its command is not gone.
async fn is_used(meta: &MetaClient, volume: &str) -> Result<bool, ClientError> {
    let attachment = meta.volume(volume).await?.attachment;
    Ok(attachment.and_then(|attachment| attachment.report).is_some_and(|report| report.front_end.connected))
}

/// Keeps the mark, if there is one, for as long as it is polled.
pub async fn keep(marked: Option<&Marked<'_>>) -> Infallible {
    match marked {
        Some(marked) => marked.keep().await,
        None => std::future::pending().await,
    }
}
