//! The request that a task works on, for what is deep below its handler: the proposer, and checks that come before a proposal.
//!
//! Only requests that were given an idempotency key have one. A task that works for nobody, such as the repair's, has none.

use levee_meta_state::{Command, Key};
use std::sync::atomic::{AtomicU32, Ordering};

tokio::task_local! {
    static CURRENT: Keyed;
}

/// A request with an idempotency key.
pub struct Keyed {
    key: String,
    fingerprint: String,
    /// Whether it was answered before: what it is answered now is what it was then, so nothing is to be refused.
    repeated: bool,
    /// Commands that it has proposed.
    parts: AtomicU32,
}

impl Keyed {
    pub fn new(key: String, fingerprint: String, repeated: bool) -> Keyed {
        Keyed { key, fingerprint, repeated, parts: AtomicU32::new(0) }
    }

    /// Does the request's work.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

/// Whether this request was answered before.
pub fn is_repeated() -> bool {
    CURRENT.try_with(|request| request.repeated).unwrap_or(false)
}

/// The command as it is to be proposed: with the request's key, if it has one.
pub fn keyed(command: Command) -> Command {
    if !command.takes_key() {
        return command;
    }
    let key = CURRENT.try_with(|request| Key {
        key: request.key.clone(),
        part: request.parts.fetch_add(1, Ordering::Relaxed),
        fingerprint: request.fingerprint.clone(),
    });
    match key {
        Ok(key) => Command::Keyed { key, command: Box::new(command) },
        Err(_) => command,
    }
}

/// Tells requests apart: FNV-1a, 128 bits. The same on all members and in all versions, for it is compared with what is in the
/// replicated state; no defence against somebody who wants two of his own requests to look alike.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    let hash = parts.iter().fold(OFFSET, |hash, part| {
        let length = (part.len() as u64).to_le_bytes();
        part.iter().fold(length.iter().fold(hash, |h, b| step(h, *b)), |h, b| step(h, *b))
    });
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_requests_apart_and_stay_as_they_are() {
        let one = fingerprint(&[b"POST", b"/v1/volumes", b"{}"]);
        assert_eq!(one, fingerprint(&[b"POST", b"/v1/volumes", b"{}"]));
        assert_ne!(one, fingerprint(&[b"POST", b"/v1/volume", b"s{}"]));
        assert_ne!(one, fingerprint(&[b"POST", b"/v1/volumes", b"{ }"]));
        assert_eq!(one.len(), 32);
    }

    #[tokio::test]
    async fn each_command_of_a_request_is_a_part_of_its_own() {
        let delete = || Command::DeleteVolume { name: "v".into() };
        assert_eq!(keyed(delete()), delete(), "outside of a request");
        let request = Keyed::new("k".into(), "f".into(), true);
        request
            .scope(async {
                assert!(is_repeated());
                for expected in 0..2 {
                    let Command::Keyed { key, .. } = keyed(delete()) else { panic!("no key") };
                    assert_eq!((key.key.as_str(), key.part), ("k", expected));
                }
                let rate = Command::SetBackgroundRate { rate: None };
                assert_eq!(keyed(rate.clone()), rate);
            })
            .await;
        assert!(!is_repeated());
    }
}
