//! Tests of the whole shard against a plain model, on a disk in memory.

mod basic;
mod world;
