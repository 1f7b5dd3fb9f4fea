//! Sizes, and where a byte of a volume lives.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Unit of checksum and versioning, bytes.
pub const BLOCK_SIZE: usize = 4096;
/// Unit of placement and repair, bytes.
pub const CHUNK_SIZE: u64 = 64 << 20;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u32 = (CHUNK_SIZE / BLOCK_SIZE as u64) as u32;
/// The largest volume, bytes: 262,144 chunks. Its gateway knows each of them, and looks at all of them every second.
pub const MAX_VOLUME_SIZE: u64 = 16 << 40;

/// How a volume's addresses are spread over its chunks. Recorded when the volume is created.
///
/// Addresses are striped: `stripe_unit` bytes to each of `group_chunks` chunks in turn, so that one
/// sequential stream uses several replica sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Geometry {
    /// Bytes, a power of two, between a block and a chunk.
    pub stripe_unit: u32,
    /// Chunks in a group.
    pub group_chunks: u16,
}

impl Default for Geometry {
    fn default() -> Self {
        Geometry { stripe_unit: 1 << 20, group_chunks: 4 }
    }
}

/// A contiguous piece of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which chunk of the volume.
    pub chunk_index: u32,
    /// Bytes from the chunk's start.
    pub offset: u32,
    /// Bytes; never crosses a stripe unit.
    pub len: u32,
}

impl Geometry {
    /// Whether the numbers describe a usable layout. Anything read from outside is checked with this.
    pub fn is_valid(&self) -> bool {
        let unit = u64::from(self.stripe_unit);
        unit.is_power_of_two()
            && (BLOCK_SIZE as u64..=CHUNK_SIZE).contains(&unit)
            && (1..=256).contains(&self.group_chunks)
    }

    /// Bytes of address space in one group.
    pub fn group_size(&self) -> u64 {
        CHUNK_SIZE * u64::from(self.group_chunks)
    }

    /// Number of chunks of a volume of `size` bytes: whole groups.
    pub fn chunk_count(&self, size: u64) -> u32 {
        (size.div_ceil(self.group_size()) * u64::from(self.group_chunks)) as u32
    }

    /// The chunk indexes of the group that `chunk_index` belongs to.
    pub fn group_of(&self, chunk_index: u32) -> std::ops::Range<u32> {
        let n = u32::from(self.group_chunks);
        let first = chunk_index / n * n;
        first..first + n
    }

    /// The extent that starts at volume offset `pos`, at most `len` bytes long (bytes).
    pub fn locate(&self, pos: u64, len: u64) -> Extent {
        let unit = u64::from(self.stripe_unit);
        let chunks = u64::from(self.group_chunks);
        let (group, within) = (pos / self.group_size(), pos % self.group_size());
        let (stripe, in_unit) = (within / unit, within % unit);
        Extent {
            chunk_index: (group * chunks + stripe % chunks) as u32,
            offset: (stripe / chunks * unit + in_unit) as u32,
            len: len.min(unit - in_unit) as u32,
        }
    }

    /// Where in the volume a byte of a chunk is: the inverse of [`Geometry::locate`].
    pub fn address(&self, chunk_index: u32, offset: u32) -> u64 {
        let (unit, chunks) = (u64::from(self.stripe_unit), u64::from(self.group_chunks));
        let (group, chunk) = (u64::from(chunk_index) / chunks, u64::from(chunk_index) % chunks);
        let (stripe, in_unit) = (u64::from(offset) / unit, u64::from(offset) % unit);
        group * self.group_size() + (stripe * chunks + chunk) * unit + in_unit
    }

    /// Splits a range of the volume (bytes) into extents, in address order.
    pub fn extents(self, mut pos: u64, len: u64) -> impl Iterator<Item = Extent> {
        let end = pos + len;
        std::iter::from_fn(move || {
            (pos < end).then(|| {
                let e = self.locate(pos, end - pos);
                pos += u64::from(e.len);
                e
            })
        })
    }
}

/// Parses a size such as `4096`, `512M`, `10G`, `1TiB` (powers of 1024) into bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let t = text.trim();
    let split = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
    let (number, unit) = t.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(format!("'{text}' is not a size: use a number with K, M, G or T, such as 10G")),
    };
    let n: u64 = number.parse().map_err(|_| format!("'{text}' is not a size: use a number such as 10G"))?;
    n.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too large"))
}

/// Shows bytes in the largest power of 1024 that divides nicely: `4 GiB`, `1.5 MiB`, `512 B`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Shows seconds in the unit that fits: `90 s`, `5 min`, `3 h`.
pub fn show_time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

/// Shows percents as a multiple: 250 as `2.50`.
pub fn show_ratio(percent: u128) -> String {
    format!("{}.{:02}", percent / 100, percent % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_group_has_one_place() {
        let g = Geometry::default();
        let mut seen = std::collections::BTreeSet::new();
        let unit = u64::from(g.stripe_unit);
        for stripe in 0..g.group_size() / unit {
            let e = g.locate(stripe * unit, unit);
            assert_eq!(u64::from(e.len), unit);
            assert!(u64::from(e.offset) + unit <= CHUNK_SIZE);
            assert_eq!(g.address(e.chunk_index, e.offset + 512), stripe * unit + 512);
            assert!(seen.insert((e.chunk_index, e.offset)));
        }
        assert_eq!(seen.len() as u64, g.group_size() / unit);
        assert_eq!(g.locate(g.group_size(), 1).chunk_index, 4);
    }

    #[test]
    fn extents_cover_a_range_in_order() {
        let g = Geometry::default();
        let pieces: Vec<_> = g.extents((1 << 20) - 4096, 8192).collect();
        assert_eq!(
            pieces,
            [
                Extent { chunk_index: 0, offset: (1 << 20) - 4096, len: 4096 },
                Extent { chunk_index: 1, offset: 0, len: 4096 }
            ]
        );
    }

    #[test]
    fn sizes_parse_and_show() {
        assert_eq!(parse_size("10G"), Ok(10 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "G", "-1", "1.5G", "10X", "99999999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(show_size(4 << 30), "4 GiB");
        assert_eq!(show_size(1536), "1.5 KiB");
    }
}
