//! Ids of requests: whoever touches a request logs its id, so that it can be followed through every process.

use levee_proto::api::is_valid_request_id;
use uuid::Uuid;

/// A random one: 16 hex digits.
pub fn fresh() -> String {
    format!("{:016x}", Uuid::new_v4().as_u64_pair().1)
}

/// What a client calls its request, if that can be logged as it is; else a fresh one.
pub fn taken_over(given: Option<&str>) -> String {
    given.filter(|id| is_valid_request_id(id)).map_or_else(fresh, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::api::MAX_REQUEST_ID;

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert_eq!(taken_over(Some("vm-7_create_3")), "vm-7_create_3");
        for bad in [None, Some(""), Some("a b"), Some("a\n"), Some("\u{e4}"), Some(&"x".repeat(MAX_REQUEST_ID + 1))] {
            let made = taken_over(bad);
            assert!(is_valid_request_id(&made) && made.len() == 16, "{made}");
        }
        assert_ne!(fresh(), fresh());
    }
}
