//! Speed of a TCP link between two executors: 4 KiB out, a small acknowledgement back.
//!
//! `cargo run --release -p levee-rdma --example link_bench -- [SECONDS [DEPTH...]]`

use bytes::Bytes;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use levee_proto::wire::{BlockKind, Crcs, Reply, Request, Target};
use levee_proto::{BLOCK_SIZE, Caller, ChunkId, ConfigNo, DiskId, Epoch, NodeId, ReplicaId, Seq, Version, VolumeId};
use levee_rdma::{Callers, Client, ClientConfig, ClientLimits, Identity, Responder, Server, ServerLimits, Service};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Answers everything at once.
struct Acknowledge;

impl Service for Acknowledge {
    fn handle(&self, _from: NodeId, _request: Request, _data: Bytes, reply: Responder) {
        reply.send(Reply::Done, Bytes::new());
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let seconds = args.next().unwrap_or(3);
    let mut depths: Vec<u64> = args.collect();
    if depths.is_empty() {
        depths = vec![1, 32];
    }
    let address = start_server();
    for depth in depths {
        let address = address.clone();
        executor(0, move || async move { measure(address, depth, Duration::from_secs(seconds)).await });
    }
}

fn executor<F: Future<Output = ()> + 'static>(cpu: usize, main: impl FnOnce() -> F + Send + 'static) {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .preempt_timer(Duration::from_millis(2))
        .spawn(move || async move {
            glommio::spawn_local(async {
                loop {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .detach();
            main().await;
        })
        .expect("an executor")
        .join()
        .expect("the executor's work");
}

fn start_server() -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        executor(1, move || async move {
            let identity = Identity { cluster: [0; 16], node: NodeId(2), core: 0 };
            let server = Server::listen(
                "127.0.0.1:0",
                identity,
                Callers::default(),
                Rc::new(Acknowledge),
                ServerLimits::default(),
            )
            .await
            .expect("a port");
            sender.send(server.local_addr().to_string()).expect("the main thread waits");
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("the server starts")
}

/// One request after the other in each of `depth` slots.
struct Load {
    client: Client,
    request: Request,
    data: Bytes,
    end: Instant,
    running: Cell<u64>,
    latencies: RefCell<Vec<u32>>,
}

impl Load {
    fn next(self: Rc<Self>) {
        let start = Instant::now();
        if start >= self.end {
            return self.running.set(self.running.get() - 1);
        }
        let load = self.clone();
        self.client.call(self.request.clone(), self.data.clone(), move |answer| {
            answer.expect("an answer");
            load.latencies.borrow_mut().push(start.elapsed().as_nanos() as u32);
            load.next();
        });
    }
}

async fn measure(address: String, depth: u64, time: Duration) {
    let config = ClientConfig {
        cluster: [0; 16],
        caller: Caller { node: NodeId(1), core: 0, incarnation: [0; 16] },
        to: NodeId(2),
        core: 0,
        address,
        limits: ClientLimits::default(),
    };
    let client = Client::tcp(config);
    client.request(Request::Ping, Bytes::new()).await.expect("the link");
    let data = Bytes::from(vec![7; BLOCK_SIZE]);
    let before = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let start = Instant::now();
    let load = Rc::new(Load {
        client,
        request: write(&data),
        data,
        end: start + time,
        running: Cell::new(depth),
        latencies: RefCell::default(),
    });
    for _ in 0..depth {
        load.clone().next();
    }
    while load.running.get() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    report(depth, start.elapsed(), &mut load.latencies.borrow_mut(), cpu_since(&before));
}

fn write(data: &[u8]) -> Request {
    Request::Write {
        target: Target {
            volume: VolumeId(1),
            chunk: ChunkId(1),
            replica: ReplicaId(1),
            disk: DiskId(1),
            epoch: Epoch(1),
            config: ConfigNo(1),
        },
        kind: BlockKind::Data,
        version: Version::FIRST,
        seq: Seq::new(Epoch(1), 1),
        block: 0,
        count: 1,
        crcs: Crcs::of(data),
    }
}

fn cpu_since(before: &Usage) -> Duration {
    let now = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let micros = |u: &Usage| {
        let (user, system) = (u.user_time(), u.system_time());
        (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
    };
    Duration::from_micros((micros(&now) - micros(before)) as u64)
}

fn report(depth: u64, elapsed: Duration, latencies: &mut [u32], cpu: Duration) {
    latencies.sort_unstable();
    let n = latencies.len();
    let at = |quantile: f64| f64::from(latencies[((n - 1) as f64 * quantile) as usize]) / 1e3;
    println!(
        "depth {depth:3}: {:8.0}/s  p50 {:7.1} us  p99 {:7.1} us  cpu {:5.2} us per request",
        n as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        cpu.as_secs_f64() * 1e6 / n as f64,
    );
}
