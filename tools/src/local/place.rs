//! Where a daemon of an embedded cluster listens: on the loopback, or in a network namespace of its own, so
//! that the links between daemons can be cut one by one.
//!
//! The namespaces are made by whoever asks for them, beforehand.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where `ip netns add` puts namespaces.
const NAMESPACES: &str = "/run/netns";

/// Names and addresses of the namespaces: `PREFIX-DAEMON` at `SUBNET.N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub prefix: String,
    pub subnet: [u8; 3],
}

/// Where one daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    #[serde(default = "loopback", skip_serializing_if = "is_loopback")]
    pub host: Ipv4Addr,
    /// The network namespace that it is started in; absent: that of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn loopback() -> Ipv4Addr {
    LOOPBACK
}

fn is_loopback(host: &Ipv4Addr) -> bool {
    *host == LOOPBACK
}

impl Place {
    /// Place of a daemon; `number` tells its address in the network.
    pub fn of(network: Option<&Network>, daemon: &str, number: u16) -> Place {
        let Some(Network { prefix, subnet: [a, b, c] }) = network else {
            return Place { host: LOOPBACK, namespace: None };
        };
        // Limits on nodes and meta servers keep numbers within a byte.
        let host = Ipv4Addr::new(*a, *b, *c, number as u8);
        Place { host, namespace: Some(format!("{prefix}-{daemon}")) }
    }

    pub fn with_port(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    /// The file that stands for the namespace.
    pub fn namespace_file(&self) -> Option<PathBuf> {
        self.namespace.as_ref().map(|name| PathBuf::from(NAMESPACES).join(name))
    }

    /// Whether the namespace's name leads nowhere else.
    pub fn is_plain(&self) -> bool {
        self.namespace.as_deref().is_none_or(levee_proto::api::is_valid_name)
    }
}
