//! Requests about nodes, disks, placement, rebalancing, maintenance and events.

use super::{AdminClient, Attempt, ClientError, MetaClient, Result, attempt, percent_encode};
use levee_proto::api::*;
use levee_proto::ids::{DiskId, NodeId};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl MetaClient {
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        self.call(method, path, None::<&()>).await
    }

    async fn tell<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn set_node(&self, node: NodeId, request: &SetNodeState) -> Result<NodeInfo> {
        self.tell(&format!("/v1/nodes/{node}/state"), request).await
    }

    pub async fn remove_node(&self, node: NodeId, force: bool) -> Result<NodeInfo> {
        self.ask(Method::DELETE, &format!("/v1/nodes/{node}?force={force}")).await
    }

    pub async fn remove_disk(&self, disk: DiskId, force: bool) -> Result<DiskInfo> {
        self.ask(Method::DELETE, &format!("/v1/disks/{disk}?force={force}")).await
    }

    pub async fn set_weight(&self, disk: DiskId, weight: u32) -> Result<DiskInfo> {
        self.tell(&format!("/v1/disks/{disk}/weight"), &SetDiskWeight { weight }).await
    }

    pub async fn placement(&self) -> Result<PlacementPolicy> {
        self.ask(Method::GET, "/v1/placement").await
    }

    pub async fn set_placement(&self, change: &ChangePlacement) -> Result<PlacementPolicy> {
        self.tell("/v1/placement", change).await
    }

    pub async fn what_if(&self, request: &WhatIf) -> Result<Forecast> {
        self.tell("/v1/what-if", request).await
    }

    pub async fn rebalance_plan(&self, request: &RebalanceRequest) -> Result<RebalancePlan> {
        self.tell("/v1/rebalance/plan", request).await
    }

    pub async fn rebalance(&self, request: &RebalanceRequest) -> Result<RebalanceStatus> {
        self.tell("/v1/rebalance", request).await
    }

    pub async fn rebalance_status(&self) -> Result<RebalanceStatus> {
        self.ask(Method::GET, "/v1/rebalance").await
    }

    pub async fn cancel_rebalance(&self) -> Result<RebalanceStatus> {
        self.ask(Method::DELETE, "/v1/rebalance").await
    }

    pub async fn accept_loss(&self, volume: &str) -> Result<VolumeInfo> {
        self.ask(Method::POST, &format!("/v1/volumes/{volume}/accept-loss")).await
    }

    pub async fn maintenance(&self) -> Result<MaintenanceInfo> {
        self.ask(Method::GET, "/v1/maintenance").await
    }

    pub async fn start_maintenance(&self, request: &StartMaintenance) -> Result<MaintenanceInfo> {
        self.tell("/v1/maintenance", request).await
    }

    pub async fn end_maintenance(&self, node: Option<&str>) -> Result<MaintenanceInfo> {
        let query = node.map(|node| format!("?node={}", percent_encode(node))).unwrap_or_default();
        self.ask(Method::DELETE, &format!("/v1/maintenance{query}")).await
    }

    pub async fn events(&self, after: Option<u64>, limit: u16, wait_ms: u64) -> Result<EventPage> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        self.ask(Method::GET, &format!("/v1/events?limit={limit}&wait_ms={wait_ms}{after}")).await
    }
}

impl AdminClient {
    pub async fn add_disk(&self, request: &AddDisk) -> Result<AddedDisk> {
        self.change("/v1/disks", Some(request)).await
    }

    pub async fn remove_disk(&self, disk: DiskId) -> Result<RemovedDisk> {
        self.change(&format!("/v1/disks/{disk}/remove"), None::<&()>).await
    }

    async fn change<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: Option<&B>) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let answer = match attempt(&self.http, &Method::POST, &url, body, None).await {
            Ok(answer) => answer?,
            Err(Attempt::NotTaken(reason)) => return Err(self.unreachable(reason)),
            Err(Attempt::Lost(reason)) => return Err(ClientError::NoAnswer { url, reason }),
        };
        serde_json::from_slice(&answer).map_err(|e| ClientError::Unexpected { url, detail: e.to_string() })
    }
}
