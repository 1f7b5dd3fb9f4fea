//! The verified load against a daemon that is right, crashes, or is wrong in one particular way: what is
//! right must pass, and every wrong must be found.

mod backend;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backend::{Backend, Fault};
use levee_perf::torture::{Control, Options, Report, run};

const SIZE: usize = 2 << 20;

fn options(socket: &Path) -> Options {
    Options {
        socket: socket.to_path_buf(),
        time: Duration::MAX,
        seed: 11,
        depth: 16,
        queues: 2,
        size_limit: SIZE as u64,
        unit: 4096,
        fresh: true,
        discard_may_keep: false,
        state: None,
        stall_limit: Duration::from_secs(60),
    }
}

/// Runs until so many requests have completed, or the run ends by itself.
fn torture(options: &Options, completions: u64) -> Report {
    let control = Control::default();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| run(options, &control).unwrap());
        while control.completions() < completions && !load.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        control.stop();
        load.join().unwrap()
    })
}

fn with_fault(fault: Fault) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), SIZE, fault, 0);
    torture(&options(&backend.socket), 3000)
}

#[test]
fn a_right_daemon_passes() {
    for unit in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::start(dir.path(), SIZE, Fault::None, 0);
        let report = torture(&Options { unit, ..options(&backend.socket) }, 3000);
        assert!(report.ok() && report.tracks_inflight, "{report:?}");
        assert!(report.ops.total >= 3000 && report.ops.discard > 0 && report.ops.write_zeroes > 0, "{report:?}");
        assert!(report.units_checked >= (SIZE / unit) as u64);
    }
}

#[test]
fn crashes_lose_nothing_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), SIZE, Fault::None, 100);
    let report = torture(&options(&backend.socket), 1500);
    assert!(report.ok(), "{report:?}");
    assert!(report.reconnects >= 10, "{report:?}");
    assert_eq!(report.reconnects, backend.shared.crashes.load(Ordering::SeqCst));
    assert_eq!(report.first_completion_ms.len() as u64, report.reconnects);
}

#[test]
fn a_lost_write_is_found() {
    let report = with_fault(Fault::LoseWrite(1000));
    assert!(report.lost > 0 && !report.ok(), "{report:?}");
    assert!(report.findings[0].starts_with("lost write at byte"), "{report:?}");
}

#[test]
fn a_misplaced_write_is_found() {
    let report = with_fault(Fault::MisplaceWrite(1000));
    assert!(report.lost + report.wrong > 0 && !report.ok(), "{report:?}");
}

#[test]
fn a_flipped_bit_is_found() {
    let report = with_fault(Fault::CorruptWrite(1000));
    assert!(report.wrong > 0 && !report.ok(), "{report:?}");
    assert!(report.findings[0].contains("torn unit"), "{report:?}");
}

#[test]
fn a_failed_write_is_an_error_but_no_loss() {
    let report = with_fault(Fault::FailWrite(1000));
    assert_eq!((report.lost, report.wrong), (0, 0), "{report:?}");
    assert!(report.io_errors > 0 && !report.ok());
}

#[test]
fn a_completion_of_a_stranger_breaks_the_protocol() {
    let report = with_fault(Fault::CompleteStranger(1000));
    assert!(report.protocol_error.is_some_and(|e| e.contains("not the head")));
}

#[test]
fn requests_forgotten_in_a_crash_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), SIZE, Fault::ForgetInflight, 200);
    let options = Options { stall_limit: Duration::from_secs(1), ..options(&backend.socket) };
    let report = torture(&options, u64::MAX);
    assert!(report.stuck.is_some_and(|s| s.contains("requests in flight and none completed")));
    assert!(!report.read_back_complete);
}

#[test]
fn a_later_run_checks_what_an_earlier_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), SIZE, Fault::None, 0);
    let with_state = Options { state: Some(dir.path().join("state.json")), ..options(&backend.socket) };
    assert!(torture(&with_state, 1000).ok());
    let read_back = Options { time: Duration::ZERO, ..with_state };
    let again = torture(&read_back, u64::MAX);
    assert!(again.ok() && again.ops.total == 0, "{again:?}");
    assert_eq!(again.units_checked, (SIZE / 4096) as u64);
    let unit = {
        let mut disk = backend.shared.disk.lock().unwrap();
        let unit = disk.chunks(4096).position(|u| u[0] != 0).unwrap();
        disk[unit * 4096..(unit + 1) * 4096].fill(0);
        unit
    };
    let after = torture(&read_back, u64::MAX);
    assert_eq!((after.lost, after.wrong), (1, 0), "unit {unit}: {after:?}");
}
