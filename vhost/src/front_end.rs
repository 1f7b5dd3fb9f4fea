//! Who is connected to a device, as its owner can ask.

use std::time::Instant;

/// The front end of a device, and those that wanted to be it.
#[derive(Clone, Debug, Default)]
pub struct FrontEnd {
    /// The one that is connected; it keeps the device until it goes.
    pub connected: Option<Connected>,
    /// Connections that were turned away since the service began, and why the last one was.
    pub refused: u64,
    pub last_refusal: Option<String>,
}

/// A front end that is connected.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its process, as it was when it connected.
    pub process: Option<i32>,
    pub since: Instant,
    /// A guest uses the device: its driver has started at least one queue.
    pub started: bool,
}
