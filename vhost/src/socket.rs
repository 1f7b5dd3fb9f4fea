//! The socket file of a device.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, chown};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why a device is not served.
#[derive(Debug)]
pub enum ServeError {
    /// Another process answers at the path.
    InUse(PathBuf),
    /// Something that is not a socket is at the path.
    NotASocket(PathBuf),
    /// The configuration is out of bounds.
    Config(&'static str),
    /// The system refused it.
    System { path: PathBuf, source: io::Error },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::InUse(path) => {
                write!(f, "socket path {} is in use by another process; stop it or choose another path", path.display())
            }
            ServeError::NotASocket(path) => {
                write!(f, "{} exists and is not a socket; remove it or choose another path", path.display())
            }
            ServeError::Config(why) => f.write_str(why),
            ServeError::System { path, source } => write!(f, "cannot serve at {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Who may connect, beside root: else it is as the process's umask says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub owner: Option<Uid>,
    pub group: Option<Gid>,
}

impl Access {
    /// As bits of a mode; `None`: nobody is named.
    fn mode(&self) -> Option<u32> {
        match (self.owner, self.group) {
            (None, None) => None,
            (_, Some(_)) => Some(0o660),
            (Some(_), None) => Some(0o600),
        }
    }
}

/// A listening socket; its file is removed with it, unless somebody else has replaced it.
pub(crate) struct Socket {
    pub listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Listens at `path`. A socket that nobody listens to any more is replaced.
    pub fn listen(path: &Path, access: Access) -> Result<Self, ServeError> {
        let system = |source| ServeError::System { path: path.to_owned(), source };
        remove_stale(path)?;
        let listener = bind_closed(path, access).map_err(|e| match e {
            Errno::EADDRINUSE => ServeError::InUse(path.to_owned()),
            e => system(e.into()),
        })?;
        let inode = inode(path).map_err(system)?;
        let socket = Socket { listener, path: path.to_owned(), inode };
        if let Some(mode) = access.mode() {
            chown(path, access.owner, access.group).map_err(|e| system(e.into()))?;
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(system)?;
        }
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // If it cannot be removed the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at the path. Where somebody is named who may connect, nobody else may before that has been said: the kernel makes the file
/// with the mode that the socket has.
fn bind_closed(path: &Path, access: Access) -> nix::Result<UnixListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if access.mode().is_some() {
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let system = |source| ServeError::System { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match try_connect(path) {
        Err(Errno::ECONNREFUSED) => match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(system(e)),
            _ => Ok(()),
        },
        Err(Errno::ENOENT) => Ok(()),
        // Connected, or its owner is too busy to accept.
        Ok(()) | Err(Errno::EAGAIN) => Err(ServeError::InUse(path.to_owned())),
        Err(e) => Err(system(e.into())),
    }
}

fn try_connect(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let first = Socket::listen(&path, Access::default()).unwrap();
        assert!(matches!(Socket::listen(&path, Access::default()), Err(ServeError::InUse(_))));
        // As a killed process leaves it: the file without a listener.
        let Socket { listener, .. } = &first;
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        let second = Socket::listen(&path, Access::default()).unwrap();
        drop(first);
        assert!(path.exists(), "the file now belongs to the second listener");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_who_is_named_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let (owner, group) = (Some(Uid::current()), Some(Gid::current()));
        for (access, mode) in [(Access { owner, group: None }, 0o600), (Access { owner: None, group }, 0o660)] {
            let socket = Socket::listen(&path, access).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            try_connect(&path).unwrap();
            drop(socket);
        }
        assert!(Socket::listen(&path, Access::default()).is_ok());
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(Socket::listen(&path, Access::default()), Err(ServeError::NotASocket(_))));
        assert!(matches!(Socket::listen(dir.path(), Access::default()), Err(ServeError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        assert!(matches!(
            Socket::listen(&dir.path().join("no/such"), Access::default()),
            Err(ServeError::System { .. })
        ));
    }
}
