//! The meta servers: the shipping state machine, behind messages that may be lost.
//!
//! A command whose answer is lost has taken effect all the same. Raft itself is not simulated: what it promises, one order
//! of commands, is taken for granted here.

use crate::process::Process;
use crate::world::World;
use levee_core::mutant;
use levee_core::ports::Runtime;
use levee_core::sync::{Event, Listener};
use levee_core::testing::TestRng;
use levee_meta_state::{Answer, Command, Outcome, State};
use levee_proto::api::{AttachmentId, Intent, ParentInfo, Problem, VolumeVersions};
use levee_proto::{NodeId, VolumeId};
use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// The meta servers as an end of a direction of the network.
pub const META: NodeId = NodeId(0);
/// One message, microseconds.
const DELAY: (u64, u64) = (50, 3000);
/// Before an asker gives up on servers that say nothing.
const SILENCE: Duration = Duration::from_millis(700);
/// One answer in so many is lost.
const LOSS: u64 = 50;

#[derive(Debug)]
pub enum MetaError {
    /// Whether it took effect is unknown.
    Unreachable,
    Refused(Problem),
}

/// A cheap handle.
#[derive(Clone)]
pub struct Meta(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    up: Cell<bool>,
    rng: RefCell<TestRng>,
    changed: Event,
    world: RefCell<Option<World>>,
    /// An earlier state.
    kept: RefCell<Option<State>>,
}

impl Meta {
    /// A founded cluster without nodes.
    pub fn new(seed: u64) -> Meta {
        let mut state = State::default();
        let founded = state.apply(&Command::Found { cluster: Uuid::from_u128(1) });
        debug_assert!(founded.is_ok());
        Meta(Rc::new(Inner {
            state: RefCell::new(state),
            up: Cell::new(true),
            rng: RefCell::new(TestRng::new(seed)),
            changed: Event::new(),
            world: RefCell::default(),
            kept: RefCell::default(),
        }))
    }

    /// The world that it belongs to; none at the end of a run.
    pub fn belong_to(&self, world: Option<World>) {
        *self.0.world.borrow_mut() = world;
    }

    fn world(&self) -> World {
        self.0.world.borrow().clone().expect("set for as long as anything runs")
    }

    pub fn state(&self) -> Ref<'_, State> {
        self.0.state.borrow()
    }

    /// Keeps the state as it is: it may be gone back to.
    pub fn keep(&self) {
        *self.0.kept.borrow_mut() = Some(self.0.state.borrow().clone());
    }

    /// The state that was kept.
    pub fn kept(&self) -> Option<State> {
        self.0.kept.borrow().clone()
    }

    /// Goes on with another state.
    pub fn replace(&self, state: State) {
        *self.0.state.borrow_mut() = state;
        self.0.changed.notify();
    }

    /// Completes when the state has changed.
    pub fn changed(&self) -> Listener {
        self.0.changed.listen()
    }

    pub fn set_up(&self, up: bool) {
        self.0.up.set(up);
    }

    /// A daemon has been told its node's id: it must be the one that it always had.
    pub fn joined(&self, node: NodeId, id: NodeId) {
        if node != id {
            self.world().fail("meta", &format!("node {node} was given id {id}"));
        }
    }

    /// Carries a command out at once, as an operator's.
    pub fn apply(&self, command: &Command) -> Outcome {
        let outcome = self.0.state.borrow_mut().apply(command);
        if let Err(why) = self.0.state.borrow().check() {
            self.world().fail("meta state", &format!("after {command:?}: {why}"));
        }
        self.0.changed.notify();
        outcome
    }

    /// Asks on behalf of a process.
    pub async fn ask(&self, process: &Process, command: Command) -> Result<Answer, MetaError> {
        self.travel(process, true).await?;
        let outcome = self.apply(&command);
        self.world().log(|| match &outcome {
            Ok(_) => format!("{}: {command:?} done", process.node),
            Err(p) => format!("{}: {command:?} refused: {}", process.node, p.detail),
        });
        self.travel(process, false).await?;
        if self.0.rng.borrow_mut().one_in(LOSS) {
            return Err(MetaError::Unreachable);
        }
        outcome.map_err(MetaError::Refused)
    }

    /// Asks on behalf of a gateway.
    pub async fn ask_as(&self, process: &Process, caller: AttachmentId, command: Command) -> Result<Answer, MetaError> {
        if mutant!("gateways are known by name") {
            return self.ask(process, command).await;
        }
        self.ask(process, Command::Of { caller, command: Box::new(command) }).await
    }

    /// What the node should do; `None` if it cannot be asked.
    pub async fn intent(&self, process: &Process) -> Option<Intent> {
        self.travel(process, true).await.ok()?;
        let intent = self.0.state.borrow().intent(process.node);
        self.travel(process, false).await.ok()?;
        intent
    }

    /// Where a volume's ancestors are.
    pub async fn parent(
        &self,
        process: &Process,
        caller: AttachmentId,
        name: &str,
    ) -> Result<Option<ParentInfo>, MetaError> {
        self.travel(process, true).await?;
        let found = self.0.state.borrow().parent_for(caller, name).map_err(MetaError::Refused)?;
        self.travel(process, false).await?;
        Ok(found.parent)
    }

    /// A volume's versions as they are now.
    pub async fn versions(
        &self,
        process: &Process,
        caller: AttachmentId,
        name: &str,
    ) -> Result<VolumeVersions, MetaError> {
        self.travel(process, true).await?;
        let versions = self.0.state.borrow().versions_for(caller, name).map_err(MetaError::Refused)?;
        self.travel(process, false).await?;
        Ok(versions)
    }

    /// Nodes that are not known to be down.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.world().alive()
    }

    /// The volume's newest epoch.
    pub fn epoch(&self, volume: VolumeId) -> u32 {
        self.0.state.borrow().volume(volume).map_or(0, |v| v.epoch.0)
    }

    /// One message, to the servers or back.
    async fn travel(&self, process: &Process, there: bool) -> Result<(), MetaError> {
        let delay = self.0.rng.borrow_mut().between(DELAY.0, DELAY.1);
        process.rt.sleep(Duration::from_micros(delay)).await;
        let (from, to) = if there { (process.node, META) } else { (META, process.node) };
        if !self.0.up.get() || self.world().net().is_cut(from, to) {
            process.rt.sleep(SILENCE).await;
            return Err(MetaError::Unreachable);
        }
        Ok(())
    }
}
