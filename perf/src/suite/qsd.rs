//! One unreplicated copy: qemu-storage-daemon's vhost-user-blk export of a file.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const PROGRAM: &str = "qemu-storage-daemon";
const START_LIMIT: Duration = Duration::from_secs(20);

pub fn check() -> Result<()> {
    let found = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status();
    ensure!(found.is_ok_and(|s| s.success()), "{PROGRAM} does not run: install it, or run `make deps`");
    Ok(())
}

/// The running daemon. Dropping it ends it.
pub struct StorageDaemon {
    child: Child,
    pub socket: PathBuf,
}

impl StorageDaemon {
    /// Exports `file` on a socket in `dir`, by io_uring where QEMU has it.
    pub fn start(dir: &Path, file: &Path) -> Result<StorageDaemon> {
        StorageDaemon::start_with(dir, file, "io_uring").or_else(|_| StorageDaemon::start_with(dir, file, "native"))
    }

    fn start_with(dir: &Path, file: &Path, aio: &str) -> Result<StorageDaemon> {
        let socket = dir.join("qsd.sock");
        if socket.exists() {
            std::fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display()))?;
        }
        let child = Command::new(PROGRAM)
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={},cache.direct=on,aio={aio}", file.display()))
            .args(["--blockdev", "driver=raw,node-name=disk,file=file", "--export"])
            .arg(format!(
                "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={},writable=on",
                socket.display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let mut daemon = StorageDaemon { child, socket };
        daemon.wait_for_socket(aio)?;
        Ok(daemon)
    }

    fn wait_for_socket(&mut self, aio: &str) -> Result<()> {
        let until = Instant::now() + START_LIMIT;
        while !self.socket.exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{PROGRAM} with aio={aio} ended at once ({status})");
            }
            ensure!(Instant::now() < until, "{PROGRAM} made no socket within {} s", START_LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
