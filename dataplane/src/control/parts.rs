//! What a daemon says of its volumes in several heartbeats: thousands of volumes are more than one may carry.

use levee_proto::VolumeId;
use levee_proto::api::{VolumeReport, VolumeSpan};

/// Bytes of reports in one heartbeat: half of what a request may have; the rest is for what else it says.
const MAX_PART: usize = 1 << 20;

/// Reports, and of which volumes they are all that there is to say; none: of all.
pub type Part = (Option<VolumeSpan>, Vec<VolumeReport>);

/// Divides reports so that each part fits a heartbeat.
pub fn parts(volumes: Vec<VolumeReport>) -> Vec<Part> {
    divide(volumes, MAX_PART)
}

fn divide(mut volumes: Vec<VolumeReport>, most: usize) -> Vec<Part> {
    volumes.sort_by_key(|report| report.volume);
    let mut parts: Vec<Vec<VolumeReport>> = vec![vec![]];
    let mut size = 0;
    for report in volumes {
        let one = serde_json::to_vec(&report).map_or(0, |json| json.len() + 1);
        if size + one > most && size > 0 {
            parts.push(vec![]);
            size = 0;
        }
        size += one;
        parts.last_mut().into_iter().for_each(|part| part.push(report.clone()));
    }
    if parts.len() == 1 {
        return parts.into_iter().map(|part| (None, part)).collect();
    }
    let begins: Vec<VolumeId> = parts.iter().skip(1).map(|part| part[0].volume).collect();
    let firsts = std::iter::once(VolumeId(0)).chain(begins.iter().copied());
    let lasts = begins.iter().map(|next| VolumeId(next.0 - 1)).chain([VolumeId(u64::MAX)]);
    let spans: Vec<_> = firsts.zip(lasts).map(|(first, last)| Some(VolumeSpan { first, last })).collect();
    spans.into_iter().zip(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(volume: u64) -> VolumeReport {
        let report = serde_json::json!({
            "volume": volume, "epoch": 1, "state": "serving", "healthy_chunks": 1, "degraded_chunks": 0,
        });
        serde_json::from_value(report).unwrap()
    }

    /// The first and the last id that a part speaks of, and those that it names.
    type Ids = (Option<(u64, u64)>, Vec<u64>);

    fn divided(ids: &[u64], reports: usize) -> Vec<Ids> {
        let one = serde_json::to_vec(&report(1)).unwrap().len() + 1;
        let parts = divide(ids.iter().copied().map(report).collect(), one * reports);
        let span = |span: VolumeSpan| (span.first.0, span.last.0);
        parts.into_iter().map(|(of, part)| (of.map(span), part.iter().map(|v| v.volume.0).collect())).collect()
    }

    #[test]
    fn parts_say_everything_once_and_of_every_volume() {
        assert_eq!(divided(&[], 2), [(None, vec![])]);
        assert_eq!(divided(&[7, 3], 2), [(None, vec![3, 7])]);
        let expected = [(Some((0, 5)), vec![2, 4]), (Some((6, 8)), vec![6, 7]), (Some((9, u64::MAX)), vec![9])];
        assert_eq!(divided(&[9, 2, 7, 6, 4], 2), expected);
        assert_eq!(divided(&[1, 2], 0).len(), 2, "one that is too large is said all the same");
    }
}
