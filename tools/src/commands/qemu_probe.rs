//! What the QEMU on this machine can do.

use crate::limits::PROBE_TIMEOUT;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A disk whose first sector ends the machine by writing to the port of `isa-debug-exit`: mov dx, PORT; mov al, 16;
/// out dx, al.
const BOOT: [u8; 9] = [0xba, 0x01, 0x05, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd];
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0x501,iosize=1";
/// What QEMU ends with then: twice what was written, and one. It ends with 1 where something is wrong.
const BOOTED: i32 = 33;
/// Where a boot sector says that it is one.
const SIGNATURE_AT: usize = 510;

/// Whether guests run under KVM here. That the device can be opened does not say so, nor that QEMU sets a machine up: under
/// another hypervisor a processor may start and never get anywhere. So something is booted.
pub async fn kvm_is_usable(program: &Path) -> bool {
    let opens = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    opens && boots(program, "kvm", "host").await
}

async fn boots(program: &Path, accelerator: &str, cpu: &str) -> bool {
    tokio::time::timeout(PROBE_TIMEOUT, boot(program, accelerator, cpu)).await.is_ok_and(|tried| tried.unwrap_or(false))
}

async fn boot(program: &Path, accelerator: &str, cpu: &str) -> std::io::Result<bool> {
    let mut disk = tempfile::NamedTempFile::new()?;
    let mut sector = [0; 512];
    sector[..BOOT.len()].copy_from_slice(&BOOT);
    sector[SIGNATURE_AT..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all(&sector)?;
    let drive = format!("if=ide,format=raw,readonly=off,file={}", disk.path().display());
    // Its firmware finds a plain disk at once; the processor is what matters.
    let machine = format!("pc,accel={accelerator}");
    let mut qemu = tokio::process::Command::new(program)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", &machine, "-cpu", cpu, "-m", "64M"])
        .args(["-drive", &drive, "-device", EXIT_DEVICE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(qemu.wait().await?.code() == Some(BOOTED))
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

    #[tokio::test]
    async fn what_boots_is_told_from_what_does_not() {
        let qemu = Path::new("qemu-system-x86_64");
        if version(qemu).is_none() {
            eprintln!("skipped: there is no QEMU here");
            return;
        }
        assert!(boot(qemu, "tcg", "max").await.unwrap());
        assert!(!boot(qemu, "none-such", "max").await.unwrap());
        assert!(boot(Path::new("/nowhere/qemu"), "tcg", "max").await.is_err());
    }

    #[test]
    fn versions_are_found() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 9.2.50"), Some((9, 2)));
        assert_eq!(parse_version("something else"), None);
    }
}
