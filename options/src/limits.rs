//! Every bound of this crate.

/// Largest file of options, bytes.
pub const MAX_FILE: u64 = 1 << 20;
/// How many letters an unknown key may differ from a known one that is proposed in its place.
pub const MAX_TYPOS: usize = 2;
