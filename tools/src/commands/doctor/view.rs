//! What a diagnosis is made from.

use crate::client::MetaClient;
use crate::commands::capacity;
use levee_proto::api::{
    CapacityInfo, ClusterInfo, DiskInfo, MaintenanceInfo, MemberInfo, NodeInfo, RebalanceStatus, RecoveryInfo,
    RepairInfo, VolumeInfo,
};

pub struct View {
    pub members: Vec<Member>,
    /// Or why the meta servers cannot tell.
    pub stored: Result<Stored, String>,
}

/// A meta server, asked itself.
pub struct Member {
    pub info: MemberInfo,
    /// Up to where it has applied the log; absent if it does not answer.
    pub applied: Option<u64>,
}

pub struct Stored {
    pub nodes: Vec<NodeInfo>,
    pub disks: Vec<DiskInfo>,
    pub volumes: Vec<VolumeInfo>,
    pub repair: RepairInfo,
    /// None if the meta servers do not know.
    pub capacity: Option<CapacityInfo>,
    pub maintenance: MaintenanceInfo,
    pub rebalance: RebalanceStatus,
    pub recovery: RecoveryInfo,
}

impl View {
    pub async fn of(meta: &MetaClient) -> anyhow::Result<View> {
        let cluster = meta.cluster().await?;
        let members = ask(&cluster).await;
        let stored = match cluster.leader {
            Some(_) => Ok(Stored::of(meta).await?),
            None => Err("the meta servers have no leader".into()),
        };
        Ok(View { members, stored })
    }
}

impl Stored {
    async fn of(meta: &MetaClient) -> anyhow::Result<Stored> {
        Ok(Stored {
            nodes: meta.nodes().await?,
            disks: meta.disks().await?,
            volumes: meta.volumes().await?,
            repair: meta.repair().await?,
            capacity: capacity::look(meta).await?,
            // Meta servers of an earlier version do not know.
            maintenance: meta.maintenance().await.unwrap_or_default(),
            rebalance: meta.rebalance_status().await.unwrap_or_default(),
            recovery: meta.recovery().await.unwrap_or_default(),
        })
    }
}

/// The leader first, so that nobody seems behind for what was committed while the others were asked.
async fn ask(cluster: &ClusterInfo) -> Vec<Member> {
    let mut infos: Vec<&MemberInfo> = cluster.members.iter().collect();
    infos.sort_by_key(|info| (Some(info.id) != cluster.leader, info.id));
    let mut members = Vec::new();
    for info in infos {
        let answer = MetaClient::new(vec![info.url.clone()], String::new()).cluster().await;
        members.push(Member { info: info.clone(), applied: answer.ok().map(|a| a.applied) });
    }
    members
}
