//! How often the API may be asked: a token bucket for each client's address, and one for all changes together.
//!
//! A member counts what it is asked itself, and what others pass on to it, for the address of the client. Buckets that are full
//! again are forgotten, and at most [`MAX_CLIENTS`] are kept: a client beyond that is not limited rather than refused.

use crate::limits::{BURST_SECONDS, MAX_CLIENTS};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests a second; none: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub client: Option<u32>,
    pub changes: Option<u32>,
}

/// Tokens come in steadily, up to [`BURST_SECONDS`] worth of them, and every request takes one.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Bucket {
        Bucket { tokens: f64::from(rate) * BURST_SECONDS, at: now }
    }

    fn fill(&mut self, rate: u32, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate);
        self.tokens = (self.tokens + gained).min(f64::from(rate) * BURST_SECONDS);
        self.at = now;
    }

    fn is_full(&self, rate: u32, now: Instant) -> bool {
        let mut later = *self;
        later.fill(rate, now);
        later.tokens >= f64::from(rate) * BURST_SECONDS
    }

    /// Takes a token, or says how long to wait for one.
    fn take(&mut self, rate: u32, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / f64::from(rate.max(1))))
    }
}

/// Why a request is not taken now, and when it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    Client(Duration),
    Changes(Duration),
}

/// The buckets of one member.
pub struct Limiter {
    rates: Rates,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    clients: HashMap<IpAddr, Bucket>,
    changes: Option<Bucket>,
}

impl Limiter {
    pub fn new(rates: Rates) -> Limiter {
        Limiter { rates, buckets: Mutex::default() }
    }

    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// Counts a request.
    pub fn client(&self, address: IpAddr, now: Instant) -> Result<(), Busy> {
        let Some(rate) = self.rates.client else { return Ok(()) };
        // What a bucket holds is always usable.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = &mut buckets.clients;
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&address) {
            clients.retain(|_, bucket| !bucket.is_full(rate, now));
            if clients.len() >= MAX_CLIENTS {
                return Ok(());
            }
        }
        clients.entry(address).or_insert_with(|| Bucket::full(rate, now)).take(rate, now).map_err(Busy::Client)
    }

    /// Counts a change, whoever asks for it.
    pub fn change(&self, now: Instant) -> Result<(), Busy> {
        let Some(rate) = self.rates.changes else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.changes.get_or_insert_with(|| Bucket::full(rate, now)).take(rate, now).map_err(Busy::Changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn a_client_has_a_burst_and_then_its_rate() {
        let limiter = Limiter::new(Rates { client: Some(10), changes: None });
        let start = Instant::now();
        let burst = (0..1000).take_while(|_| limiter.client(address(1), start).is_ok()).count();
        assert_eq!(burst, 10 * BURST_SECONDS as usize);
        assert_eq!(limiter.client(address(1), start), Err(Busy::Client(Duration::from_millis(100))));
        assert_eq!(limiter.client(address(2), start), Ok(()), "another client");
        let later = start + Duration::from_millis(500);
        assert_eq!((0..1000).take_while(|_| limiter.client(address(1), later).is_ok()).count(), 5);
        assert_eq!(limiter.change(start), Ok(()), "no limit");
    }

    #[test]
    fn the_memory_is_bounded() {
        let limiter = Limiter::new(Rates { client: Some(1), changes: Some(1) });
        let now = Instant::now();
        for n in 0..MAX_CLIENTS as u32 + 100 {
            assert_eq!(limiter.client(address(n), now), Ok(()));
        }
        assert_eq!(limiter.buckets.lock().unwrap().clients.len(), MAX_CLIENTS);
        let later = now + Duration::from_secs(60);
        assert_eq!(limiter.client(address(u32::MAX), later), Ok(()));
        assert_eq!(limiter.buckets.lock().unwrap().clients.len(), 1, "full buckets are forgotten");
        assert_eq!((limiter.change(now), limiter.change(now)), (Ok(()), Ok(())), "a burst of two");
        assert_eq!(limiter.change(now), Err(Busy::Changes(Duration::from_secs(1))));
    }
}
