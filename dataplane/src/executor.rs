//! Starting glommio executors so that they do what they should.

use crate::watchdog::{self, Pulse};
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};
use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a runnable task may keep others from running. glommio's default of 100 ms would let one
/// busy task hold up disk I/O for as long.
const LATENCY: Duration = Duration::from_millis(1);
/// Between two turns of the task that keeps an executor awake; see [`crate::watchdog`]. Until it runs, the
/// preemption timer stays long: the latency belongs to a queue made after it.
const HEARTBEAT: Duration = Duration::from_millis(5);
/// How long an executor without work looks for some before it sleeps. A sleep and a wake-up cost about as much;
/// measured best between 20 and 60 µs, with three daemons on two cores.
const SPIN: Duration = Duration::from_micros(50);
/// Memory for direct I/O buffers, bytes.
const IO_MEMORY: usize = 32 << 20;
/// Entries of the executor's rings: more I/O than this in flight costs extra system calls.
const RING_DEPTH: usize = 512;

/// Runs `main` on an executor with a thread of its own. A panic there aborts the process: half a
/// daemon must not go on.
pub fn spawn<F, G>(name: &str, main: G) -> io::Result<JoinHandle<()>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .spin_before_park(SPIN)
        .name(name)
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH);
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let executor = match builder.make() {
            Ok(executor) => executor,
            Err(e) => {
                tracing::error!(
                    "cannot start an executor: {e}; is io_uring allowed, and the locked-memory limit large enough?"
                );
                std::process::exit(1);
            }
        };
        let pulse = Pulse::default();
        if let Err(e) = watchdog::watch(&pulse) {
            tracing::error!("cannot watch over an executor: {e}");
            std::process::exit(1);
        }
        executor.run(async move {
            glommio::spawn_local(async move {
                loop {
                    pulse.beat();
                    glommio::timer::sleep(HEARTBEAT).await;
                }
            })
            .detach();
            let queue = glommio::executor().create_task_queue(Shares::default(), Latency::Matters(LATENCY), "io");
            match glommio::spawn_local_into(main(), queue) {
                Ok(main) => main.await,
                Err(e) => unreachable!("the queue was made just now: {e}"),
            }
        });
    })
}
