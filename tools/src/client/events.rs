//! What a storage daemon tells while it works: one JSON document a line.

use super::{AdminClient, ClientError, Result, reason_of, refusal};
use crate::limits::*;
use levee_proto::api::{DiffEvent, DiffVolume, UsageEvent, VerifyEvent};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

impl AdminClient {
    /// Starts the comparison of all copies of a volume.
    pub async fn verify(&self, volume: &str) -> Result<Events<VerifyEvent>> {
        let url = format!("{}/v1/volumes/{volume}/verify", self.url);
        self.begin(self.http.post(&url), url).await
    }

    /// Starts to look for what differs between snapshots of a volume.
    pub async fn diff(&self, volume: &str, what: &DiffVolume) -> Result<Events<DiffEvent>> {
        let url = format!("{}/v1/volumes/{volume}/diff", self.url);
        self.begin(self.http.post(&url).json(what), url).await
    }

    /// Starts to count what a volume takes up.
    pub async fn usage(&self, volume: &str) -> Result<Events<UsageEvent>> {
        let url = format!("{}/v1/volumes/{volume}/usage", self.url);
        self.begin(self.http.post(&url), url).await
    }

    async fn begin<E>(&self, request: RequestBuilder, url: String) -> Result<Events<E>> {
        let response = match tokio::time::timeout(EVENT_TIMEOUT, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(self.unreachable(reason_of(&e))),
            Err(_) => return Err(self.unreachable("timed out".into())),
        };
        if !response.status().is_success() {
            return Err(refusal(&url, response).await);
        }
        Ok(Events { url, response, buffer: Vec::new(), ended: false, kind: PhantomData })
    }
}

/// Events as they come.
pub struct Events<E> {
    url: String,
    response: Response,
    buffer: Vec<u8>,
    ended: bool,
    kind: PhantomData<E>,
}

impl<E: DeserializeOwned> Events<E> {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<E>> {
        loop {
            let line_end = self.buffer.iter().position(|&b| b == b'\n');
            let line: Vec<u8> = match line_end {
                Some(end) => self.buffer.drain(..=end).collect(),
                None if self.ended && self.buffer.is_empty() => return Ok(None),
                None if self.ended => std::mem::take(&mut self.buffer),
                None => {
                    self.fill().await?;
                    continue;
                }
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            return serde_json::from_slice(&line).map(Some).map_err(|e| self.unexpected(e.to_string()));
        }
    }

    async fn fill(&mut self) -> Result<()> {
        match tokio::time::timeout(EVENT_TIMEOUT, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
            Ok(Ok(None)) => self.ended = true,
            Ok(Err(e)) => return Err(self.unexpected(format!("the stream broke off: {}", reason_of(&e)))),
            Err(_) => return Err(self.unexpected(format!("nothing came for {} s", EVENT_TIMEOUT.as_secs()))),
        }
        if self.buffer.len() > MAX_EVENT {
            return Err(self.unexpected(format!("a line of more than {MAX_EVENT} bytes")));
        }
        Ok(())
    }

    fn unexpected(&self, detail: String) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), detail }
    }
}
