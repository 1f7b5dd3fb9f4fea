//! Starting a daemon in a session of its own, so that neither the terminal's Ctrl-C nor its end reaches it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts `program` detached, with its output appended to `log`.
pub fn detached(program: &Path, args: &[OsString], log: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    // SAFETY: `leave_parent` makes two system calls and nothing else between fork and exec.
    unsafe {
        command.pre_exec(leave_parent);
    }
    command.spawn()
}

/// Gives the new process its own session, and none of the descriptors that this one was started
/// with: a daemon must not keep somebody's pipe or lock open.
fn leave_parent() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: marks descriptors to be closed by exec; no memory is touched. Where the kernel cannot
    // do it, they are inherited, which does no harm to the daemon itself.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}
