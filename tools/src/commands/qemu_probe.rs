//! What the QEMU on this machine can do.

use crate::limits::PROBE_TIMEOUT;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::io::AsyncWriteExt;

/// Has QEMU set up a machine and leave at once.
const QUIT: &[u8] = br#"{"execute":"qmp_capabilities"}{"execute":"quit"}"#;

/// Whether QEMU can use KVM. Being able to open the device does not say so: under another
/// hypervisor KVM may be there and yet fail to run a processor. So it is tried.
pub async fn kvm_is_usable(program: &Path) -> bool {
    let opens = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    opens && tokio::time::timeout(PROBE_TIMEOUT, try_kvm(program)).await.is_ok_and(|tried| tried.unwrap_or(false))
}

async fn try_kvm(program: &Path) -> std::io::Result<bool> {
    let mut qemu = tokio::process::Command::new(program)
        .args(["-S", "-nodefaults", "-display", "none", "-machine", "q35,accel=kvm", "-cpu", "host", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = qemu.stdin.take();
    if let Some(input) = &mut input {
        input.write_all(QUIT).await?;
    }
    Ok(qemu.wait().await?.success())
}

/// The version of QEMU, if there is one.
pub fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split("version ").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 9.2.50"), Some((9, 2)));
        assert_eq!(parse_version("something else"), None);
    }
}
