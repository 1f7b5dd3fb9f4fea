//! From a file into a volume.

use super::device::Device;
use super::{Job, Moved};
use crate::limits::{TRANSFER_GRAIN, TRANSFER_PIECE, TRANSFER_QUEUE, TRANSFER_TICK};
use anyhow::ensure;
use levee_image::{Checksum, Image, data_runs};
use levee_proto::BLOCK_SIZE;
use levee_proto::units::show_size;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};

/// Bytes of the disk that are not all zero: whole blocks, at most [`TRANSFER_PIECE`].
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
}

/// Makes a volume hold what an image holds, and zeros behind it. What is zero is not written to a volume that is
/// `fresh`: that has never held anything.
pub fn fill(image: Image, socket: &Path, fresh: bool, job: &Job) -> anyhow::Result<Moved> {
    let mut device = Device::connect(socket, job)?;
    let size = device.capacity();
    let needed = image.size();
    ensure!(needed <= size, "the image's disk of {} does not fit a volume of {}", show_size(needed), show_size(size));
    let (sender, pieces) = sync_channel(TRANSFER_QUEUE);
    let (checksum, data) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_pieces(image, &sender, size));
        let written = write_pieces(&mut device, pieces, fresh, job);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where reading failed, writing has come to an early end.
        written.and_then(|data| Ok((read?, data)))
    })?;
    device.finish()?;
    Ok(Moved { size, data, checksum })
}

/// Reads the image from start to end. The checksum of a volume of `size` bytes that holds it.
fn read_pieces(mut image: Image, pieces: &SyncSender<Piece>, size: u64) -> anyhow::Result<u32> {
    const BLOCK: u64 = BLOCK_SIZE as u64;
    const PIECE: u64 = TRANSFER_PIECE as u64;
    let mut checksum = Checksum::default();
    let mut at = 0;
    while let Some(data) = image.next_data(at)? {
        let start = data / BLOCK * BLOCK;
        let end = ((data / PIECE + 1) * PIECE).min(image.size());
        let len = (end - start) as usize;
        // A disk that ends within a block goes on with zeros.
        let mut bytes = vec![0; len.next_multiple_of(BLOCK_SIZE)];
        image.read(start, &mut bytes[..len])?;
        checksum.add(start, &bytes);
        for run in data_runs(&bytes, TRANSFER_GRAIN) {
            let piece = Piece { offset: start + run.start as u64, bytes: bytes[run].to_vec() };
            if pieces.send(piece).is_err() {
                // The other side has failed, and tells why.
                return Ok(0);
            }
        }
        at = end;
    }
    Ok(checksum.finish(size))
}

/// Writes pieces until there are no more. How many bytes they had.
fn write_pieces(device: &mut Device, pieces: Receiver<Piece>, fresh: bool, job: &Job) -> anyhow::Result<u64> {
    let size = device.capacity();
    let (mut done, mut data) = (0, 0);
    loop {
        match next_piece(device, &pieces) {
            Ok(Piece { offset, bytes }) => {
                if !fresh {
                    device.zero(done, offset)?;
                }
                device.write(offset, &bytes)?;
                done = offset + bytes.len() as u64;
                data += bytes.len() as u64;
                job.bar.set_position(done);
            }
            Err(TryRecvError::Empty) => drop(device.turn()?),
            Err(TryRecvError::Disconnected) => break,
        }
    }
    if !fresh {
        device.zero(done, size)?;
    }
    job.bar.set_position(size);
    Ok(data)
}

/// Waits for the file only while the volume has nothing to do.
fn next_piece(device: &Device, pieces: &Receiver<Piece>) -> Result<Piece, TryRecvError> {
    if !device.is_idle() {
        return pieces.try_recv();
    }
    pieces.recv_timeout(TRANSFER_TICK).map_err(|e| match e {
        RecvTimeoutError::Timeout => TryRecvError::Empty,
        RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
    })
}
