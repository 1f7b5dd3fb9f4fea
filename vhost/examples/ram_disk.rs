//! Serves a disk in memory, to profile the device without a disk behind it.
//!
//! `ram_disk SOCKET [SIZE_MIB [POLL_US [QUEUES]]]`, until it is killed.

// Tests use more of it.
#[allow(dead_code)]
#[path = "../tests/device/common/ram.rs"]
mod ram;

use std::rc::Rc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use levee_vhost::{ServerConfig, serve};

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let mut arguments = std::env::args().skip(1);
    let Some(socket) = arguments.next() else {
        eprintln!("usage: ram_disk SOCKET [SIZE_MIB [POLL_US [QUEUES]]]");
        std::process::exit(2);
    };
    let mut number = |default: u64| match arguments.next().map(|text| text.parse()) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(e)) => {
            eprintln!("not a number: {e}");
            std::process::exit(2);
        }
    };
    let size = number(64) << 20;
    let mut config = ServerConfig::new(socket);
    config.poll = Duration::from_micros(number(40));
    config.queues = number(4).try_into().unwrap_or(u16::MAX);
    let executor =
        LocalExecutorBuilder::new(Placement::Unbound).spin_before_park(config.poll).spawn(move || async move {
            let served = serve(Rc::new(ram::RamDisk::new(size as usize)), config).await;
            if let Err(e) = served {
                eprintln!("{e}");
                std::process::exit(1);
            }
            loop {
                glommio::timer::sleep(Duration::from_millis(5)).await;
            }
        });
    let Err(e) = executor.and_then(|executor| executor.join());
    eprintln!("the executor failed: {e}");
    std::process::exit(1);
}
