//! One connection that is kept: HTTP/1.1, one request at a time.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest body that is read, bytes.
const MAX_BODY: usize = 64 << 20;

pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a document and takes one, with the status that is expected.
    pub fn post(&mut self, path: &str, body: &Value, expected: u16) -> Result<Value> {
        let body = serde_json::to_vec(body)?;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), &body].concat())?;
        let (status, answer) = self.answer().with_context(|| format!("no answer to POST {path}"))?;
        ensure!(status == expected, "POST {path} is answered {status}: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).context("the answer is no JSON document")
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let status = self.line()?.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
        let mut length = None;
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok()
                }
                Some(_) => {}
            }
        }
        let length: usize = length.context("no length")?;
        ensure!(length <= MAX_BODY, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the server has closed the connection");
        }
        Ok(line.trim_end().to_string())
    }
}
