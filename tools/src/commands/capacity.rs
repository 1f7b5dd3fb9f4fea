//! `levee cluster limits`: how much the cluster may promise and take, and how it stands.

use crate::client::{ClientError, MetaClient};
use crate::output::Output;
use levee_proto::api::{CapacityInfo, ChangeLimits, ProblemKind};
use levee_proto::units::{show_ratio, show_size};

pub async fn limits(meta: &MetaClient, change: Option<&ChangeLimits>, out: &Output) -> anyhow::Result<()> {
    let info = match change {
        Some(change) => meta.set_limits(change).await?,
        None => meta.capacity().await?,
    };
    out.result(&info, || describe(&info))
}

/// Meta servers of an earlier version do not know; that is no reason to say nothing of everything else.
pub async fn look(meta: &MetaClient) -> Result<Option<CapacityInfo>, ClientError> {
    match meta.capacity().await {
        Ok(info) => Ok(Some(info)),
        Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::NotFound => Ok(None),
        Err(ClientError::Unexpected { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(info: &CapacityInfo) -> String {
    let limits = info.limits;
    let provisioned = match (info.provisionable, limits.over_provision_percent) {
        (Some(most), Some(percent)) => format!("at most {} times, {}", show_ratio(percent.into()), show_size(most)),
        _ => "no limit".into(),
    };
    let percent = |percent: Option<u8>| percent.map_or("never".into(), |percent| format!("from {percent} % on"));
    let used = match info.reported {
        0 => "not known yet: no daemon has reported".into(),
        reported => format!("{} of {} ({} %)", show_size(info.used), show_size(reported), share(info.used, reported)),
    };
    let times = show_ratio(share(info.provisioned, info.capacity));
    let mut lines = vec![
        format!("Capacity        {} on disks in service", show_size(info.capacity)),
        format!("Provisioned     {} in all copies ({} times)", show_size(info.provisioned), times),
        format!("Over-provision  {provisioned}"),
        format!("Used            {used}"),
        format!("Warn            {}", percent(limits.warn_percent)),
        format!("Full            {}", percent(limits.full_percent)),
    ];
    lines.extend(info.detail.iter().map(|detail| format!("State           {detail}")));
    lines.join("\n")
}

/// Percent, rounded down; of nothing: 0.
fn share(part: u64, whole: u64) -> u128 {
    u128::from(part) * 100 / u128::from(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::api::{CapacityLevel, CapacityLimits};

    #[test]
    fn figures_and_limits_are_said() {
        let mut info = CapacityInfo {
            limits: CapacityLimits::default(),
            capacity: 100 << 30,
            provisioned: 150 << 30,
            provisionable: None,
            used: 81 << 30,
            reported: 100 << 30,
            level: CapacityLevel::Warn,
            detail: Some("the cluster fills up".into()),
        };
        let text = describe(&info);
        for line in [
            "Provisioned     150 GiB in all copies (1.50 times)",
            "Over-provision  no limit",
            "Used            81 GiB of 100 GiB (81 %)",
            "Warn            from 80 % on",
            "Full            from 95 % on",
            "State           the cluster fills up",
        ] {
            assert!(text.contains(line), "{text}");
        }
        info.limits = CapacityLimits { over_provision_percent: Some(205), warn_percent: None, full_percent: None };
        (info.provisionable, info.reported, info.capacity) = (Some(205 << 30), 0, 0);
        let text = describe(&info);
        for line in ["at most 2.05 times, 205 GiB", "not known yet", "Warn            never", "Full            never"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
