//! Named bounds: what is explored.

use crate::bounds::{Bounds, Budget};

pub struct Scenario {
    pub name: &'static str,
    pub text: &'static str,
    pub bounds: Bounds,
    /// Takes minutes: explored only when asked for.
    pub large: bool,
}

const fn of(name: &'static str, text: &'static str, bounds: Bounds) -> Scenario {
    Scenario { name, text, bounds, large: false }
}

const fn large(name: &'static str, text: &'static str, bounds: Bounds) -> Scenario {
    Scenario { name, text, bounds, large: true }
}

const TWO: Budget = Budget { writes: 2, discards: 0, losses: 0, restarts: 0, damages: 0, changes: 0 };
const LOSS: Budget = Budget { losses: 1, ..TWO };

const fn base(copies: usize, min: usize) -> Bounds {
    Bounds::of(copies, min).budget(LOSS)
}

pub const SCENARIOS: &[Scenario] = &[
    of("base-2-1", "takeovers with 2 copies, of which 1 acknowledges", base(2, 1)),
    of("base-2-2", "takeovers with 2 copies, of which 2 acknowledge", base(2, 2)),
    of("base-3-1", "takeovers with 3 copies, of which 1 acknowledges", base(3, 1)),
    of("base-3-2", "takeovers with 3 copies, of which 2 acknowledge", base(3, 2)),
    of("base-3-3", "takeovers with 3 copies, of which 3 acknowledge", base(3, 3)),
    of("two-blocks", "adoption takes several steps", Bounds { blocks: 2, ..Bounds::of(3, 2) }),
    of(
        "four-epochs",
        "three takeovers in a row",
        Bounds { epochs: 4, ..Bounds::of(3, 2) }.budget(Budget { writes: 1, ..TWO }),
    ),
    of(
        "links",
        "links that break, in a single takeover",
        Bounds { epochs: 2, ..Bounds::of(3, 2) }.budget(Budget { losses: 2, ..TWO }),
    ),
    of("restarts", "replicas restart", Bounds::of(3, 2).budget(Budget { restarts: 1, ..TWO })),
    of(
        "buffered",
        "writes are accepted before they are durable",
        Bounds { buffered: true, ..Bounds::of(3, 2) }.budget(Budget { restarts: 1, ..TWO }),
    ),
    of("damage", "a replica loses an entry to corruption", Bounds::of(3, 2).budget(Budget { damages: 1, ..TWO })),
    of(
        "replace",
        "one member is replaced",
        Bounds { spares: 1, epochs: 2, ..Bounds::of(3, 2) }.budget(Budget { changes: 1, ..TWO }),
    ),
    of(
        "replace-pair",
        "both members of a pair, or two of three, are replaced",
        Bounds { spares: 2, epochs: 2, ..Bounds::of(3, 2) }.budget(Budget { changes: 1, ..TWO }),
    ),
    large(
        "large-3-2",
        "two blocks, three writes, a loss",
        Bounds { blocks: 2, ..base(3, 2) }.budget(Budget { writes: 3, ..LOSS }),
    ),
];
