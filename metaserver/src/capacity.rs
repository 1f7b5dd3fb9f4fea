//! How full the cluster is: what it has promised, and what daemons report of their disks.
//!
//! Reports are the leader's alone, and not replicated: so what is refused because disks are full is refused before it is proposed.
//! Deleting, discarding, repairing and writing to what exists go on until disks are really full.

use crate::app::App;
use crate::observe::Observed;
use crate::request::is_repeated;
use levee_meta_state::State;
use levee_proto::api::*;
use levee_proto::units::show_size;

/// How full the cluster is, as far as is known.
pub fn info(state: &State, observed: &Observed) -> CapacityInfo {
    let limits = state.limits();
    let in_service = state.disks().filter(|(_, disk)| disk.state() == DiskState::InService);
    let (mut used, mut reported) = (0_u64, 0_u64);
    for (id, disk) in in_service {
        if let Some(bytes) = observed.used(disk.node, id) {
            used = used.saturating_add(bytes);
            reported = reported.saturating_add(disk.capacity);
        }
    }
    let level = level(&limits, used, reported);
    CapacityInfo {
        limits,
        capacity: state.capacity(),
        provisioned: saturated(state.provisioned()),
        provisionable: state.provisionable().map(saturated),
        used,
        reported,
        level,
        detail: detail(level, &limits, used, reported),
    }
}

fn saturated(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Nothing is said of a cluster that nothing is known of.
fn level(limits: &CapacityLimits, used: u64, reported: u64) -> CapacityLevel {
    let reaches = |percent: Option<u8>| {
        percent.is_some_and(|percent| u128::from(used) * 100 >= u128::from(reported) * u128::from(percent))
    };
    match () {
        () if reported == 0 => CapacityLevel::Fine,
        () if reaches(limits.full_percent) => CapacityLevel::Full,
        () if reaches(limits.warn_percent) => CapacityLevel::Warn,
        () => CapacityLevel::Fine,
    }
}

fn detail(level: CapacityLevel, limits: &CapacityLimits, used: u64, reported: u64) -> Option<String> {
    let percent = u128::from(used) * 100 / u128::from(reported.max(1));
    let so = format!("{} of {} on disks in service are used ({percent} %)", show_size(used), show_size(reported));
    let todo = "add disks or nodes, delete volumes or snapshots, or discard in guests";
    match level {
        CapacityLevel::Fine => None,
        CapacityLevel::Warn => {
            let full =
                limits.full_percent.map(|full| format!("; from {full} % on, nothing new is taken")).unwrap_or_default();
            Some(format!("the cluster fills up: {so}{full}: {todo}"))
        }
        CapacityLevel::Full => Some(format!(
            "the cluster is full: {so}, and new volumes, clones, snapshots and growth are refused: {todo}"
        )),
    }
}

/// Refuses what would take more while the cluster counts as full.
pub fn check(app: &App, what: impl FnOnce() -> String) -> Result<(), Problem> {
    if is_repeated() {
        return Ok(());
    }
    let info = app.observed(|observed, _| app.replicated.read(|state| info(state, observed)));
    match info.detail.filter(|_| info.level == CapacityLevel::Full) {
        None => Ok(()),
        Some(detail) => Err(Problem::new(ProblemKind::NoSpace, format!("{}: {detail}", what()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_reached_exactly() {
        let limits = CapacityLimits::default();
        let levels = [0, 79, 80, 94, 95, 100, 101].map(|used| level(&limits, used, 100));
        use CapacityLevel::*;
        assert_eq!(levels, [Fine, Fine, Warn, Warn, Full, Full, Full]);
        assert_eq!(level(&limits, 0, 0), Fine, "nothing is known");
        assert_eq!(level(&limits, u64::MAX, u64::MAX), Full);
        let none = CapacityLimits { warn_percent: None, full_percent: None, ..limits };
        assert_eq!(level(&none, 100, 100), Fine);
        let late = CapacityLimits { warn_percent: None, ..limits };
        assert_eq!([94, 95].map(|used| level(&late, used, 100)), [Fine, Full]);
    }

    #[test]
    fn what_is_said_has_figures_and_what_to_do() {
        let limits = CapacityLimits::default();
        let said = |level, used: u64| detail(level, &limits, used << 30, 100 << 30);
        assert_eq!(said(CapacityLevel::Fine, 0), None);
        let warning = said(CapacityLevel::Warn, 80).unwrap();
        assert!(
            warning.contains("80 GiB of 100 GiB") && warning.contains("from 95 % on") && warning.contains("add disks")
        );
        assert!(said(CapacityLevel::Full, 96).unwrap().contains("are refused"));
    }
}
