//! Devices that are really served, and front ends that behave and do not.

mod common;
mod end_to_end;
mod full_disk;
mod hostile_front_end;
mod hostile_guest;
mod inflight;
mod qemu;
mod read_only;
mod resize;
