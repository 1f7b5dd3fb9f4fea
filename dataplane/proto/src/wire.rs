//! Frames between daemons: layout, encoding, and checked decoding.
//!
//! A frame is a [`FrameHeader`], `meta_len` bytes of message, `data_len` bytes of block data.
//! Header and message carry their own CRC-32C; block data is covered by the per-block CRCs in the
//! message, computed where the data left the guest and verified where it lands. All numbers are
//! little-endian. Whatever does not decode is answered with an error, never trusted.
//!
//! A hello, and the answer to it, may be followed by extensions: `(kind: u16, length: u16, value)`, see [`EXTENSION_OPTIONAL`].
//!
//! Versions of the protocol: 1, the first. 2: a hello names the caller's process and core, and is followed by the ticket that
//! it is answered with; fences have an era.

mod codec;

use crate::callers::{Caller, Ticket};
use crate::ids::*;
use crate::units::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use crate::view::{MAX_HIDDEN, View};
use bytes::Bytes;
use codec::{In, Out};
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LEVE");
/// Version of the protocol that this build speaks.
pub const PROTO_VERSION: u16 = 2;
/// Set in the kind of an extension that may be passed over by who does not know it. Whoever does not know another
/// refuses the hello: what it asks for would not be done.
pub const EXTENSION_OPTIONAL: u16 = 0x8000;
/// Most extensions of a hello, or of the answer to one.
pub const MAX_EXTENSIONS: usize = 16;
/// Most bytes of message in a frame. Bounds what a peer can make us allocate.
pub const MAX_META: usize = 1 << 20;
/// Most bytes of block data in a frame.
pub const MAX_DATA: usize = 4 << 20;
/// Most blocks in one write or read.
pub const MAX_BLOCKS: u32 = 256;
/// Most replicas named in one [`Request::Adopt`], and blocks in one [`Request::Repair`].
pub const MAX_LIST: usize = BLOCKS_PER_CHUNK as usize;
/// Most entries in one [`Reply::ReadVersions`].
pub const MAX_VERSION_ENTRIES: usize = 1024;
/// Most views that one [`Request::Prune`] keeps: a volume has fewer snapshots.
pub const MAX_KEEP: usize = 2048;
/// Most replicas in one [`Request::Prune`]: each may be a walk over all of its entries.
pub const MAX_PRUNE: usize = 64;
/// Bytes of a [`Reply::Presence`], and of each bitmap of a [`Reply::Tally`]: one bit per block.
pub const PRESENCE_LEN: usize = BLOCKS_PER_CHUNK as usize / 8;
const _: () = assert!(MAX_KEEP * (5 + 8 * MAX_HIDDEN) + MAX_PRUNE * 20 + 64 < MAX_META);

/// The fixed start of every frame, 40 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    pub magic: U32,
    pub version: U16,
    /// [`Request`] kind; replies have [`REPLY_BIT`] set.
    pub kind: U16,
    /// Chosen by the caller, echoed in the reply.
    pub id: U64,
    pub meta_len: U32,
    pub data_len: U32,
    /// [`Status`] of a reply; 0 in a request.
    pub status: U16,
    pub reserved: [u8; 6],
    /// CRC-32C of the message.
    pub meta_crc: U32,
    /// CRC-32C of the 36 bytes before.
    pub header_crc: U32,
}
const _: () = assert!(size_of::<FrameHeader>() == HEADER_LEN);

/// Bytes of a [`FrameHeader`].
pub const HEADER_LEN: usize = 40;
/// Set in `kind` of every reply.
pub const REPLY_BIT: u16 = 0x8000;

/// Why bytes from a peer were refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed frame: {0}")]
pub struct Malformed(pub &'static str);

type Decoded<T> = Result<T, Malformed>;

impl FrameHeader {
    /// A header for `meta` followed by `data_len` bytes of data.
    pub fn new(kind: u16, id: u64, status: Status, meta: &[u8], data_len: usize) -> FrameHeader {
        assert!(meta.len() <= MAX_META && data_len <= MAX_DATA, "frame too large");
        let mut h = FrameHeader {
            magic: MAGIC.into(),
            version: PROTO_VERSION.into(),
            kind: kind.into(),
            id: id.into(),
            meta_len: (meta.len() as u32).into(),
            data_len: (data_len as u32).into(),
            status: (status as u16).into(),
            reserved: [0; 6],
            meta_crc: crc32c::crc32c(meta).into(),
            header_crc: 0.into(),
        };
        h.header_crc = crc32c::crc32c(&h.as_bytes()[..HEADER_LEN - 4]).into();
        h
    }

    /// Checks the first [`HEADER_LEN`] bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Decoded<FrameHeader> {
        let (h, _) = FrameHeader::read_from_prefix(bytes).map_err(|_| Malformed("short header"))?;
        if h.magic.get() != MAGIC {
            return Err(Malformed("not a Levee frame"));
        }
        if h.header_crc.get() != crc32c::crc32c(&bytes[..HEADER_LEN - 4]) {
            return Err(Malformed("header checksum"));
        }
        if h.version.get() != PROTO_VERSION {
            return Err(Malformed("protocol version"));
        }
        if h.meta_len.get() as usize > MAX_META || h.data_len.get() as usize > MAX_DATA {
            return Err(Malformed("frame too large"));
        }
        Ok(h)
    }

    /// Checks the message that came with this header.
    pub fn check_meta(&self, meta: &[u8]) -> Decoded<()> {
        if meta.len() != self.meta_len.get() as usize || crc32c::crc32c(meta) != self.meta_crc.get() {
            return Err(Malformed("message checksum"));
        }
        Ok(())
    }

    /// Whether the frame is a reply.
    pub fn is_reply(&self) -> bool {
        self.kind.get() & REPLY_BIT != 0
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $raw:ty { $($(#[$vdoc:meta])* $v:ident = $n:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr($raw)]
        pub enum $name { $($(#[$vdoc])* $v = $n),* }
        impl $name {
            /// The value with this code.
            pub fn from_code(code: $raw) -> Option<$name> {
                match code { $($n => Some($name::$v),)* _ => None }
            }
        }
    };
}

codes!(
    /// Outcome of a request.
    Status: u16 {
        Ok = 0,
        /// The epoch is below the volume's fence: a newer gateway exists. The caller must stop for good.
        Fenced = 1,
        /// The epoch is above the volume's fence: send [`Request::Fence`] first.
        FenceFirst = 2,
        /// No such replica here.
        UnknownReplica = 3,
        /// Not sent any more: the config number is below the replica's.
        StaleConfig = 4,
        /// The replica has not adopted this epoch: it must not be read.
        NotAdopted = 5,
        /// Data did not match its CRC on arrival: send again.
        BadChecksum = 6,
        /// The stored copy is corrupt; another replica has to be asked.
        Corrupt = 7,
        /// The disk failed.
        Io = 8,
        /// No space left on the disk: wait and try again.
        Full = 9,
        /// The request itself is wrong.
        Invalid = 10,
        /// The daemon is stopping or not ready.
        Unavailable = 11,
        /// The replica does not know that it holds the whole snapshot: ask another.
        NotSealed = 12,
        /// The fence is so far above the volume's that nobody can have got there: come nearer in steps.
        FarAhead = 13,
    }
);

codes!(
    /// What a block's entry says.
    BlockKind: u8 {
        /// Nothing was ever written: reads as zeros.
        Absent = 0,
        /// Written; `crc` covers its 4096 bytes.
        Data = 1,
        /// Discarded or zeroed by a write of its own: reads as zeros, and has an order.
        Zero = 2,
    }
);

/// Which replica, for whom. Carried by every request about one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    /// The disk that holds the replica.
    pub disk: DiskId,
    /// Epoch of the asking gateway.
    pub epoch: Epoch,
    pub config: ConfigNo,
}

/// The state of one block of a replica, 24 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Index within the chunk.
    pub block: u32,
    pub kind: BlockKind,
    pub version: Version,
    pub seq: Seq,
    /// CRC-32C of the block's data; 0 unless `kind` is `Data`.
    pub crc: u32,
}

impl BlockEntry {
    /// The entry of a block that was never written.
    pub fn absent(block: u32) -> BlockEntry {
        BlockEntry { block, kind: BlockKind::Absent, version: Version(0), seq: Seq::ZERO, crc: 0 }
    }
}

/// What a replica says of itself when it is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSummary {
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub config: ConfigNo,
    /// Epoch of the last reconciliation that it completed.
    pub adopted: Epoch,
    /// May have lost entries to corruption: it says "unknown", never "absent", and counts for no quorum.
    pub damaged: bool,
    /// Sum over its entries: equal digests mean equal entries.
    pub digest: Digest,
    /// Its entries, of all versions.
    pub entries: u32,
    /// The largest seq that it holds.
    pub max_seq: Seq,
    /// Its commit point: every member of its config holds exactly the same entries up to here.
    pub commit: Seq,
    /// It holds everything that was ever written at versions up to this one; 0: nothing is known.
    pub sealed: Version,
}

/// Which entries a [`Request::Repair`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that it names, each by block and version.
    Named,
    /// Also all others of these blocks with versions from `first` to `last`, both included: there is nothing.
    Versions { block: u32, count: u32, first: Version, last: Version },
    /// Those that it names, all of kind Data: their data is on no copy any more, and does not follow.
    Gone,
}

/// Incremental digest over `(block, kind, version, seq, crc)` entries: a sum of 128-bit hashes, so
/// that entries can be added and taken away in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// Counts `e` in. Absent entries count nothing.
    pub fn add(&mut self, e: &BlockEntry) {
        self.0 = self.0.wrapping_add(Self::hash(e));
    }

    /// Takes `e`, which was counted in, out again.
    pub fn remove(&mut self, e: &BlockEntry) {
        self.0 = self.0.wrapping_sub(Self::hash(e));
    }

    fn hash(e: &BlockEntry) -> u128 {
        if e.kind == BlockKind::Absent {
            return 0;
        }
        let a = (u64::from(e.block) << 32) | u64::from(e.crc);
        let b = (u64::from(e.version.0) << 8) | u64::from(e.kind as u8);
        let half = |salt: u64| mix(mix(mix(a ^ salt) ^ b) ^ e.seq.0);
        (u128::from(half(0x9e37_79b9_7f4a_7c15)) << 64) | u128::from(half(0xd1b5_4a32_d192_ed03))
    }
}

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// CRC-32C of each block of a write, in order: a cheap handle on little-endian words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crcs(Bytes);

impl Crcs {
    /// Computes the checksums of whole blocks.
    pub fn of(data: &[u8]) -> Crcs {
        debug_assert_eq!(data.len() % BLOCK_SIZE, 0);
        Crcs(data.chunks_exact(BLOCK_SIZE).flat_map(|b| crc32c::crc32c(b).to_le_bytes()).collect::<Vec<u8>>().into())
    }

    /// No blocks of data.
    pub fn none() -> Crcs {
        Crcs(Bytes::new())
    }

    /// Takes over little-endian words; `None` if they are not whole.
    pub fn from_le_bytes(words: Bytes) -> Option<Crcs> {
        words.len().is_multiple_of(4).then_some(Crcs(words))
    }

    /// The little-endian words.
    pub fn as_le_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Splits off the checksums of the first `n` blocks, by handle.
    pub fn split_to(&mut self, n: usize) -> Crcs {
        Crcs(self.0.split_to(n * 4))
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The checksums in block order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
    }

    /// The checksum of the `i`th block.
    pub fn get(&self, i: usize) -> u32 {
        let w = &self.0[i * 4..i * 4 + 4];
        u32::from_le_bytes([w[0], w[1], w[2], w[3]])
    }

    /// Whether `data` is exactly these blocks.
    pub fn verify(&self, data: &[u8]) -> bool {
        data.len() == self.len() * BLOCK_SIZE
            && data.chunks_exact(BLOCK_SIZE).zip(self.iter()).all(|(b, c)| crc32c::crc32c(b) == c)
    }
}

/// First message on a link: who is calling whom. See [`crate::callers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub cluster: [u8; 16],
    pub caller: Caller,
    pub to: NodeId,
    pub core: u16,
}

/// What one daemon asks of another. Block data travels beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First message on a link.
    Hello(Hello),
    /// Second message on a link: what the hello was answered with. Older links of the caller end. Not answered.
    Enter { ticket: Ticket },
    /// From now on refuse lower epochs, on all disks. Only on `disks` the epoch may make requests then: the caller asks each of
    /// them what it holds ([`Request::Replicas`]) before using it.
    Fence { volume: VolumeId, era: Era, epoch: Epoch, disks: Vec<DiskId> },
    /// Which replicas of the volume are on this core's part of a disk that the epoch has fenced: those of chunks above `after`,
    /// at most `max`, by chunk.
    Replicas { volume: VolumeId, epoch: Epoch, disk: DiskId, after: ChunkId, max: u32 },
    /// Make an empty replica. `adopted`: it is new with the chunk, so there is nothing to reconcile.
    Create { target: Target, adopted: bool },
    /// Write `count` blocks from `block` on, at a version. `Data` carries the blocks and their CRCs, `Zero` none.
    Write { target: Target, kind: BlockKind, version: Version, seq: Seq, block: u32, count: u32, crcs: Crcs },
    /// Read `count` blocks from `block` on, as `view` sees them. `reconcile`: for a takeover, from a replica that has not
    /// adopted the epoch yet; what it says is evidence then, never an answer to a guest.
    Read { target: Target, block: u32, count: u32, view: View, reconcile: bool },
    /// Read all versions of `count` blocks from `block` on, beginning in the first with `from_version` and going down: to
    /// copy them. `reconcile`: as in `Read`.
    ReadVersions { target: Target, block: u32, count: u32, from_version: Version, reconcile: bool },
    /// List the entries of all versions whose seq is larger than `above`, at most `max`: by block, of each the newest first,
    /// beginning at version `from_version` of block `from`.
    List { target: Target, from: u32, from_version: Version, max: u32, above: Seq },
    /// Bring entries to the given states; the data of those with kind `Data` follows in order, if there is any. An `Absent` one removes the
    /// entry of that block and version; at version 0, the block's entries of all versions.
    Repair { target: Target, scope: Scope, entries: Vec<BlockEntry> },
    /// These replicas hold exactly the reconciled state of `epoch`.
    Adopt { volume: VolumeId, epoch: Epoch, replicas: Vec<(DiskId, ChunkId, ReplicaId)> },
    /// Up to these seqs all members hold exactly the same entries. Durable some time later.
    Commit { volume: VolumeId, epoch: Epoch, points: Vec<(DiskId, ChunkId, ReplicaId, Seq)> },
    /// Drop the entries that no view of `keep` reads, as far as the commit point tells that this stays so.
    Prune { volume: VolumeId, epoch: Epoch, keep: Vec<View>, replicas: Vec<(DiskId, ChunkId, ReplicaId)> },
    /// These replicas hold everything that was ever written at versions up to `version`. Durable when answered.
    Seal { volume: VolumeId, epoch: Epoch, version: Version, replicas: Vec<(DiskId, ChunkId, ReplicaId)> },
    /// Read a snapshot, whoever asks: there is no writer any more that could be fenced.
    ReadShared {
        volume: VolumeId,
        chunk: ChunkId,
        replica: ReplicaId,
        disk: DiskId,
        view: View,
        block: u32,
        count: u32,
    },
    /// Which blocks of a snapshot have an entry. Admitted like `ReadShared`.
    Presence { volume: VolumeId, chunk: ChunkId, replica: ReplicaId, disk: DiskId, view: View },
    /// Which blocks of a snapshot have data. Admitted like `ReadShared`.
    PresentData { volume: VolumeId, chunk: ChunkId, replica: ReplicaId, disk: DiskId, view: View },
    /// Count what the volume's live views read, the head's first; at least one, at most [`MAX_KEEP`]. Admitted like `Read`.
    Tally { target: Target, views: Vec<View> },
    /// Read and check the blocks from `block` on, `count` of them, in all versions (none: only tell the digest); answer what was found.
    Scan { target: Target, block: u32, count: u32 },
    /// Are you there?
    Ping,
}

/// What comes back. Block data travels beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; for requests with nothing to say.
    Done,
    /// The link is accepted, with this many requests and bytes in flight at most, once it has named its ticket.
    Hello { max_requests: u32, max_bytes: u32, ticket: Ticket },
    /// The fence is durable on this core's shards of `disks`. Nothing is known of what is on other disks that were asked for,
    /// which this core does not have or which failed.
    ///
    /// `gaps`: those of `disks` whose log has once lost something. They may have forgotten replicas: one that is not there
    /// counts for nothing, like a damaged one, and not for one that holds nothing. Made anew (not adopted from birth), it is
    /// damaged.
    Fenced { disks: Vec<DiskId>, gaps: Vec<DiskId> },
    /// The volume's replicas on the disk, by chunk; `more` if there are others behind the last.
    Replicas { replicas: Vec<ReplicaSummary>, more: bool },
    /// One entry per block asked for; the data of those with kind `Data` follows in order.
    Read { entries: Vec<BlockEntry> },
    /// Entries by block, of each the newest version first, absent ones left out; `more` if the listing goes on.
    List { entries: Vec<BlockEntry>, more: bool },
    /// Like a listing; the data of those with kind `Data` follows in order. At most [`MAX_BLOCKS`] of these.
    ReadVersions { entries: Vec<BlockEntry>, more: bool },
    /// This many entries were dropped.
    Pruned { dropped: u64 },
    /// A bit per block, the lowest of each byte first: whether the view reads an entry there, be it of zeros.
    Presence { bits: Bytes },
    /// As in `Presence`: whether the view reads data there.
    PresentData { bits: Bytes },
    /// Entries with data of all versions, whoever reads them; for each view those that it alone reads; and, as in `Presence`,
    /// where the first view reads an entry, and where data.
    Tally { stored: u32, alone: Vec<u32>, entries: Bytes, data: Bytes },
    /// Digest over all entries of the replica, entries with data in it (of all versions), number of blocks read, and the
    /// blocks of which a version failed its check.
    Scan { digest: Digest, data: u32, blocks: u32, bad: Vec<u32> },
    /// The request failed.
    Error { status: Status, detail: String },
}

mod kind {
    pub const HELLO: u16 = 1;
    pub const FENCE: u16 = 2;
    pub const CREATE: u16 = 3;
    pub const WRITE: u16 = 4;
    pub const READ: u16 = 5;
    pub const LIST: u16 = 6;
    pub const REPAIR: u16 = 7;
    pub const ADOPT: u16 = 8;
    pub const SCAN: u16 = 9;
    pub const PING: u16 = 10;
    pub const COMMIT: u16 = 11;
    pub const READ_VERSIONS: u16 = 12;
    pub const PRUNE: u16 = 13;
    pub const SEAL: u16 = 14;
    pub const READ_SHARED: u16 = 15;
    pub const PRESENCE: u16 = 16;
    pub const PRESENT_DATA: u16 = 17;
    pub const TALLY: u16 = 18;
    pub const REPLICAS: u16 = 19;
    pub const ENTER: u16 = 20;
}

/// Kind of a [`Request::Hello`].
pub const HELLO: u16 = kind::HELLO;

const ENTRY_LEN: usize = 24;
const SUMMARY_LEN: usize = 65;

/// Most replicas in one [`Reply::Replicas`]: so few that other requests of the core hardly wait for it.
pub const MAX_SUMMARIES: usize = 4096;
const _: () = assert!(5 + MAX_SUMMARIES * SUMMARY_LEN <= MAX_META);
/// Most disks in one [`Request::Fence`] and [`Reply::Fenced`].
pub const MAX_FENCED_DISKS: usize = 256;

impl Request {
    /// The code that goes into the frame header.
    pub fn kind(&self) -> u16 {
        match self {
            Request::Hello(_) => kind::HELLO,
            Request::Enter { .. } => kind::ENTER,
            Request::Fence { .. } => kind::FENCE,
            Request::Replicas { .. } => kind::REPLICAS,
            Request::Create { .. } => kind::CREATE,
            Request::Write { .. } => kind::WRITE,
            Request::Read { .. } => kind::READ,
            Request::ReadVersions { .. } => kind::READ_VERSIONS,
            Request::List { .. } => kind::LIST,
            Request::Repair { .. } => kind::REPAIR,
            Request::Adopt { .. } => kind::ADOPT,
            Request::Commit { .. } => kind::COMMIT,
            Request::Prune { .. } => kind::PRUNE,
            Request::Seal { .. } => kind::SEAL,
            Request::ReadShared { .. } => kind::READ_SHARED,
            Request::Presence { .. } => kind::PRESENCE,
            Request::PresentData { .. } => kind::PRESENT_DATA,
            Request::Tally { .. } => kind::TALLY,
            Request::Scan { .. } => kind::SCAN,
            Request::Ping => kind::PING,
        }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut o = Out(out);
        match self {
            Request::Hello(hello) => o.hello(hello),
            Request::Enter { ticket } => {
                o.u64(ticket.0);
            }
            Request::Fence { volume, era, epoch, disks } => {
                o.u64(volume.0).u32(Fence::new(*era, *epoch).0).u32(disks.len() as u32);
                for disk in disks {
                    o.u32(disk.0);
                }
            }
            Request::Replicas { volume, epoch, disk, after, max } => {
                o.u64(volume.0).u32(epoch.0).u32(disk.0).u64(after.0).u32(*max);
            }
            Request::Create { target, adopted } => {
                o.target(target).u8(u8::from(*adopted));
            }
            Request::Write { target, kind, version, seq, block, count, crcs } => {
                o.target(target).u8(*kind as u8).u32(version.0).u64(seq.0).u32(*block).u32(*count);
                o.0.extend_from_slice(&crcs.0);
            }
            Request::Read { target, block, count, view, reconcile } => {
                o.target(target).u32(*block).u32(*count).view(view).u8(u8::from(*reconcile));
            }
            Request::ReadVersions { target, block, count, from_version, reconcile } => {
                o.target(target).u32(*block).u32(*count).u32(from_version.0).u8(u8::from(*reconcile));
            }
            Request::List { target, from, from_version, max, above } => {
                o.target(target).u32(*from).u32(from_version.0).u32(*max).u64(above.0);
            }
            Request::Repair { target, scope, entries } => o.target(target).scope(scope).entries(entries),
            Request::Adopt { volume, epoch, replicas } => o.u64(volume.0).u32(epoch.0).replicas(replicas),
            Request::Commit { volume, epoch, points } => {
                o.u64(volume.0).u32(epoch.0).u32(points.len() as u32);
                for (disk, chunk, replica, seq) in points {
                    o.u32(disk.0).u64(chunk.0).u64(replica.0).u64(seq.0);
                }
            }
            Request::Scan { target, block, count } => {
                o.target(target).u32(*block).u32(*count);
            }
            Request::Ping => {}
            Request::Prune { .. }
            | Request::Seal { .. }
            | Request::ReadShared { .. }
            | Request::Presence { .. }
            | Request::PresentData { .. }
            | Request::Tally { .. } => self.encode_versions(&mut o),
        }
    }

    /// What concerns snapshots alone.
    fn encode_versions(&self, o: &mut Out) {
        match self {
            Request::Prune { volume, epoch, keep, replicas } => {
                o.u64(volume.0).u32(epoch.0).views(keep).replicas(replicas);
            }
            Request::Seal { volume, epoch, version, replicas } => {
                o.u64(volume.0).u32(epoch.0).u32(version.0).replicas(replicas);
            }
            Request::ReadShared { volume, chunk, replica, disk, view, block, count } => {
                o.u64(volume.0).u64(chunk.0).u64(replica.0).u32(disk.0).view(view).u32(*block).u32(*count);
            }
            Request::Presence { volume, chunk, replica, disk, view }
            | Request::PresentData { volume, chunk, replica, disk, view } => {
                o.u64(volume.0).u64(chunk.0).u64(replica.0).u32(disk.0).view(view);
            }
            Request::Tally { target, views } => {
                o.target(target).views(views);
            }
            _ => unreachable!("encoded by itself"),
        }
    }

    /// Decodes a message of `kind` that came with `data_len` bytes of data.
    ///
    /// What it returns is well-formed: ranges lie within a chunk, lists within their bounds, ids, epochs and versions within
    /// what can have been given out, and the data is as long as the message says. CRCs of the data are left to the receiver.
    pub fn decode(kind: u16, meta: Bytes, data_len: usize) -> Decoded<Request> {
        let mut i = In(meta);
        let request = match kind {
            kind::HELLO => Request::Hello(i.hello()?),
            kind::ENTER => Request::Enter { ticket: Ticket(i.u64()?) },
            kind::FENCE => {
                let (volume, fence) = (i.volume()?, Fence(i.u32()?));
                let disks = i.list(4, MAX_FENCED_DISKS, In::disk)?;
                if fence.epoch() == Epoch(0) {
                    return Err(Malformed("epoch of nobody"));
                }
                Request::Fence { volume, era: fence.era(), epoch: fence.epoch(), disks }
            }
            kind::REPLICAS => Request::Replicas {
                volume: i.volume()?,
                epoch: i.real_epoch()?,
                disk: i.disk()?,
                after: ChunkId(i.u64()?),
                max: i.u32()?,
            },
            kind::CREATE => Request::Create { target: i.target()?, adopted: i.bool()? },
            kind::WRITE => return Self::decode_write(i, data_len),
            kind::READ => {
                let target = i.target()?;
                let (block, count) = i.range()?;
                Request::Read { target, block, count, view: i.view()?, reconcile: i.bool()? }
            }
            kind::READ_VERSIONS => {
                let target = i.target()?;
                let (block, count) = i.range()?;
                let from_version = Version(i.u32()?);
                Request::ReadVersions { target, block, count, from_version, reconcile: i.bool()? }
            }
            kind::LIST => {
                let (target, from, from_version) = (i.target()?, i.u32()?, Version(i.u32()?));
                Request::List { target, from, from_version, max: i.u32()?, above: Seq(i.u64()?) }
            }
            kind::REPAIR => return Self::decode_repair(i, data_len),
            kind::ADOPT => {
                Request::Adopt { volume: i.volume()?, epoch: i.real_epoch()?, replicas: i.replicas(MAX_LIST)? }
            }
            kind::COMMIT => Request::Commit {
                volume: i.volume()?,
                epoch: i.real_epoch()?,
                points: i.list(28, MAX_LIST, |i| Ok((i.disk()?, i.chunk()?, i.replica()?, Seq(i.u64()?))))?,
            },
            kind::SCAN => {
                let (target, block, count) = (i.target()?, i.u32()?, i.u32()?);
                if block.checked_add(count).is_none_or(|end| end > BLOCKS_PER_CHUNK) {
                    return Err(Malformed("block range"));
                }
                Request::Scan { target, block, count }
            }
            kind::PING => Request::Ping,
            other => Self::decode_versions(other, &mut i)?,
        };
        if data_len != 0 {
            return Err(Malformed("unexpected data"));
        }
        i.end(request)
    }

    /// What concerns snapshots alone.
    fn decode_versions(kind: u16, i: &mut In) -> Decoded<Request> {
        Ok(match kind {
            kind::PRUNE => Request::Prune {
                volume: i.volume()?,
                epoch: i.real_epoch()?,
                keep: i.list(5, MAX_KEEP, In::view)?,
                replicas: i.replicas(MAX_PRUNE)?,
            },
            kind::SEAL => Request::Seal {
                volume: i.volume()?,
                epoch: i.real_epoch()?,
                version: i.real_version()?,
                replicas: i.replicas(MAX_LIST)?,
            },
            kind::TALLY => {
                let (target, views) = (i.target()?, i.list(5, MAX_KEEP, In::view)?);
                if views.is_empty() {
                    return Err(Malformed("tally for nobody"));
                }
                Request::Tally { target, views }
            }
            kind::READ_SHARED | kind::PRESENCE | kind::PRESENT_DATA => {
                let (volume, chunk, replica) = (i.volume()?, i.chunk()?, i.replica()?);
                let (disk, view) = (i.disk()?, i.view()?);
                if kind == kind::PRESENCE {
                    return Ok(Request::Presence { volume, chunk, replica, disk, view });
                }
                if kind == kind::PRESENT_DATA {
                    return Ok(Request::PresentData { volume, chunk, replica, disk, view });
                }
                let (block, count) = i.range()?;
                Request::ReadShared { volume, chunk, replica, disk, view, block, count }
            }
            _ => return Err(Malformed("unknown request")),
        })
    }

    fn decode_write(mut i: In, data_len: usize) -> Decoded<Request> {
        let target = i.target()?;
        let (kind, version, seq) = (i.block_kind()?, i.real_version()?, Seq(i.u64()?));
        let (block, count) = i.range()?;
        let blocks = match kind {
            BlockKind::Data => count as usize,
            BlockKind::Zero => 0,
            BlockKind::Absent => return Err(Malformed("write of nothing")),
        };
        if i.0.len() != blocks * 4 || data_len != blocks * BLOCK_SIZE {
            return Err(Malformed("length of write"));
        }
        Ok(Request::Write { target, kind, version, seq, block, count, crcs: Crcs(i.0) })
    }

    fn decode_repair(mut i: In, data_len: usize) -> Decoded<Request> {
        let (target, scope) = (i.target()?, i.scope()?);
        let entries = i.list(ENTRY_LEN, MAX_LIST, In::real_entry)?;
        let with_data = entries.iter().filter(|e| e.kind == BlockKind::Data && scope != Scope::Gone);
        if data_len != with_data.count() * BLOCK_SIZE {
            return Err(Malformed("length of repair"));
        }
        i.end(Request::Repair { target, scope, entries })
    }
}

impl Reply {
    /// An error reply.
    pub fn error(status: Status, detail: impl Into<String>) -> Reply {
        Reply::Error { status, detail: detail.into() }
    }

    /// The status that goes into the frame header.
    pub fn status(&self) -> Status {
        match self {
            Reply::Error { status, .. } => *status,
            _ => Status::Ok,
        }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut o = Out(out);
        match self {
            Reply::Done => {}
            Reply::Hello { max_requests, max_bytes, ticket } => {
                o.u32(*max_requests).u32(*max_bytes).u64(ticket.0);
            }
            Reply::Fenced { disks, gaps } => {
                for list in [disks, gaps] {
                    o.u32(list.len() as u32);
                    for disk in list {
                        o.u32(disk.0);
                    }
                }
            }
            Reply::Replicas { replicas, more } => {
                o.u8(u8::from(*more)).u32(replicas.len() as u32);
                for r in replicas {
                    o.u64(r.chunk.0).u64(r.replica.0).u32(r.config.0).u32(r.adopted.0).u8(u8::from(r.damaged));
                    o.u64(r.digest.0 as u64).u64((r.digest.0 >> 64) as u64).u32(r.entries).u64(r.max_seq.0);
                    o.u64(r.commit.0).u32(r.sealed.0);
                }
            }
            Reply::Read { entries } => o.entries(entries),
            Reply::List { entries, more } | Reply::ReadVersions { entries, more } => {
                o.u8(u8::from(*more));
                o.entries(entries);
            }
            Reply::Pruned { dropped } => {
                o.u64(*dropped);
            }
            Reply::Presence { bits } | Reply::PresentData { bits } => o.0.extend_from_slice(bits),
            Reply::Tally { stored, alone, entries, data } => {
                o.u32(*stored).u32(alone.len() as u32);
                for count in alone {
                    o.u32(*count);
                }
                o.0.extend_from_slice(entries);
                o.0.extend_from_slice(data);
            }
            Reply::Scan { digest, data, blocks, bad } => {
                o.u64(digest.0 as u64).u64((digest.0 >> 64) as u64).u32(*data).u32(*blocks).u32(bad.len() as u32);
                for b in bad {
                    o.u32(*b);
                }
            }
            Reply::Error { detail, .. } => o.0.extend_from_slice(detail.as_bytes()),
        }
    }

    /// Decodes the reply to a request of `kind`.
    pub fn decode(kind: u16, status: u16, meta: Bytes, data_len: usize) -> Decoded<Reply> {
        let status = Status::from_code(status).ok_or(Malformed("unknown status"))?;
        if status != Status::Ok {
            return Ok(Reply::Error { status, detail: String::from_utf8_lossy(&meta).into_owned() });
        }
        let mut i = In(meta);
        let reply = match kind & !REPLY_BIT {
            kind::HELLO => {
                let (max_requests, max_bytes, ticket) = (i.u32()?, i.u32()?, Ticket(i.u64()?));
                i.extensions()?;
                Reply::Hello { max_requests, max_bytes, ticket }
            }
            kind::FENCE => Reply::Fenced {
                disks: i.list(4, MAX_FENCED_DISKS, |i| Ok(DiskId(i.u32()?)))?,
                gaps: i.list(4, MAX_FENCED_DISKS, |i| Ok(DiskId(i.u32()?)))?,
            },
            kind::REPLICAS => {
                let more = i.bool()?;
                Reply::Replicas { replicas: i.list(SUMMARY_LEN, MAX_SUMMARIES, Self::decode_summary)?, more }
            }
            kind::READ | kind::READ_SHARED => {
                let entries = Self::decode_read(&mut i, MAX_BLOCKS as usize, data_len)?;
                return i.end(Reply::Read { entries });
            }
            kind::READ_VERSIONS => {
                let more = i.bool()?;
                let entries = Self::decode_read(&mut i, MAX_VERSION_ENTRIES, data_len)?;
                return i.end(Reply::ReadVersions { entries, more });
            }
            kind::PRUNE => Reply::Pruned { dropped: i.u64()? },
            kind::PRESENCE if i.0.len() == PRESENCE_LEN => Reply::Presence { bits: std::mem::take(&mut i.0) },
            kind::PRESENT_DATA if i.0.len() == PRESENCE_LEN => Reply::PresentData { bits: std::mem::take(&mut i.0) },
            kind::TALLY => {
                let (stored, alone) = (i.u32()?, i.list(4, MAX_KEEP, In::u32)?);
                if i.0.len() != 2 * PRESENCE_LEN {
                    return Err(Malformed("length of tally"));
                }
                let entries = i.0.split_to(PRESENCE_LEN);
                Reply::Tally { stored, alone, entries, data: std::mem::take(&mut i.0) }
            }
            kind::LIST => {
                let more = i.bool()?;
                Reply::List { entries: i.list(ENTRY_LEN, MAX_LIST, In::entry)?, more }
            }
            kind::SCAN => Reply::Scan {
                digest: Digest(u128::from(i.u64()?) | (u128::from(i.u64()?) << 64)),
                data: i.u32()?,
                blocks: i.u32()?,
                bad: i.list(4, MAX_LIST, In::u32)?,
            },
            kind::CREATE | kind::WRITE | kind::REPAIR | kind::ADOPT | kind::COMMIT | kind::SEAL | kind::PING => {
                Reply::Done
            }
            _ => return Err(Malformed("unknown reply")),
        };
        if data_len != 0 {
            return Err(Malformed("unexpected data"));
        }
        i.end(reply)
    }

    /// Entries whose data is beside them.
    fn decode_read(i: &mut In, max: usize, data_len: usize) -> Decoded<Vec<BlockEntry>> {
        let entries = i.list(ENTRY_LEN, max, In::entry)?;
        let blocks = entries.iter().filter(|e| e.kind == BlockKind::Data).count();
        if data_len == blocks * BLOCK_SIZE { Ok(entries) } else { Err(Malformed("length of read")) }
    }

    fn decode_summary(i: &mut In) -> Decoded<ReplicaSummary> {
        let summary = ReplicaSummary {
            chunk: ChunkId(i.u64()?),
            replica: ReplicaId(i.u64()?),
            config: ConfigNo(i.u32()?),
            adopted: i.epoch()?,
            damaged: i.bool()?,
            digest: Digest(u128::from(i.u64()?) | (u128::from(i.u64()?) << 64)),
            entries: i.u32()?,
            max_seq: Seq(i.u64()?),
            commit: Seq(i.u64()?),
            sealed: Version(i.u32()?),
        };
        Ok(summary)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
