//! Links between daemons.
//!
//! A link leads from one process to one core of another and is first in, first out, in each direction. A cut direction
//! delivers nothing until it is whole again. A link breaks when either end dies, or by itself: every call on it that is
//! not answered fails, at once or, if nobody says so, late. What was sent before may still arrive, until a later link of the
//! same process has had a fence answered by that core.

use crate::process::Process;
use bytes::Bytes;
use levee_core::gateway::{Done, LinkDown};
use levee_core::ports::Runtime;
use levee_core::sync::Event;
use levee_core::testing::{TestRng, TestRuntime};
use levee_proto::NodeId;
use levee_proto::wire::{Reply, Request};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// How long a peer that says nothing is waited for.
const SILENCE: (u64, u64) = (500_000, 4_000_000);

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

struct Link {
    from: Rc<Process>,
    to: Rc<Process>,
    core: u16,
    /// The caller gets nothing more from it.
    broken: Cell<bool>,
    /// The caller has noticed that, and may connect again.
    noticed: Cell<bool>,
    /// Nothing more is delivered.
    dead: Cell<bool>,
    requests: Pipe<(u64, Request, Bytes)>,
    answers: Pipe<(u64, Reply, Bytes)>,
    pending: RefCell<BTreeMap<u64, Done>>,
    next: Cell<u64>,
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
        self.0.processes.take();
    }

    /// Breaks the links between two nodes that there are.
    pub fn break_links(&self, a: NodeId, b: NodeId) {
        let links: Vec<_> = self.0.links.borrow().values().flatten().cloned().collect();
        for link in links.iter().filter(|l| !l.broken.get()) {
            let ends = (link.from.node, link.to.node);
            if (ends == (a, b) || ends == (b, a)) && a != b {
                link.dead.set(self.0.rng.borrow_mut().one_in(2));
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
                if !link.broken.get() {
                    let arrival = self.arrival(&link);
                    link.requests.push(arrival, (id, request, data));
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
            pending: RefCell::default(),
            next: Cell::new(0),
        });
        let mut links = self.0.links.borrow_mut();
        let group = links.entry(key).or_default();
        group.retain(|l| !l.dead.get());
        group.push(link.clone());
        drop(links);
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
        while let Some((id, request, data)) = self.next(&link.requests, link.from.node, link.to.node, is_over).await {
            let (net, back) = (self.clone(), link.clone());
            let is_fence = matches!(request, Request::Fence { .. });
            let reply = Box::new(move |reply: Reply, data: Bytes| {
                if is_fence && matches!(reply, Reply::Fenced { .. }) {
                    net.supersede(&back);
                }
                if !back.broken.get() {
                    let arrival = net.arrival(&back);
                    back.answers.push(arrival, (id, reply, data));
                }
            });
            link.to.handle(link.core, request, data, reply);
        }
        link.dead.set(true);
    }

    /// A fence was answered on this link: nothing arrives any more on those before it.
    fn supersede(&self, link: &Rc<Link>) {
        let key = (link.from.number, link.to.node, link.core);
        if let Some(group) = self.0.links.borrow_mut().get_mut(&key)
            && let Some(at) = group.iter().position(|l| Rc::ptr_eq(l, link))
        {
            for old in group.drain(..at) {
                old.dead.set(true);
                old.requests.changed.notify();
            }
        }
    }

    /// Runs in the process that calls.
    async fn deliver_answers(&self, link: Rc<Link>) {
        let is_over = || link.broken.get();
        while let Some((id, reply, data)) = self.next(&link.answers, link.to.node, link.from.node, is_over).await {
            let done = link.pending.borrow_mut().remove(&id);
            if let Some(done) = done {
                done(Ok((reply, data)));
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
