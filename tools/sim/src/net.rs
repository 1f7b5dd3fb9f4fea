//! Links between daemons.
//!
//! A link leads from one process to one core of another and is first in, first out, in each direction. A cut direction
//! delivers nothing until it is whole again. A link breaks when either end dies, or by itself: every call on it that is
//! not answered fails, at once or, if nobody says so, late. What was sent before may still arrive, long after: until a later link
//! of the same caller enters, by the same rule as in what ships ([`levee_proto::callers`]).

use crate::process::Process;
use bytes::Bytes;
use levee_core::gateway::{Done, LinkDown};
use levee_core::ports::Runtime;
use levee_core::sync::Event;
use levee_core::testing::{TestRng, TestRuntime};
use levee_core::{mutant, reached};
use levee_proto::callers::Ticket;
use levee_proto::wire::{Reply, Request};
use levee_proto::{Caller, NodeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// How long a peer that says nothing is waited for.
const SILENCE: (u64, u64) = (500_000, 4_000_000);
/// How long what is under way on a broken link may be held up.
const HELD_UP: (u64, u64) = (1_000, 3_000_000);

/// The process that calls, and the node and core that are called.
type Ends = (u64, NodeId, u16);

/// All links. A cheap handle.
#[derive(Clone)]
pub struct Net(Rc<Inner>);

struct Inner {
    rt: TestRuntime,
    rng: RefCell<TestRng>,
    delay: (Duration, Duration),
    /// Directions in which nothing gets through.
    cut: RefCell<BTreeSet<(NodeId, NodeId)>>,
    healed: Event,
    /// By calling process, and node and core that are called: the present link, and broken ones on which something is
    /// still under way.
    links: RefCell<BTreeMap<Ends, Vec<Rc<Link>>>>,
    /// The living process of each node.
    processes: RefCell<BTreeMap<NodeId, Rc<Process>>>,
}

/// One direction of a link: what is under way, and when it arrives.
struct Pipe<T> {
    queue: RefCell<VecDeque<(Duration, T)>>,
    last: Cell<Duration>,
    changed: Event,
}

/// What a caller sends over a link.
enum Sent {
    Hello,
    Enter(Ticket),
    Request(u64, Request, Bytes),
}

/// What it hears.
enum Heard {
    Welcome(Ticket),
    Answer(u64, Reply, Bytes),
}

pub struct Link {
    from: Rc<Process>,
    to: Rc<Process>,
    core: u16,
    /// The caller gets nothing more from it.
    broken: Cell<bool>,
    /// The caller has noticed that, and may connect again.
    noticed: Cell<bool>,
    /// Nothing more is delivered.
    dead: Cell<bool>,
    requests: Pipe<Sent>,
    answers: Pipe<Heard>,
    /// Requests that wait until the hello is answered; none then.
    waiting: RefCell<Option<Vec<Sent>>>,
    pending: RefCell<BTreeMap<u64, Done>>,
    next: Cell<u64>,
}

impl Link {
    fn caller(&self) -> Caller {
        // A gateway has the links of its process to itself, as on one core.
        Caller { node: self.from.node, core: 0, incarnation: self.from.incarnation.into_bytes() }
    }
}

impl<T> Pipe<T> {
    fn new() -> Pipe<T> {
        Pipe { queue: RefCell::default(), last: Cell::default(), changed: Event::new() }
    }

    fn push(&self, arrival: Duration, what: T) {
        let arrival = arrival.max(self.last.get());
        self.last.set(arrival);
        self.queue.borrow_mut().push_back((arrival, what));
        self.changed.notify();
    }

    /// What is under way arrives no sooner than then.
    fn hold_up(&self, until: Duration) {
        self.queue.borrow_mut().iter_mut().for_each(|(arrival, _)| *arrival = until.max(*arrival));
    }
}

impl Net {
    pub fn new(rt: TestRuntime, seed: u64, delay: (Duration, Duration)) -> Net {
        Net(Rc::new(Inner {
            rt,
            rng: RefCell::new(TestRng::new(seed)),
            delay,
            cut: RefCell::default(),
            healed: Event::new(),
            links: RefCell::default(),
            processes: RefCell::default(),
        }))
    }

    /// The process can be called from now on, instead of an earlier one of its node.
    pub fn listen(&self, process: &Rc<Process>) {
        self.0.processes.borrow_mut().insert(process.node, process.clone());
    }

    /// The process is no more. `quietly`: its peers are not told.
    pub fn hang_up(&self, process: &Rc<Process>, quietly: bool) {
        self.0.processes.borrow_mut().retain(|_, p| !Rc::ptr_eq(p, process));
        let links = std::mem::take(&mut *self.0.links.borrow_mut());
        for (key, mut group) in links {
            for link in &group {
                if Rc::ptr_eq(&link.to, process) {
                    link.dead.set(true);
                    self.break_link(link, quietly);
                } else if Rc::ptr_eq(&link.from, process) {
                    link.broken.set(true);
                    link.dead.set(link.dead.get() || self.0.rng.borrow_mut().one_in(2));
                    link.requests.hold_up(self.0.rt.now() + self.micros(HELD_UP));
                }
            }
            group.retain(|link| !(link.dead.get() && (link.noticed.get() || Rc::ptr_eq(&link.from, process))));
            if !group.is_empty() {
                self.0.links.borrow_mut().insert(key, group);
            }
        }
    }

    /// Forgets everything: the end of a run.
    pub fn clear(&self) {
        self.0.links.take();
        for process in self.0.processes.take().into_values() {
            process.callers.take();
        }
    }

    /// Breaks the links between two nodes that there are.
    pub fn break_links(&self, a: NodeId, b: NodeId) {
        let links: Vec<_> = self.0.links.borrow().values().flatten().cloned().collect();
        for link in links.iter().filter(|l| !l.broken.get()) {
            let ends = (link.from.node, link.to.node);
            if (ends == (a, b) || ends == (b, a)) && a != b {
                link.dead.set(self.0.rng.borrow_mut().one_in(2));
                link.requests.hold_up(self.0.rt.now() + self.micros(HELD_UP));
                self.break_link(link, false);
            }
        }
    }

    /// From now on nothing gets from `from` to `to`.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        if from != to {
            self.0.cut.borrow_mut().insert((from, to));
        }
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.0.cut.borrow_mut().clear();
        self.0.healed.notify();
    }

    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.0.cut.borrow().contains(&(from, to))
    }

    /// Sends a request from one process to a core of a node. `done` is called in the process, and not from inside.
    pub fn call(&self, from: &Rc<Process>, to: NodeId, core: u16, request: Request, data: Bytes, done: Done) {
        match self.link(from, to, core) {
            Some(link) => {
                let id = link.next.replace(link.next.get() + 1);
                link.pending.borrow_mut().insert(id, done);
                let request = Sent::Request(id, request, data);
                match &mut *link.waiting.borrow_mut() {
                    _ if link.broken.get() => {}
                    Some(waiting) => waiting.push(request),
                    None => link.requests.push(self.arrival(&link), request),
                }
            }
            None => self.refuse(from, to, done),
        }
    }

    /// There is nobody to call.
    fn refuse(&self, from: &Rc<Process>, to: NodeId, done: Done) {
        let cut = self.is_cut(from.node, to) || self.is_cut(to, from.node);
        let pause = if cut { self.micros(SILENCE) } else { self.pause() };
        let rt = self.0.rt.clone();
        from.rt.spawn(async move {
            rt.sleep(pause).await;
            done(Err(LinkDown("it cannot be reached".into())));
        });
    }

    fn micros(&self, (least, most): (u64, u64)) -> Duration {
        Duration::from_micros(self.0.rng.borrow_mut().between(least, most))
    }

    fn pause(&self) -> Duration {
        let (least, most) = self.0.delay;
        self.micros((least.as_micros() as u64, most.as_micros() as u64))
    }

    fn arrival(&self, link: &Link) -> Duration {
        let pause = if Rc::ptr_eq(&link.from, &link.to) { Duration::from_micros(1) } else { self.pause() };
        self.0.rt.now() + pause
    }

    /// The present link; a new one if there is none and the node can be reached.
    fn link(&self, from: &Rc<Process>, to: NodeId, core: u16) -> Option<Rc<Link>> {
        let key = (from.number, to, core);
        if let Some(link) = self.0.links.borrow().get(&key).and_then(|group| group.last())
            && !link.noticed.get()
        {
            return Some(link.clone());
        }
        let server = self.0.processes.borrow().get(&to).cloned()?;
        if self.is_cut(from.node, to) || self.is_cut(to, from.node) {
            return None;
        }
        let link = Rc::new(Link {
            from: from.clone(),
            to: server.clone(),
            core,
            broken: Cell::new(false),
            noticed: Cell::new(false),
            dead: Cell::new(false),
            requests: Pipe::new(),
            answers: Pipe::new(),
            waiting: RefCell::new(Some(vec![])),
            pending: RefCell::default(),
            next: Cell::new(0),
        });
        let mut links = self.0.links.borrow_mut();
        let group = links.entry(key).or_default();
        group.retain(|l| !l.dead.get());
        group.push(link.clone());
        drop(links);
        link.requests.push(self.arrival(&link), Sent::Hello);
        let (net, mine) = (self.clone(), link.clone());
        server.rt.spawn(async move { net.deliver_requests(mine).await });
        let (net, mine) = (self.clone(), link.clone());
        from.rt.spawn(async move { net.deliver_answers(mine).await });
        Some(link)
    }

    /// Takes the front of a pipe when it has arrived. `None` when nothing more will.
    async fn next<T>(&self, pipe: &Pipe<T>, from: NodeId, to: NodeId, is_over: impl Fn() -> bool) -> Option<T> {
        loop {
            let (changed, healed) = (pipe.changed.listen(), self.0.healed.listen());
            if is_over() {
                return None;
            }
            let front = pipe.queue.borrow().front().map(|(arrival, _)| *arrival);
            match front {
                None => changed.await,
                Some(arrival) if arrival > self.0.rt.now() => self.0.rt.sleep(arrival - self.0.rt.now()).await,
                Some(_) if self.is_cut(from, to) => healed.await,
                Some(_) => return pipe.queue.borrow_mut().pop_front().map(|(_, what)| what),
            }
        }
    }

    /// Runs in the process that is called.
    async fn deliver_requests(&self, link: Rc<Link>) {
        let is_over = || link.dead.get() || (link.broken.get() && link.requests.queue.borrow().is_empty());
        let mut ticket = None;
        while let Some(sent) = self.next(&link.requests, link.from.node, link.to.node, is_over).await {
            match sent {
                Sent::Hello => {
                    let offered = link.to.callers.borrow_mut().offer();
                    ticket = Some(offered);
                    self.answer(&link, Heard::Welcome(offered));
                }
                Sent::Enter(named) => self.enter(&link, named),
                Sent::Request(id, request, data) => {
                    let (net, back) = (self.clone(), link.clone());
                    let reply = Box::new(move |reply: Reply, data: Bytes| {
                        net.answer(&back, Heard::Answer(id, reply, data));
                    });
                    link.to.handle(link.core, request, data, reply);
                }
            }
        }
        link.dead.set(true);
        if let Some(ticket) = ticket {
            link.to.callers.borrow_mut().leave(&link.caller(), link.core, ticket);
        }
    }

    fn answer(&self, link: &Link, answer: Heard) {
        if !link.broken.get() {
            link.answers.push(self.arrival(link), answer);
        }
    }

    /// Ends the older links of the caller, or this one if it is one of them.
    fn enter(&self, link: &Rc<Link>, ticket: Ticket) {
        let entered = link.to.callers.borrow_mut().enter(&link.caller(), link.core, ticket, link.clone());
        if mutant!("requests of older links are handled") {
            return;
        }
        let ended = entered.unwrap_or_else(|_| vec![link.clone()]);
        for old in ended {
            if !old.requests.queue.borrow().is_empty() {
                reached!("link replaced with requests under way");
            }
            old.dead.set(true);
            self.break_link(&old, false);
            old.requests.changed.notify();
        }
    }

    /// Runs in the process that calls.
    async fn deliver_answers(&self, link: Rc<Link>) {
        let is_over = || link.broken.get();
        while let Some(heard) = self.next(&link.answers, link.to.node, link.from.node, is_over).await {
            match heard {
                Heard::Welcome(ticket) => {
                    let waiting = link.waiting.take().unwrap_or_default();
                    for sent in std::iter::once(Sent::Enter(ticket)).chain(waiting) {
                        link.requests.push(self.arrival(&link), sent);
                    }
                }
                Heard::Answer(id, reply, data) => {
                    let done = link.pending.borrow_mut().remove(&id);
                    if let Some(done) = done {
                        done(Ok((reply, data)));
                    }
                }
            }
        }
    }

    fn break_link(&self, link: &Rc<Link>, quietly: bool) {
        if link.broken.replace(true) {
            return;
        }
        link.requests.changed.notify();
        link.answers.changed.notify();
        let pause = if quietly { self.micros(SILENCE) } else { self.pause() };
        let (rt, link) = (self.0.rt.clone(), link.clone());
        link.from.rt.clone().spawn(async move {
            rt.sleep(pause).await;
            link.noticed.set(true);
            let pending = link.pending.take();
            for done in pending.into_values() {
                done(Err(LinkDown("the link broke".into())));
            }
        });
    }
}
