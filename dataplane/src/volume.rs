//! One volume served by this core: from the meta server's epoch to the socket and back.

use crate::device::VolumeDevice;
use crate::links::{Links, VolumeLinks};
use crate::ports::GlommioRuntime;
use crate::stats::IoStats;
use levee_core::gateway::{Gateway, Options};
use levee_proto::api::{OpenedVolume, ServeState, VerifyEvent, VolumeReport};
use levee_proto::{NodeId, VolumeId};
use levee_vhost::{ServerConfig, ServerHandle};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};

/// Before a socket that could not be made is tried again.
const SOCKET_RETRY: Duration = Duration::from_secs(1);
/// How long a verification waits for copies that are being caught up.
const VERIFY_PATIENCE: Duration = Duration::from_secs(120);

/// How a volume is to be served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub socket: PathBuf,
    pub queues: u16,
    pub poll: Duration,
}

/// A volume that this core serves, or tries to. A cheap handle.
#[derive(Clone)]
pub struct Volume(Rc<Inner>);

struct Inner {
    id: VolumeId,
    gateway: Gateway<GlommioRuntime, VolumeLinks>,
    opened: OpenedVolume,
    stats: Rc<IoStats>,
    options: ServeOptions,
    state: RefCell<State>,
    /// Tells the control thread that there is something new to report.
    news: async_channel::Sender<()>,
}

enum State {
    Opening,
    Serving(Option<ServerHandle>),
    Closing,
    Failed(String),
}

impl Volume {
    /// Takes the volume over and serves it, in the background.
    pub fn open(
        opened: OpenedVolume,
        node: NodeId,
        links: Links,
        options: ServeOptions,
        news: async_channel::Sender<()>,
    ) -> Volume {
        let rt = GlommioRuntime::new();
        let cluster = VolumeLinks { links, volume: opened.name.clone(), epoch: opened.epoch };
        let gateway = Gateway::open(rt, cluster, node, opened.clone(), Options::default());
        let volume = Volume(Rc::new(Inner {
            id: opened.id,
            gateway,
            opened,
            stats: Rc::new(IoStats::new()),
            options,
            state: RefCell::new(State::Opening),
            news,
        }));
        let this = volume.clone();
        glommio::spawn_local(async move { this.serve().await }).detach();
        volume
    }

    async fn serve(&self) {
        if self.0.gateway.ready().await.is_ok() {
            while self.is_wanted() && !self.listen().await {
                glommio::timer::sleep(SOCKET_RETRY).await;
            }
        }
        let why = self.0.gateway.wait_stopped().await;
        let server = self.shut();
        if let Some(server) = server {
            server.stop().await;
        }
        let closing = matches!(*self.0.state.borrow(), State::Closing);
        if !closing {
            warn!(volume = %self.0.opened.name, "no longer served: {}", why.0);
            self.enter(State::Failed(why.0));
        }
    }

    fn is_wanted(&self) -> bool {
        self.0.gateway.stopped().is_none() && !matches!(*self.0.state.borrow(), State::Closing)
    }

    /// Opens the socket; whether that worked.
    async fn listen(&self) -> bool {
        let device = Rc::new(VolumeDevice {
            gateway: self.0.gateway.clone(),
            serial: format!("levee-{}", self.0.id),
            stats: self.0.stats.clone(),
        });
        let config = ServerConfig {
            queues: self.0.options.queues,
            poll: self.0.options.poll,
            ..ServerConfig::new(&self.0.options.socket)
        };
        match levee_vhost::serve(device, config).await {
            Ok(_) if !self.is_wanted() => true,
            Ok(server) => {
                info!(volume = %self.0.opened.name, epoch = %self.0.opened.epoch, "served at {}", self.0.options.socket.display());
                self.enter(State::Serving(Some(server)));
                true
            }
            Err(e) => {
                let why = format!("the socket cannot be opened: {e}");
                warn!(volume = %self.0.opened.name, "{why}");
                self.enter(State::Failed(why));
                false
            }
        }
    }

    fn enter(&self, state: State) {
        *self.0.state.borrow_mut() = state;
        let _ = self.0.news.try_send(());
    }

    fn shut(&self) -> Option<ServerHandle> {
        match &mut *self.0.state.borrow_mut() {
            State::Serving(server) => server.take(),
            _ => None,
        }
    }

    /// Answers what is in flight, closes the socket, and stops the gateway.
    pub async fn close(&self, why: &str) {
        let server = self.shut();
        self.enter(State::Closing);
        if let Some(server) = server {
            server.stop().await;
        }
        self.0.gateway.stop(why);
    }

    /// How it does.
    pub fn report(&self) -> VolumeReport {
        let health = self.0.gateway.health();
        let (state, mut detail) = match &*self.0.state.borrow() {
            State::Opening => (ServeState::Opening, Some("fencing and reconciling the replicas".to_string())),
            State::Serving(_) => (ServeState::Serving, None),
            State::Closing => (ServeState::Closing, None),
            State::Failed(why) => (ServeState::Failed, Some(why.clone())),
        };
        if health.waiting > 0 && state == ServeState::Serving {
            detail = Some(format!("{} chunks wait for copies that cannot be reached", health.waiting));
        }
        let socket = (state == ServeState::Serving).then(|| self.0.options.socket.display().to_string());
        VolumeReport {
            volume: self.0.id,
            epoch: self.0.opened.epoch,
            state,
            socket,
            detail,
            healthy_chunks: health.healthy,
            degraded_chunks: health.degraded + health.waiting,
            waiting_chunks: health.waiting,
            leaving_replicas: 0,
            full: false,
            copied_bytes: 0,
            degraded: vec![],
        }
    }

    pub fn name(&self) -> &str {
        &self.0.opened.name
    }

    pub fn stats(&self) -> &IoStats {
        &self.0.stats
    }

    /// Compares all copies; tells progress, and last what was found.
    pub async fn verify(&self, events: async_channel::Sender<VerifyEvent>) {
        let tell = |event| {
            // A reader that is slow misses progress, never the outcome.
            let _ = events.try_send(event);
        };
        let last = match self.0.gateway.verify(VERIFY_PATIENCE, tell).await {
            Ok(report) => VerifyEvent::Done(report),
            Err(stopped) => VerifyEvent::Failed { detail: stopped.0 },
        };
        let _ = events.send(last).await;
    }
}
