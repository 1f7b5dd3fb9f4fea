//! One small question to a daemon on this machine: cheap enough to be asked many times a second beside a measurement.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long a daemon may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 4 << 20;

/// The JSON document at a path of the server on a local port.
pub fn get(port: u16, path: &str) -> Result<Value> {
    ask(port, path).with_context(|| format!("cannot get http://127.0.0.1:{port}{path}"))
}

fn ask(port: u16, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // Of HTTP 1.0 an answer is in one piece and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Value> {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer is cut off")?;
    let head = String::from_utf8_lossy(&answer[..at]);
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "it answered {status}");
    serde_json::from_slice(&answer[at + 4..]).context("the answer is no JSON document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_of_success_are_taken() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n[7]").unwrap(), serde_json::json!([7]));
        for (bad, words) in [
            (&b"HTTP/1.0 200 OK\r\n"[..], "cut off"),
            (b"HTTP/1.0 404 Not Found\r\n\r\n{}", "404"),
            (b"HTTP/1.0 200 OK\r\n\r\n[7", "no JSON"),
        ] {
            let e = parse(bad).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        }
    }
}
