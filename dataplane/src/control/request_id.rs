//! Ids of requests: whoever touches a request logs its id, so that it can be followed through every process.

use uuid::Uuid;

/// The header that carries it.
pub const HEADER: &str = "x-request-id";
/// Longest id that is taken over from a client.
const MAX_LEN: usize = 64;

/// A random one: 16 hex digits.
pub fn fresh() -> String {
    format!("{:016x}", Uuid::new_v4().as_u64_pair().1)
}

/// What a client calls its request, if that can be logged as it is; else a fresh one.
pub fn taken_over(given: Option<&str>) -> String {
    let is_plain = |id: &&str| {
        (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    given.filter(is_plain).map_or_else(fresh, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert_eq!(taken_over(Some("vm-7.create_3")), "vm-7.create_3");
        for bad in [None, Some(""), Some("a b"), Some("a\n"), Some("\u{e4}"), Some(&"x".repeat(MAX_LEN + 1))] {
            let made = taken_over(bad);
            assert!(made.len() == 16 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(fresh(), fresh());
    }
}
