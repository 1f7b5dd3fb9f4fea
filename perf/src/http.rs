//! One small question to a server of this machine, which may be dead, stopped or cut off: cheap enough to be asked many times a
//! second beside a measurement.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long [`get`] waits. Whoever must not wait for a server that does not answer says so.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 16 << 20;

pub struct Answer {
    pub status: u16,
    body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("the answer is no JSON document")
    }
}

/// The JSON document at a path of the server on a local port.
pub fn get(port: u16, path: &str) -> Result<Value> {
    let asked = || {
        let answer = ask(&format!("127.0.0.1:{port}"), "GET", path, "", TIMEOUT)?;
        ensure!(answer.status == 200, "it answered {}", answer.status);
        answer.json()
    };
    asked().with_context(|| format!("cannot get http://127.0.0.1:{port}{path}"))
}

/// Any request, to `host:port`; each step takes at most `timeout`.
pub fn ask(address: &str, method: &str, path: &str, body: &str, timeout: Duration) -> Result<Answer> {
    ask_with(address, &format!("{method} {path}"), &[], body.as_bytes(), timeout)
}

/// The same with headers. `what`: method and path.
pub fn ask_with(address: &str, what: &str, headers: &[(&str, &str)], body: &[u8], timeout: Duration) -> Result<Answer> {
    let address = address.to_socket_addrs()?.next().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    // Of HTTP 1.0 an answer is in one piece and ends with the connection.
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("{what} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer is cut off")?;
    let head = String::from_utf8_lossy(&answer[..at]);
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    Ok(Answer { status: status.context("the answer has no status")?, body: answer[at + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = parse(b"HTTP/1.0 503 Busy\r\na: b\r\n\r\n{\"x\":1}").unwrap();
        assert_eq!((answer.status, answer.json().unwrap()["x"].as_u64()), (503, Some(1)));
        assert!(parse(b"HTTP/1.0 200 OK\r\n").is_err() && parse(b"\r\n\r\n").is_err());
        let cut = parse(b"HTTP/1.0 200 OK\r\n\r\n[7").unwrap();
        assert!(cut.json().unwrap_err().to_string().contains("no JSON"));
    }
}
