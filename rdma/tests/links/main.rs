//! Links between processes.

mod calls;
mod common;
mod failures;
mod hostile;
mod loopback;
mod superseded;
