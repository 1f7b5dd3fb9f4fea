//! Bits that flip in the data on a disk.
//!
//! Only blocks that the load stamped are touched: what a flipped bit does to a log's own records is tested
//! elsewhere, byte by byte, and one disk at a time so that another copy is good.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{Whence, lseek};

use crate::rng::Rng;
use crate::torture::pattern;

const BLOCK: u64 = 4096;
/// Places that are looked at for one block with data.
const ATTEMPTS: u32 = 20_000;
/// Most stretches of a disk that hold anything.
const MAX_STRETCHES: usize = 100_000;

/// Flips a bit in each of up to `blocks` random blocks of data; answers with how many were found.
pub fn flip_bits(disk: &Path, blocks: u32, rng: &mut Rng) -> Result<u32> {
    let show = disk.display();
    let file = OpenOptions::new().read(true).write(true).open(disk).with_context(|| format!("cannot open {show}"))?;
    let stretches = stretches_with_data(&file).with_context(|| format!("cannot look for data in {show}"))?;
    let mut flipped = 0;
    for _ in 0..blocks {
        let Some(block) = find_stamped(&file, &stretches, rng)? else { break };
        // Behind the stamp, which tells data from everything else.
        let at = block + pattern::STAMP as u64 + rng.below(BLOCK - pattern::STAMP as u64);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << rng.below(8);
        file.write_all_at(&byte, at).with_context(|| format!("cannot write to {show}"))?;
        flipped += 1;
    }
    Ok(flipped)
}

/// Where up to `blocks` random blocks of data are.
pub fn some_blocks(disk: &Path, blocks: u32, rng: &mut Rng) -> Result<Vec<u64>> {
    let show = disk.display();
    let file = File::open(disk).with_context(|| format!("cannot open {show}"))?;
    let stretches = stretches_with_data(&file).with_context(|| format!("cannot look for data in {show}"))?;
    let mut places = Vec::new();
    for _ in 0..blocks {
        places.extend(find_stamped(&file, &stretches, rng)?);
    }
    Ok(places)
}

fn find_stamped(file: &File, stretches: &[(u64, u64)], rng: &mut Rng) -> Result<Option<u64>> {
    let total: u64 = stretches.iter().map(|(start, end)| (end - start) / BLOCK).sum();
    for _ in 0..if total == 0 { 0 } else { ATTEMPTS } {
        let block = nth_block(stretches, rng.below(total));
        let mut word = [0; 8];
        file.read_exact_at(&mut word, block)?;
        if pattern::is_stamped(&word) {
            return Ok(Some(block));
        }
    }
    Ok(None)
}

/// Where block number `n` of all stretches together begins. `n` is below their sum.
fn nth_block(stretches: &[(u64, u64)], mut n: u64) -> u64 {
    for (start, end) in stretches {
        let blocks = (end - start) / BLOCK;
        if n < blocks {
            return start + n * BLOCK;
        }
        n -= blocks;
    }
    0
}

/// Start and end of what is not a hole, in whole blocks.
fn stretches_with_data(file: &File) -> Result<Vec<(u64, u64)>> {
    let size = file.metadata()?.len();
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < size && stretches.len() < MAX_STRETCHES {
        let Some(start) = seek(file, at, Whence::SeekData) else { break };
        let end = seek(file, start, Whence::SeekHole).unwrap_or(size);
        stretches.push((start.next_multiple_of(BLOCK), end / BLOCK * BLOCK));
        at = end;
    }
    stretches.retain(|(start, end)| start < end);
    Ok(stretches)
}

/// `None` where there is nothing of the kind any more.
fn seek(file: &File, from: u64, whence: Whence) -> Option<u64> {
    lseek(file, i64::try_from(from).ok()?, whence).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stamped_blocks_rot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut content = vec![0; 64 * BLOCK as usize];
        for block in [3, 40] {
            let block_bytes = &mut content[block * BLOCK as usize..][..BLOCK as usize];
            pattern::fill(block_bytes, 1, block as u64, 5);
        }
        std::fs::write(&path, &content).unwrap();
        assert_eq!(flip_bits(&path, 3, &mut Rng::new(1)).unwrap(), 3);
        let after = std::fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..content.len()).filter(|at| content[*at] != after[*at]).collect();
        assert!(!changed.is_empty() && changed.len() <= 3);
        for at in changed {
            assert!([3, 40].contains(&(at / BLOCK as usize)) && at % BLOCK as usize >= pattern::STAMP);
        }
    }

    #[test]
    fn a_disk_without_data_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [9; 8192]).unwrap();
        assert_eq!(flip_bits(&path, 3, &mut Rng::new(1)).unwrap(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), [9; 8192]);
    }
}
