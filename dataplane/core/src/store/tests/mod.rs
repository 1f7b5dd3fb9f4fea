//! Tests of the whole shard against a plain model, on a disk in memory.

mod basic;
mod campaign;
mod crash;
mod damage;
mod full;
mod golden;
mod space;
mod starved;
mod superblock;
mod tail;
mod unreadable;
mod versions;
mod world;
