//! The storage daemon as a process, beside a meta server that answers as told.

mod changing_disks;
mod cluster_view;
mod common;
mod disks;
mod sample;
mod volumes;
mod wrong_input;
