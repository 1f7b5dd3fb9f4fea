//! How much a volume and its snapshots take up.

use super::Volume;
use levee_proto::api::UsageEvent;

impl Volume {
    /// Counts it; tells progress, and last what was found.
    pub async fn usage(&self, events: async_channel::Sender<UsageEvent>) {
        let tell = |done, total| {
            // A reader that is slow misses progress, never the outcome.
            let _ = events.try_send(UsageEvent::Progress { done, total });
        };
        let last = match self.0.gateway.usage(tell).await {
            Ok(usage) => UsageEvent::Done(usage),
            Err(detail) => UsageEvent::Failed { detail },
        };
        let _ = events.send(last).await;
    }
}
