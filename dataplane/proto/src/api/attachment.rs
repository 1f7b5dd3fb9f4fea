//! Who asks: which attachment of which volume a gateway speaks for, and how it comes to its epoch.

use crate::ids::{Epoch, NodeId, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The attachment of a volume that a gateway serves. Goes with every call of a gateway, in the query
/// (`?volume=17&attachment=5`): a name can be given to another volume, whose epochs begin at 1 again; neither id is ever given
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct AttachmentId {
    pub volume: VolumeId,
    /// [`super::AttachIntent::attachment`].
    pub attachment: u64,
}

impl AttachmentId {
    /// As the query of a call.
    pub fn query(&self) -> String {
        format!("volume={}&attachment={}", self.volume, self.attachment)
    }
}

/// A gateway asks for its epoch. The same incarnation may ask again and gets the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenVolume {
    pub node: NodeId,
    /// The one that the process registered with ([`super::RegisterNode::incarnation`]); an older one is refused.
    pub incarnation: Uuid,
    /// From [`super::AttachIntent`]: an answer to an attachment that is over is refused.
    pub attachment: u64,
    /// An epoch that this process was given for this attachment, and that copies refused: they have seen a larger one. It gets another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Epoch>,
}
