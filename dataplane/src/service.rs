//! A core's replicas as other daemons reach them.

use crate::disks::DaemonDisk;
use crate::ports::GlommioRuntime;
use bytes::Bytes;
use levee_core::replica::ReplicaService;
use levee_proto::NodeId;
use levee_proto::wire::Request;
use levee_rdma::{Responder, Service};

pub type Replicas = ReplicaService<DaemonDisk, GlommioRuntime>;

/// Answers requests with this core's replicas.
pub struct ReplicaLink(pub Replicas);

impl Service for ReplicaLink {
    fn handle(&self, _from: NodeId, request: Request, data: Bytes, reply: Responder) {
        self.0.handle(request, data, Box::new(move |answer, data| reply.send(answer, data)));
    }
}
