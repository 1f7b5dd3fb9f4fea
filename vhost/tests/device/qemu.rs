//! QEMU and its firmware as the guest: the protocol as QEMU speaks it, without a kernel.
//!
//! The test puts a boot sector on the disk. The firmware reads and runs it; it writes itself to another sector through
//! the firmware, reads that back, compares, and ends QEMU with a status. Skipped where QEMU is not installed.

use std::process::{Child, Command, Stdio};

use crate::common::Served;
use crate::common::driver::Guest;
use crate::common::ram::RamDisk;

const SECTOR: usize = 512;
/// Where the boot sector copies itself to.
const COPY_AT: u64 = 5;
/// QEMU's exit status is twice what the guest writes to the exit port, plus one.
const GUEST_DONE: i32 = 0x10 * 2 + 1;

/// Machine code for the address 0x7c00, with the drive's number in DL.
fn boot_sector() -> [u8; SECTOR] {
    const PACKET: u8 = 0x40;
    let code: &[&[u8]] = &[
        &[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0],             // ds = es = 0
        &[0xbe, PACKET, 0x7c, 0xb8, 0x00, 0x43],           // si = packet, ax = extended write
        &[0xcd, 0x13, 0x72, 0x20],                         // int 13h, failed if carry
        &[0xc7, 0x06, PACKET + 4, 0x7c, 0x00, 0x90],       // packet.buffer = 0x9000
        &[0xbe, PACKET, 0x7c, 0xb4, 0x42],                 // si = packet, ah = extended read
        &[0xcd, 0x13, 0x72, 0x11],                         // int 13h, failed if carry
        &[0xbe, 0x00, 0x7c, 0xbf, 0x00, 0x90],             // si = this, di = what was read
        &[0xb9, PACKET / 2, 0x00, 0xf3, 0xa7, 0x75, 0x04], // compare the code, failed if different
        &[0xb0, 0x10, 0xeb, 0x02],                         // al = done
        &[0xb0, 0x11],                                     // failed: al = another status
        &[0xba, 0x01, 0x05, 0xee, 0xf4],                   // write it to the exit port
    ];
    let mut sector = [0; SECTOR];
    let code = code.concat();
    assert!(code.len() <= usize::from(PACKET));
    sector[..code.len()].copy_from_slice(&code);
    let packet = [16, 0, 1, 0, 0x00, 0x7c, 0, 0, COPY_AT as u8, 0, 0, 0, 0, 0, 0, 0];
    sector[usize::from(PACKET)..][..packet.len()].copy_from_slice(&packet);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Ends the process with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_qemu(socket: &std::path::Path) -> Option<Qemu> {
    let chardev = format!("socket,id=disk,path={}", socket.display());
    let child = Command::new("qemu-system-x86_64")
        .args(["-machine", "pc,memory-backend=ram", "-accel", "tcg", "-m", "64", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-net", "none"])
        .args(["-object", "memory-backend-memfd,id=ram,size=64M,share=on"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .args(["-chardev", &chardev, "-device", "vhost-user-blk-pci,chardev=disk,num-queues=4,bootindex=0"])
        .stdin(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Qemu(child)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("QEMU cannot be started: {e}"),
    }
}

#[test]
fn the_firmware_boots_from_the_disk() {
    let served = Served::start(|| RamDisk::new(1 << 20));
    let mut guest = Guest::connect(served.socket(), 1);
    guest.queues[0].write(0, &boot_sector());
    drop(guest);
    let Some(mut qemu) = start_qemu(served.socket()) else {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return;
    };
    let mut status = None;
    crate::common::wait_until("QEMU ends", || {
        status = qemu.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(GUEST_DONE));
    let mut guest = Guest::connect(served.socket(), 1);
    assert_eq!(guest.queues[0].read(COPY_AT * SECTOR as u64, SECTOR), boot_sector());
    served.stop();
}
