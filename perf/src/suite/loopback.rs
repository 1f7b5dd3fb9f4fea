//! Round trips of a bare TCP connection on the loopback: what replication cannot be faster than.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::latency::{Latencies, Percentiles};

/// As a replicated write: a block goes out, a small answer comes back.
const REQUEST: usize = 4096;
const ANSWER: usize = 16;
const STALL: Duration = Duration::from_secs(10);

pub fn round_trip(time: Duration) -> Result<Percentiles> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on the loopback")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || answer(&listener));
    let mut stream = TcpStream::connect(address).context("cannot connect over the loopback")?;
    prepare(&stream)?;
    let (request, mut reply) = ([0x5a; REQUEST], [0; ANSWER]);
    let mut latencies = Latencies::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut reply)?;
        latencies.record(sent.elapsed());
    }
    drop(stream);
    match echo.join() {
        Ok(result) => result?,
        Err(_) => bail!("the echo thread panicked"),
    }
    Ok(latencies.percentiles())
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    Ok(stream.set_write_timeout(Some(STALL))?)
}

/// Answers requests until the other side closes.
fn answer(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    prepare(&stream)?;
    let mut request = [0; REQUEST];
    loop {
        match stream.read_exact(&mut request) {
            Ok(()) => stream.write_all(&[0; ANSWER])?,
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_measured() {
        let p = round_trip(Duration::from_millis(20)).unwrap();
        assert!(p.p50 > 0.0 && p.max >= p.p50);
    }
}
