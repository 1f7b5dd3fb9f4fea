//! `levee qemu`: the QEMU command that uses a volume attached on this machine.

use super::{qemu_probe, redundancy};
use crate::cli::Qemu;
use crate::client::MetaClient;
use crate::errors::Found;
use crate::output::Output;
use anyhow::Context;
use levee_proto::api::{ServeState, VolumeInfo};
use serde::Serialize;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `reconnect-ms` came with this version of QEMU, `reconnect` (in seconds) is older and went.
const FIRST_WITH_RECONNECT_MS: (u32, u32) = (9, 2);
/// More queues than this only help guests that keep many processors busy with I/O.
const MOST_DEFAULT_QUEUES: u16 = 4;

#[derive(Serialize)]
struct Report<'a> {
    volume: &'a str,
    node: &'a str,
    socket: &'a str,
    /// The program and its arguments.
    command: Vec<String>,
}

pub async fn qemu(args: &Qemu, meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let volume = meta.volume(&args.volume).await?;
    let (node, socket) = served_here(&volume)?;
    let command =
        command_line(args, socket, qemu_probe::kvm_is_usable(&args.qemu).await, qemu_probe::version(&args.qemu));
    let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let report = Report { volume: &args.volume, node, socket, command: words };
    if !args.run || out.json {
        out.result(&report, || report.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))?;
    }
    if !args.run {
        return Ok(());
    }
    let failed = start(&command, out);
    if out.json { failed.map_err(Found::after_document) } else { failed }
}

/// The volume's node and socket, if it is served on this machine.
fn served_here(volume: &VolumeInfo) -> anyhow::Result<(&str, &str)> {
    let name = &volume.name;
    let Some(attachment) = redundancy::user(volume) else {
        anyhow::bail!("volume {name} is not attached: `levee volume attach {name} --node NODE` serves it");
    };
    let node = attachment.node_name.as_str();
    let report = attachment.report.as_ref().filter(|report| report.state == ServeState::Serving);
    let Some(socket) = report.and_then(|report| report.socket.as_deref()) else {
        anyhow::bail!("volume {name} is not served yet by {node}: `levee volume show {name}` tells why");
    };
    let is_socket = std::fs::metadata(socket).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        anyhow::bail!(
            "volume {name} is served by {node}, but its socket {socket} is not on this machine: run this on {node}, \
             or `levee volume detach {name}` and attach it to a node that runs here"
        );
    }
    Ok((node, socket))
}

fn command_line(args: &Qemu, socket: &str, kvm: bool, version: Option<(u32, u32)>) -> Vec<OsString> {
    let (accelerator, cpu) = if kvm { ("kvm", "host") } else { ("tcg", "max") };
    let queues = args.queues.unwrap_or(args.cpus.min(MOST_DEFAULT_QUEUES));
    let reconnect = match version {
        Some(version) if version < FIRST_WITH_RECONNECT_MS => "reconnect=1",
        _ => "reconnect-ms=100",
    };
    // QEMU takes no '@' in an id.
    let id = format!("levee-{}", args.volume.replace('@', "."));
    // Commas inside of a value are doubled.
    let path = socket.replace(',', ",,");
    let words = [
        "-machine".into(),
        format!("q35,accel={accelerator},memory-backend=mem"),
        "-cpu".into(),
        cpu.into(),
        "-smp".into(),
        args.cpus.to_string(),
        "-m".into(),
        format!("{}k", args.memory >> 10),
        "-object".into(),
        format!("memory-backend-memfd,id=mem,size={}k,share=on", args.memory >> 10),
        "-chardev".into(),
        format!("socket,id={id},path={path},{reconnect}"),
        "-device".into(),
        format!("vhost-user-blk-pci,chardev={id},num-queues={queues}"),
    ];
    let mut command = vec![args.qemu.clone().into_os_string()];
    command.extend(words.map(OsString::from));
    command.extend(args.args.iter().cloned());
    command
}

/// Becomes QEMU.
fn start(command: &[OsString], out: &Output) -> anyhow::Result<()> {
    let (program, args) = command.split_first().context("the command is empty")?;
    let mut qemu = Command::new(program);
    qemu.args(args);
    if out.json {
        // Standard output has its one document already.
        qemu.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
    }
    let program = Path::new(program).display();
    Err(qemu.exec()).with_context(|| format!("cannot start {program}: install QEMU, or name it with --qemu"))
}

/// A word as the shell wants it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Qemu {
        Qemu {
            volume: "vm1".into(),
            run: false,
            memory: 2 << 30,
            cpus: 8,
            queues: None,
            qemu: "qemu-system-x86_64".into(),
            args: vec!["-nographic".into()],
        }
    }

    #[test]
    fn a_snapshot_has_an_id_that_qemu_takes() {
        let args = Qemu { volume: "vm1@monday".into(), ..args() };
        let words = command_line(&args, "/run/vm1@monday.sock", true, None);
        let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        assert!(words.contains(&"vhost-user-blk-pci,chardev=levee-vm1.monday,num-queues=4".into()), "{words:?}");
        assert!(words.iter().any(|w| w.contains("path=/run/vm1@monday.sock")), "{words:?}");
    }

    fn line(version: Option<(u32, u32)>) -> String {
        let words = command_line(&args(), "/a,b/vm1.sock", false, version);
        words.iter().map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_fits_the_device() {
        assert_eq!(
            line(None),
            "qemu-system-x86_64 -machine q35,accel=tcg,memory-backend=mem -cpu max -smp 8 -m 2097152k \
             -object memory-backend-memfd,id=mem,size=2097152k,share=on \
             -chardev socket,id=levee-vm1,path=/a,,b/vm1.sock,reconnect-ms=100 \
             -device vhost-user-blk-pci,chardev=levee-vm1,num-queues=4 -nographic"
        );
    }

    #[test]
    fn old_qemus_reconnect_in_seconds() {
        assert!(line(Some((7, 2))).contains(",reconnect=1 "));
        assert!(line(Some((9, 1))).contains(",reconnect=1 "));
        assert!(line(Some((9, 2))).contains(",reconnect-ms=100 "));
        assert!(line(Some((10, 0))).contains(",reconnect-ms=100 "));
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a=b,c/d"), "a=b,c/d");
    }
}
