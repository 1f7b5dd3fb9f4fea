//! Requests about snapshots and clones.

use super::{MetaClient, Result};
use levee_proto::api::*;
use reqwest::Method;
use std::time::Duration;

impl MetaClient {
    /// Answers after `wait` at the latest, whether the snapshots are complete or not.
    pub async fn create_snapshots(&self, request: &CreateSnapshots, wait: Duration) -> Result<Vec<SnapshotInfo>> {
        let mut repeated = false;
        let path = format!("/v1/snapshots?wait_ms={}", wait.as_millis());
        match self.send_noting(Method::POST, &path, Some(request), &mut repeated).await {
            // An earlier attempt has taken them, all or none.
            Err(error) if repeated && error.is(ProblemKind::Exists) => {
                let mut found = Vec::with_capacity(request.snapshots.len());
                for name in &request.snapshots {
                    found.push(self.snapshot(name).await?);
                }
                Ok(found)
            }
            answer => Ok(self.decode::<CreatedSnapshots>(&path, &answer?)?.snapshots),
        }
    }

    pub async fn snapshot(&self, name: &SnapshotName) -> Result<SnapshotInfo> {
        self.call(Method::GET, &path(name), None::<&()>).await
    }

    pub async fn snapshots(&self, volume: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        let query = volume.map(|name| format!("volume={name}")).unwrap_or_default();
        self.list_with("/v1/snapshots", &query).await
    }

    /// The snapshot as it was, or as it stays; none if it was gone after an attempt that may have taken effect.
    pub async fn delete_snapshot(&self, name: &SnapshotName) -> Result<Option<SnapshotInfo>> {
        let mut repeated = false;
        let path = path(name);
        match self.send_noting(Method::DELETE, &path, None::<&()>, &mut repeated).await {
            Err(error) if repeated && error.is(ProblemKind::NotFound) => Ok(None),
            answer => self.decode(&path, &answer?).map(Some),
        }
    }

    pub async fn rollback(&self, name: &SnapshotName) -> Result<VolumeInfo> {
        let request = Rollback { snapshot: name.snapshot.clone() };
        self.call(Method::POST, &format!("/v1/volumes/{}/rollback", name.volume), Some(&request)).await
    }

    pub async fn create_clones(&self, request: &CreateClones) -> Result<CreatedClones> {
        self.call(Method::POST, "/v1/clones", Some(request)).await
    }

    pub async fn delete_volumes(&self, request: &DeleteVolumes) -> Result<DeletedVolumes> {
        self.call(Method::POST, "/v1/deletions", Some(request)).await
    }

    pub async fn resize(&self, name: &str, request: &ResizeVolume) -> Result<VolumeInfo> {
        self.call(Method::POST, &format!("/v1/volumes/{name}/resize"), Some(request)).await
    }

    pub async fn recover_epochs(&self, name: &str) -> Result<VolumeInfo> {
        self.call(Method::POST, &format!("/v1/volumes/{name}/recover-epochs"), None::<&()>).await
    }

    pub async fn flatten(&self, name: &str) -> Result<VolumeInfo> {
        self.call(Method::POST, &format!("/v1/volumes/{name}/flatten"), None::<&()>).await
    }
}

fn path(name: &SnapshotName) -> String {
    format!("/v1/volumes/{}/snapshots/{}", name.volume, name.snapshot)
}
