//! From a volume into a file.

use super::device::Device;
use super::{Job, Moved};
use crate::limits::{TRANSFER_PIECE, TRANSFER_QUEUE, TRANSFER_WINDOW};
use levee_image::{Checksum, Format, Writer, is_zero};
use levee_proto::api::ByteRange;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of the disk, in ascending order, without those that are zero.
type Piece = (u64, Vec<u8>);

/// Writes what a volume holds to a file that is new and open for writing; `path` is for messages. Only what is `mapped` is
/// read, if that is known: ranges in order, of which the rest is zeros.
pub fn drain(
    socket: &Path,
    mapped: Option<Vec<ByteRange>>,
    (file, path): (File, &Path),
    format: Format,
    job: &Job,
) -> anyhow::Result<Moved> {
    let mut device = Device::connect(socket, job)?;
    let size = device.capacity();
    let mut writer = Writer::create(file, path, format, size)?;
    let (sender, pieces) = sync_channel(TRANSFER_QUEUE);
    let (checksum, data) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || -> anyhow::Result<_> {
            let sums = write_pieces(&mut writer, &pieces, size)?;
            Ok((writer, sums))
        });
        let everything = vec![ByteRange { offset: 0, length: size }];
        let read = read_ranges(&mut device, &mapped.unwrap_or(everything), sender, job);
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where writing failed, reading has come to an early end.
        let (writer, sums) = written?;
        read?;
        // Only a disk that was read as a whole makes an image.
        writer.finish()?;
        anyhow::Ok(sums)
    })?;
    device.finish()?;
    job.bar.set_position(size);
    Ok(Moved { size, data, checksum })
}

/// Reads parts of the volume, and hands on what is not zero, in order.
fn read_ranges(device: &mut Device, ranges: &[ByteRange], pieces: SyncSender<Piece>, job: &Job) -> anyhow::Result<()> {
    let size = device.capacity();
    for range in ranges {
        let end = range.offset.saturating_add(range.length).min(size);
        if !read_pieces(device, range.offset..end, &pieces, job)? {
            break;
        }
    }
    Ok(())
}

/// Reads one part from start to end; whether what was read is still wanted.
fn read_pieces(device: &mut Device, part: Range<u64>, pieces: &SyncSender<Piece>, job: &Job) -> anyhow::Result<bool> {
    let len_at = |offset: u64| (part.end - offset).min(TRANSFER_PIECE as u64);
    let (mut asked, mut done) = (part.start, part.start);
    let mut arrived: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    while done < part.end {
        while asked < part.end
            && asked - done < TRANSFER_WINDOW
            && let Some(tag) = device.free_slot()
        {
            device.read(tag, asked, len_at(asked) as usize);
            asked += len_at(asked);
        }
        for (tag, offset) in device.turn()? {
            arrived.insert(offset, device.data(tag, len_at(offset) as usize));
        }
        while let Some(bytes) = arrived.remove(&done) {
            let (offset, zero) = (done, is_zero(&bytes));
            done += bytes.len() as u64;
            if !zero && pieces.send((offset, bytes)).is_err() {
                // The other side has failed, and tells why.
                return Ok(false);
            }
        }
        job.bar.set_position(done);
    }
    Ok(true)
}

/// Writes pieces until there are no more. The disk's checksum, and the bytes that were not zero.
fn write_pieces(writer: &mut Writer, pieces: &Receiver<Piece>, size: u64) -> anyhow::Result<(u32, u64)> {
    let mut checksum = Checksum::default();
    let mut data = 0;
    while let Ok((offset, bytes)) = pieces.recv() {
        checksum.add(offset, &bytes);
        data += bytes.len() as u64;
        writer.write(offset, &bytes)?;
    }
    Ok((checksum.finish(size), data))
}
