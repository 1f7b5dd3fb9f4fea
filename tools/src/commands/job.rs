//! Marks a volume for the time that a command works on it, so that the cluster knows what a command that is killed leaves behind.

use crate::client::MetaClient;
use levee_proto::api::{BeginJob, JOB_RENEWAL_MS, JobKind};
use std::convert::Infallible;
use std::time::Duration;
use uuid::Uuid;

/// A volume that is marked.
pub struct Marked<'a> {
    meta: &'a MetaClient,
    volume: &'a str,
    request: BeginJob,
}

impl<'a> Marked<'a> {
    /// Refused while another command works on the volume.
    pub async fn begin(meta: &'a MetaClient, volume: &'a str, kind: JobKind) -> anyhow::Result<Marked<'a>> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let by = format!("levee (process {}) on {}", std::process::id(), host.trim());
        let request = BeginJob { id: Uuid::new_v4(), kind, by };
        meta.begin_job(volume, &request).await?;
        Ok(Marked { meta, volume, request })
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

/// Keeps the mark, if there is one, for as long as it is polled.
pub async fn keep(marked: Option<&Marked<'_>>) -> Infallible {
    match marked {
        Some(marked) => marked.keep().await,
        None => std::future::pending().await,
    }
}
