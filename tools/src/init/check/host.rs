//! What the host itself must offer: kernel, io_uring, locked memory, the services and their user.

use super::{Finding, USER, uring};
use crate::limits::MIN_LOCKED_MEMORY;
use levee_proto::units::show_size;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::User;
use std::path::Path;

/// The oldest kernel that the storage daemon's io_uring library takes.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
/// Where packages and operators put services.
const UNIT_FOLDERS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub fn kernel() -> Vec<Finding> {
    vec![version(), io_uring(), locked_memory()]
}

fn version() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = OLDEST_KERNEL;
    match parse_version(release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok("kernel", release),
        _ => Finding::missing("kernel", release, format!("use Linux {major}.{minor} or newer")),
    }
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn io_uring() -> Finding {
    match uring::available() {
        Ok(()) => Finding::ok("io_uring", "the kernel gives one"),
        Err(e) => Finding::missing(
            "io_uring",
            format!("the kernel refuses it: {e}"),
            "set the sysctl kernel.io_uring_disabled to 0; in a container, allow the io_uring system calls",
        ),
    }
}

/// The service sets its own limit; without it, that of whoever starts the daemon counts.
fn locked_memory() -> Finding {
    if has_unit("levee-stored") {
        return Finding::ok("locked memory", "the service sets its limit");
    }
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    let detail = if limit == u64::MAX { "unlimited".into() } else { show_size(limit) };
    if limit >= MIN_LOCKED_MEMORY {
        return Finding::ok("locked memory", detail);
    }
    let to_do = format!("start the daemon with `ulimit -l` of at least {} KiB", MIN_LOCKED_MEMORY >> 10);
    Finding::missing("locked memory", detail, to_do)
}

/// Daemons may be started in other ways, so none of this is an obstacle.
pub fn services() -> Vec<Finding> {
    let units = has_unit("levee-stored") && has_unit("levee-metad");
    let user = User::from_name(USER).ok().flatten().is_some();
    vec![match (units, user) {
        (true, true) => Finding::ok("services", "installed"),
        (true, false) => Finding::missing("services", format!("there is no user {USER}"), "install the package again"),
        (false, _) => Finding::note("services", "not installed", "the package brings them"),
    }]
}

fn has_unit(name: &str) -> bool {
    UNIT_FOLDERS.iter().any(|folder| Path::new(folder).join(format!("{name}.service")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_versions() {
        assert_eq!(parse_version("6.1.0-40-amd64"), Some((6, 1)));
        assert_eq!(parse_version("5.15-rc1"), Some((5, 15)));
        assert_eq!(parse_version("linux"), None);
    }
}
