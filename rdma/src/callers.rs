//! The links that lead to this process, over whichever of its cores: which of a caller's counts.
//!
//! The rule is [`levee_proto::callers`]'. Servers of all cores share one table, which is looked at when a link begins or ends;
//! a link learns by a flag of its own that it has been superseded, and looks at that before each request. So on the core that a
//! newer link enters at nothing of an older one follows. On another core, where links of an earlier process of the node may be, a
//! request that is being handed over at that moment still is; it comes before whatever the new process asks for there,
//! which has to make a link to that core first.

use crate::errors::Reason;
use levee_proto::Caller;
use levee_proto::callers::{self, Ticket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Superseded = Arc<AtomicBool>;

/// The links to one process. A cheap handle, for each of its servers.
#[derive(Clone, Default)]
pub struct Callers(Arc<Mutex<callers::Callers<Superseded>>>);

/// A link's place among those of its caller.
pub(crate) struct Seat {
    caller: Caller,
    core: u16,
    pub ticket: Ticket,
    superseded: Superseded,
}

impl Seat {
    /// Whether a newer link of the caller has entered.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }
}

impl Callers {
    pub(crate) fn offer(&self, caller: Caller, core: u16) -> Seat {
        Seat { caller, core, ticket: self.table().offer(), superseded: Superseded::default() }
    }

    /// The caller has named the ticket: from now on older links of it are superseded.
    pub(crate) fn enter(&self, seat: &Seat) -> Result<(), Reason> {
        let entered = self.table().enter(&seat.caller, seat.core, seat.ticket, seat.superseded.clone());
        let older = entered.map_err(|callers::Late| "a newer link of the caller is here already")?;
        older.iter().for_each(|link| link.store(true, Ordering::Release));
        Ok(())
    }

    pub(crate) fn leave(&self, seat: &Seat) {
        self.table().leave(&seat.caller, seat.core, seat.ticket);
    }

    /// The table is whole after each step, so that it is no worse for a panic of one who held it.
    fn table(&self) -> MutexGuard<'_, callers::Callers<Superseded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
