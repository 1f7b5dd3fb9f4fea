//! Whole clusters of the real daemons, as `levee up` starts them, with verified load on a volume: what an
//! operator does, does wrong, and lives through. Needs the daemons beside `levee` (`cargo build --release`).

mod bit_rot;
mod clones;
mod cluster;
mod crash;
mod front_ends;
mod groups;
mod guest;
mod images;
mod init;
mod large;
mod metas;
mod mirrors;
mod names;
mod node_loss;
mod operations;
mod readers;
mod repair;
mod resize;
mod shared_reads;
mod snapshots;
mod space;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod tide;
mod usage;
mod versions_faults;
mod wrong_input;
