use glommio::LocalExecutorBuilder;

use super::*;

/// Bytes to be read or written in pieces; notes what has begun.
struct Bytes {
    share: Rc<Share>,
    lane: Lane,
    left: Cell<u64>,
    left_alone: Cell<bool>,
    forgotten: Cell<bool>,
    begun: RefCell<Vec<Cost>>,
}

impl Bytes {
    fn new(share: &Rc<Share>, lane: Lane, bytes: u64) -> Rc<Self> {
        Rc::new(Bytes {
            share: share.clone(),
            lane,
            left: Cell::new(bytes),
            left_alone: Cell::default(),
            forgotten: Cell::default(),
            begun: RefCell::default(),
        })
    }

    fn submit(share: &Rc<Share>, lane: Lane, bytes: u64) -> Rc<Self> {
        let work = Self::new(share, lane, bytes);
        share.submit(work.clone());
        work
    }

    fn begun(&self) -> u64 {
        self.begun.borrow().iter().map(|cost| cost.bytes).sum()
    }

    /// The oldest piece is done.
    fn done(&self) {
        let cost = self.begun.borrow_mut().remove(0);
        self.share.release(cost);
    }
}

impl Work for Bytes {
    fn cost(&self) -> Option<Cost> {
        let bytes = self.left.get().min(PIECE_LEN);
        (bytes > 0).then_some(Cost { lane: self.lane, bytes })
    }

    fn begin(self: Rc<Self>) {
        let cost = self.cost().unwrap();
        self.left.set(self.left.get() - cost.bytes);
        self.begun.borrow_mut().push(cost);
    }

    fn is_left(&self) -> bool {
        self.left_alone.get()
    }

    fn forget(&self) {
        self.left.set(0);
        self.forgotten.set(true);
    }
}

/// Runs a test where pieces can be begun. An executor whose preempt timer fires before its first task ran may sleep.
fn on_executor<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    let builder = LocalExecutorBuilder::default().preempt_timer(Duration::from_secs(60));
    let all = || async move {
        // Without it an executor may sleep while tasks are ready.
        let tick = glommio::spawn_local(async {
            loop {
                sleep(Duration::from_millis(5)).await;
            }
        });
        test().await;
        tick.cancel().await;
    };
    builder.spawn(all).unwrap().join().unwrap();
}

/// Lets as many turns pass as anything here takes.
async fn settle() {
    for _ in 0..200 {
        sleep(Duration::from_micros(10)).await;
    }
}

fn budget(volume: u64, all: u64) -> Budget {
    Budget { volume: volume * PIECE_LEN, all: all * PIECE_LEN }
}

#[test]
fn one_volume_has_its_budget_and_each_lane_its_own() {
    on_executor(|| async {
        let share = Share::new(budget(4, 100));
        let write = Bytes::submit(&share, Lane::Write, 10 * PIECE_LEN);
        settle().await;
        assert_eq!(write.begun(), 4 * PIECE_LEN);
        let behind = Bytes::submit(&share, Lane::Write, 512);
        assert_eq!(behind.begun(), 0, "lanes keep their order");
        let read = Bytes::submit(&share, Lane::Read, 512);
        let discard = Bytes::submit(&share, Lane::Other, 512);
        assert_eq!((read.begun(), discard.begun()), (512, 512));
        write.done();
        assert_eq!(write.begun(), 4 * PIECE_LEN);
        for _ in 0..9 {
            write.done();
            settle().await;
        }
        assert_eq!((write.begun(), behind.begun()), (0, 512));
    });
}

#[test]
fn the_executor_has_other_tasks() {
    on_executor(|| async {
        let share = Share::new(budget(64, 100));
        let large = Bytes::submit(&share, Lane::Read, 64 * PIECE_LEN);
        assert_eq!(large.begun(), TURN_BYTES, "the rest begins after their turn");
        settle().await;
        assert_eq!(large.begun(), 64 * PIECE_LEN);
    });
}

#[test]
fn a_neighbour_finds_room_and_gets_equal_turns() {
    on_executor(|| async {
        let (loud, quiet) = (Share::new(budget(64, 1000)), Share::new(budget(64, 1000)));
        let flood = Bytes::submit(&loud, Lane::Read, 1000 * PIECE_LEN);
        settle().await;
        assert_eq!(flood.begun(), 64 * PIECE_LEN, "alone, it has all of its budget");
        let small = Bytes::submit(&quiet, Lane::Read, 4096);
        assert_eq!(small.begun(), 4096);
        sleep(2 * COUNTED).await;
        while flood.begun() > CONTESTED_WINDOW / 2 {
            let before = flood.begun();
            flood.done();
            settle().await;
            assert!(flood.begun() < before, "nothing begins while there is more in flight than its part");
        }
        let other = Bytes::submit(&quiet, Lane::Read, 1000 * PIECE_LEN);
        settle().await;
        assert_eq!((flood.begun(), other.begun()), (CONTESTED_WINDOW / 2, CONTESTED_WINDOW / 2 - PIECE_LEN));
    });
}

#[test]
fn all_together_are_bounded_and_nobody_starves() {
    on_executor(|| async {
        let shares: Vec<_> = (0..4).map(|_| Share::new(budget(8, 10))).collect();
        let floods: Vec<_> = shares.iter().map(|share| Bytes::submit(share, Lane::Write, 100 * PIECE_LEN)).collect();
        let in_flight = || floods.iter().map(|flood| flood.begun()).sum::<u64>();
        settle().await;
        for _ in 0..90 {
            assert!(in_flight() <= (10 + 4) * PIECE_LEN && floods.iter().all(|flood| flood.begun() >= PIECE_LEN));
            floods.iter().for_each(|flood| flood.done());
            settle().await;
        }
        assert!(floods.iter().all(|flood| flood.left.get() <= 10 * PIECE_LEN), "turns are equal");
    });
}

#[test]
fn what_nobody_waits_for_is_forgotten() {
    on_executor(|| async {
        let share = Share::new(budget(1, 10));
        let [first, second, third] = [(); 3].map(|()| Bytes::submit(&share, Lane::Write, 2 * PIECE_LEN));
        first.left_alone.set(true);
        third.left_alone.set(true);
        share.forget_left();
        assert!(first.forgotten.get() && third.forgotten.get() && !second.forgotten.get());
        second.left_alone.set(true);
        first.done();
        settle().await;
        assert!(second.forgotten.get() && second.begun() == 0, "found out when it is its turn");
        assert_eq!(share.core.waiting.get(), 0);
    });
}

#[test]
fn time_is_owed_only_while_others_are_used() {
    on_executor(|| async {
        let (loud, quiet) = (Share::new(budget(1, 10)), Share::new(budget(1, 10)));
        loud.charge(1000, 1 << 20);
        assert_eq!(loud.pause(), None);
        sleep(2 * COUNTED).await;
        Bytes::submit(&quiet, Lane::Read, 512);
        loud.charge(1000, 1 << 20);
        assert!(loud.pause().is_some_and(|pause| pause > MAX_OWED));
        assert_eq!(quiet.pause(), None);
    });
}
