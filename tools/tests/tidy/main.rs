//! Rules of the source tree that the compiler does not know: which crate may depend on which, what
//! the pure crates may not touch, where `unsafe` may stand, and how long a file or a function may be.
//!
//! A rule is broken only by an entry in the lists below, with the reason beside it.

mod manifest;
mod source;

use manifest::Manifest;
use source::Source;
use std::path::{Path, PathBuf};

/// Which workspace crates each crate may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("levee-proto", &[]),
    ("levee-core", &["levee-proto"]),
    ("levee-meta-state", &["levee-proto"]),
    ("levee-vhost", &["levee-proto"]),
    ("levee-rdma", &["levee-proto"]),
    ("levee-dataplane", &["levee-core", "levee-vhost", "levee-rdma", "levee-options", "levee-proto"]),
    ("levee-metaserver", &["levee-meta-state", "levee-options", "levee-proto"]),
    ("levee-tools", &["levee-frontend", "levee-image", "levee-options", "levee-proto"]),
    ("levee-options", &[]),
    ("levee-image", &[]),
    ("levee-frontend", &[]),
    ("levee-sim", &["levee-core", "levee-meta-state", "levee-proto"]),
    ("levee-perf", &["levee-frontend", "levee-proto"]),
    ("levee-model", &[]),
];

/// Which more they may have in tests.
const TEST_ARROWS: &[(&str, &[&str])] = &[
    // Its devices are tested with our own front end, too.
    ("levee-vhost", &["levee-frontend"]),
    // The tests with real clusters put load on them.
    ("levee-tools", &["levee-perf"]),
];

/// Crates whose every decision must be repeatable: the simulator and every replica of the meta
/// server's state run them.
const PURE: &[&str] = &["levee-proto", "levee-core", "levee-meta-state"];

/// What a pure crate must not depend on.
const IMPURE_CRATES: &[&str] = &[
    "async-channel",
    "axum",
    "futures",
    "getrandom",
    "glommio",
    "libc",
    "nix",
    "openraft",
    "rand",
    "redb",
    "reqwest",
    "tokio",
    "vhost",
];

/// What a pure crate must not name: clocks, threads, sockets, files, chance. Hash maps are kept out
/// because the order in which they are walked differs from run to run.
const IMPURE_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "std::thread",
    "std::net",
    "std::fs",
    "std::process",
    "HashMap",
    "HashSet",
    "new_v4",
    "now_v7",
];

/// `(file, name)`: uses of [`IMPURE_NAMES`] that do no harm, and why.
const IMPURE_BUT_FINE: &[(&str, &str)] = &[
    // Looked up for every block that clones read, and never walked.
    ("dataplane/core/src/shared/kept.rs", "HashMap"),
    ("dataplane/core/src/shared/kept.rs", "HashSet"),
    // What cores share is tested with several.
    ("dataplane/core/src/shared/tests.rs", "std::thread"),
];

/// Files that may contain `unsafe`, and what for.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("dataplane/src/watchdog.rs", "a signal that wakes an executor"),
    ("vhost/frontend/src/memory.rs", "guest memory shared with the device"),
    ("perf/src/load/driver.rs", "buffers handed to the user-space block driver"),
    ("perf/tests/backend/channel.rs", "descriptors received over a socket"),
    ("rdma/src/recv.rs", "receiving into uninitialised memory"),
    ("rdma/src/tcp.rs", "raw sockets under glommio's"),
    ("tools/src/init/check/uring.rs", "asks the kernel for an io_uring"),
    ("tools/src/local/spawn.rs", "setsid between fork and exec"),
    ("vhost/src/notice.rs", "a descriptor received over a socket"),
    ("vhost/src/eventfd.rs", "kick and call descriptors are handed to glommio"),
    ("vhost/src/guard.rs", "mappings of a front end's files, and the handler of what breaks there"),
    ("vhost/src/message.rs", "asks a socket how much can be read"),
    ("vhost/tests/device/common/driver.rs", "plays a guest's driver in shared memory"),
    ("vhost/tests/device/common/front.rs", "plays QEMU: shared memory and descriptors"),
    ("vhost/tests/device/hostile_guest.rs", "writes nonsense into shared memory"),
    ("vhost/tests/device/hostile_front_end.rs", "borrows the descriptors of a front end"),
];

const MAX_FILE_LINES: usize = 900;
const MAX_FUNCTION_LINES: usize = 90;

/// Files longer than [`MAX_FILE_LINES`], and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// `(file, function)` longer than [`MAX_FUNCTION_LINES`], and why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ is in the workspace").to_path_buf()
}

/// The workspace's crates, by folder.
fn crates() -> Vec<(String, Manifest)> {
    let root = root();
    let members = Manifest::read(&root.join("Cargo.toml")).members;
    assert!(!members.is_empty(), "the workspace has no members");
    members.into_iter().map(|folder| (folder.clone(), Manifest::read(&root.join(&folder).join("Cargo.toml")))).collect()
}

/// The sources of one crate, without those of crates in folders below.
fn sources(folder: &str, all: &[(String, Manifest)]) -> Vec<Source> {
    let nested: Vec<_> = all.iter().map(|(other, _)| other.as_str()).filter(|other| *other != folder).collect();
    source::under(&root(), folder, &nested)
}

#[track_caller]
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn crates_depend_on_what_they_may() {
    let all = crates();
    let names: Vec<_> = all.iter().map(|(_, manifest)| manifest.name.as_str()).collect();
    let mut complaints = Vec::new();
    for (folder, manifest) in &all {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == manifest.name) else {
            complaints.push(format!("{folder}: crate {} has no arrows in tools/tests/tidy/main.rs", manifest.name));
            continue;
        };
        let in_tests = TEST_ARROWS.iter().find(|(name, _)| *name == manifest.name).map_or(&[][..], |(_, more)| more);
        for dependency in &manifest.dependencies {
            let name = dependency.name.as_str();
            let may = allowed.contains(&name) || (dependency.dev && in_tests.contains(&name));
            if names.contains(&name) && !may {
                complaints.push(format!("{folder}: {} must not depend on {}", manifest.name, dependency.name));
            }
        }
    }
    report(&complaints);
}

#[test]
fn versions_are_named_once_in_the_workspace() {
    let mut complaints = Vec::new();
    for (folder, manifest) in crates() {
        for dependency in manifest.dependencies.iter().filter(|dependency| !dependency.workspace) {
            complaints.push(format!("{folder}: dependency {} must say workspace = true", dependency.name));
        }
        if !manifest.workspace_lints {
            complaints.push(format!("{folder}: [lints] must say workspace = true"));
        }
    }
    report(&complaints);
}

#[test]
fn pure_crates_are_pure() {
    let all = crates();
    let mut complaints = Vec::new();
    for (folder, manifest) in all.iter().filter(|(_, manifest)| PURE.contains(&manifest.name.as_str())) {
        for dependency in manifest.dependencies.iter().filter(|d| IMPURE_CRATES.contains(&d.name.as_str())) {
            complaints.push(format!("{folder}: a pure crate must not depend on {}", dependency.name));
        }
        for source in sources(folder, &all) {
            for name in IMPURE_NAMES {
                let fine = IMPURE_BUT_FINE.contains(&(source.path.as_str(), name));
                for line in source.lines_with(name).into_iter().filter(|_| !fine) {
                    complaints.push(format!("{}:{line}: {name} in a pure crate", source.path));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn pure_crates_forbid_unsafe() {
    let mut complaints = Vec::new();
    for (folder, _) in crates().iter().filter(|(_, manifest)| PURE.contains(&manifest.name.as_str())) {
        let text = std::fs::read_to_string(root().join(folder).join("src/lib.rs")).expect("a pure crate is a library");
        if !text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{folder}/src/lib.rs must say #![forbid(unsafe_code)]"));
        }
    }
    report(&complaints);
}

#[test]
fn unsafe_stands_in_named_files() {
    let all = crates();
    let mut complaints = Vec::new();
    let mut seen = Vec::new();
    for (folder, _) in &all {
        for source in sources(folder, &all) {
            let Some(line) = source.lines_with("unsafe").first().copied() else { continue };
            if !UNSAFE_FILES.iter().any(|(file, _)| *file == source.path) {
                complaints.push(format!("{}:{line}: unsafe, but the file is not listed in UNSAFE_FILES", source.path));
            }
            seen.push(source.path);
        }
    }
    for (file, _) in UNSAFE_FILES.iter().filter(|(file, _)| !seen.iter().any(|seen| seen == file)) {
        complaints.push(format!("{file} is listed in UNSAFE_FILES, but contains none"));
    }
    report(&complaints);
}

#[test]
fn files_and_functions_stay_small() {
    let all = crates();
    let mut complaints = Vec::new();
    for source in all.iter().flat_map(|(folder, _)| sources(folder, &all)) {
        let path = &source.path;
        let lines = source.line_count();
        if lines > MAX_FILE_LINES && !LONG_FILES.iter().any(|(file, _)| file == path) {
            complaints.push(format!("{path} has {lines} lines, more than {MAX_FILE_LINES}: which module was missed?"));
        }
        for (name, line, length) in source.functions() {
            let listed = LONG_FUNCTIONS.iter().any(|(file, function, _)| file == path && *function == name);
            if length > MAX_FUNCTION_LINES && !listed {
                complaints.push(format!("{path}:{line}: fn {name} has {length} lines, more than {MAX_FUNCTION_LINES}"));
            }
        }
    }
    report(&complaints);
}
