//! Starting a daemon in a session of its own, so that neither the terminal's Ctrl-C nor its end reaches it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts `program` detached, with its output appended to `log`, in the network namespace of a file if there is one.
pub fn detached(program: &Path, args: &[OsString], log: &Path, namespace: Option<&Path>) -> io::Result<Child> {
    let namespace = namespace.map(open_namespace).transpose()?;
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    // SAFETY: `enter` and `leave_parent` make three system calls and nothing else between fork and exec.
    unsafe {
        command.pre_exec(move || {
            namespace.as_ref().map_or(Ok(()), enter)?;
            leave_parent()
        });
    }
    command.spawn()
}

/// Does something in the network namespace of a file, on a thread of its own.
pub fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = open_namespace(namespace)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(&namespace)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}

fn open_namespace(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|e| io::Error::new(e.kind(), format!("network namespace {}: {e}", path.display())))
}

/// Moves the calling thread, which is all there is of a new process, into a network namespace.
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: takes a descriptor that is open; no memory is touched.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
