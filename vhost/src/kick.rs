//! Waiting for the guest's kick on a glommio executor.
//!
//! The descriptor is shared with the front end, which may rely on its flags: they are never changed. It may also take
//! back what anybody writes to it: a queue is told to end by other means ([`crate::queue::Control`]).

use std::io;
use std::os::fd::OwnedFd;

use glommio::io::BufferedFile;

use crate::eventfd::on_executor;
use crate::limits::UNKICKED_POLL;

/// What an eventfd's counter is read as.
const COUNTER_LEN: usize = 8;

/// The kick descriptor of a running queue.
pub(crate) enum Kick {
    Event(BufferedFile),
    /// The front end gave none: the ring is looked at now and then.
    None,
}

impl Kick {
    pub fn new(event: Option<OwnedFd>) -> Self {
        match event {
            Some(event) => Kick::Event(on_executor(event)),
            None => Kick::None,
        }
    }

    /// Returns after a kick, or after any time if there are none. May be dropped.
    pub async fn wait(&self) -> io::Result<()> {
        let Kick::Event(event) = self else {
            glommio::timer::sleep(UNKICKED_POLL).await;
            return Ok(());
        };
        match event.read_at(0, COUNTER_LEN).await {
            Ok(counter) if counter.len() == COUNTER_LEN => Ok(()),
            Ok(_) => Err(io::Error::other("the kick descriptor has ended")),
            Err(e) => match io::Error::from(e) {
                e if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {
                    glommio::timer::sleep(UNKICKED_POLL).await;
                    Ok(())
                }
                e => Err(e),
            },
        }
    }

    pub async fn close(self) {
        if let Kick::Event(event) = self {
            // The descriptor is gone either way, and nothing was written to it.
            let _ = event.close().await;
        }
    }
}
