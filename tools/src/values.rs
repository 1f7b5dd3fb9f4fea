//! What may stand on the command line: sizes, names, durations, URLs. Each parser refuses what the
//! servers would refuse, so that a mistake costs no round trip.

use crate::local::Network;
use levee_proto::BLOCK_SIZE;
use levee_proto::api::{
    IMAGE_SNAPSHOT, Limit, MAX_NAME, MAX_OVER_PROVISION_PERCENT, NUMBER_MARK, SnapshotName, is_valid_name,
};
use levee_proto::units::{MAX_VOLUME_SIZE, parse_size, show_size};
use std::time::Duration;

/// Size of a volume, bytes: whole blocks, at least one.
pub fn volume_size(text: &str) -> Result<u64, String> {
    let size = whole_blocks(text)?;
    if size > MAX_VOLUME_SIZE {
        return Err(format!("a volume has at most {}", show_size(MAX_VOLUME_SIZE)));
    }
    Ok(size)
}

/// A size of whole blocks, at least one, bytes.
pub fn whole_blocks(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size == 0 || !size.is_multiple_of(BLOCK_SIZE as u64) {
        return Err(format!("the size must be a multiple of {BLOCK_SIZE} bytes, and not 0"));
    }
    Ok(size)
}

/// Name of a volume or a node.
pub fn name(text: &str) -> Result<String, String> {
    if is_valid_name(text) {
        return Ok(text.into());
    }
    if let Some(snapshot) = SnapshotName::parse(text) {
        return Err(format!(
            "this is not done to a snapshot; `levee volume create NAME --from {snapshot}` makes a volume of it"
        ));
    }
    Err(format!("a name consists of up to {MAX_NAME} letters, digits, '.', '_' and '-', the first a letter or digit"))
}

/// Name of a volume, or of a family of volumes: `{}` may stand in it for the number.
pub fn family_name(text: &str) -> Result<String, String> {
    name(&text.replacen(NUMBER_MARK, "1", 1)).map(|_| text.into())
}

/// `VOLUME@NAME`.
pub fn snapshot(text: &str) -> Result<SnapshotName, String> {
    SnapshotName::parse(text).ok_or_else(|| format!("'{text}' names no snapshot: use VOLUME@NAME, such as vm1@monday"))
}

/// What can be attached: a volume, or a snapshot as `VOLUME@NAME`.
pub fn attachable(text: &str) -> Result<String, String> {
    if SnapshotName::parse(text).is_some() { Ok(text.into()) } else { name(text) }
}

/// A snapshot of a volume, or the volume as it is.
#[derive(Clone, Debug)]
pub struct Moment {
    pub volume: String,
    pub snapshot: Option<String>,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.volume)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

/// `VOLUME@NAME` or `VOLUME`.
pub fn moment(text: &str) -> Result<Moment, String> {
    if is_valid_name(text) {
        return Ok(Moment { volume: text.into(), snapshot: None });
    }
    snapshot(text).map(|s| Moment { volume: s.volume, snapshot: Some(s.snapshot) })
}

/// What volumes continue from: a snapshot, or an image by its name alone.
pub fn origin(text: &str) -> Result<SnapshotName, String> {
    if is_valid_name(text) {
        return Ok(SnapshotName { volume: text.into(), snapshot: IMAGE_SNAPSHOT.into() });
    }
    snapshot(text)
}

/// Milliseconds since 1970 for a person: `2026-11-22 05:10:22 UTC`.
pub fn utc(ms: u64) -> String {
    let (days, second) = (ms / 1000 / 86_400, ms / 1000 % 86_400);
    // Years that begin in March: the leap day is their last. 719468 days from then in year 0 to 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

/// Network namespaces for daemons: `PREFIX=A.B.C`.
pub fn network(text: &str) -> Result<Network, String> {
    let complaint = || format!("'{text}' is no network of namespaces: use PREFIX=A.B.C, such as test=10.231.1");
    let (prefix, subnet) = text.split_once('=').ok_or_else(complaint)?;
    let bytes: Vec<u8> = subnet.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| complaint())?;
    let subnet: [u8; 3] = bytes.try_into().map_err(|_| complaint())?;
    Ok(Network { prefix: name(prefix)?, subnet })
}

/// A multiple with at most two decimals, such as `3` or `2.5`; `none`.
pub fn ratio(text: &str) -> Result<Limit, String> {
    let complaint = || format!("'{text}' is no ratio: use a number such as 3.0, up to two decimals, or none");
    if text == "none" {
        return Ok(Limit::None);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 2 {
        return Err(complaint());
    }
    let hundredths = format!("{part:0<2}").parse::<u32>().map_err(|_| complaint())?;
    let whole = whole.parse::<u32>().ok().and_then(|n| n.checked_mul(100)).ok_or_else(complaint)?;
    let percent = whole.checked_add(hundredths).ok_or_else(complaint)?;
    if !(1..=MAX_OVER_PROVISION_PERCENT).contains(&percent) {
        return Err(format!(
            "'{text}' is no ratio: it must be more than 0 and at most {}",
            MAX_OVER_PROVISION_PERCENT / 100
        ));
    }
    Ok(Limit::Percent(percent))
}

/// Whole percents, such as `80%` or `80`; `none`.
pub fn percent(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit::None);
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse::<u32>().ok().filter(|n| (1..=100).contains(n) && !number.starts_with('+'));
    percent.map(Limit::Percent).ok_or_else(|| format!("'{text}' is no share: use 1% to 100%, or none"))
}

/// A duration: `30s`, `500ms`, `2m`; a bare number means seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let t = text.trim();
    let split = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
    let (number, unit) = t.split_at(split);
    let complaint = || format!("'{text}' is not a duration: use a number with ms, s, m or h, such as 30s");
    let number: u64 = number.parse().map_err(|_| complaint())?;
    let ms = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(complaint()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(complaint)
}

/// The root URL of a server, without a slash at the end; `host:port` is taken as `http://host:port`.
pub fn url(text: &str) -> Result<String, String> {
    let t = text.trim();
    let full = if t.contains("://") { t.to_string() } else { format!("http://{t}") };
    let complaint = || format!("'{text}' is not the URL of a server: use http://HOST:PORT");
    let parsed = reqwest::Url::parse(&full).map_err(|_| complaint())?;
    let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
    if parsed.scheme() != "http" || parsed.host_str().is_none() || !plain {
        return Err(complaint());
    }
    Ok(full.trim_end_matches('/').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!(volume_size("10G"), Ok(10 << 30));
        for bad in ["0", "1", "4097", "x", "", "2P", "-4096"] {
            assert!(volume_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn snapshots_belong_to_volumes() {
        assert_eq!(snapshot("vm1@a.b").map(|s| s.to_string()), Ok("vm1@a.b".into()));
        for bad in ["vm1", "vm1@", "@a", "vm1@a@b", "a b@c", ""] {
            assert!(snapshot(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_and_snapshots_are_attached() {
        for good in ["vm1", "vm1@a.b"] {
            assert_eq!(attachable(good), Ok(good.into()));
        }
        for bad in ["", "vm1@", "vm1@a@b", "a/b"] {
            assert!(attachable(bad).is_err(), "{bad}");
        }
        assert!(name("vm1@a").unwrap_err().contains("--from vm1@a"));
    }

    #[test]
    fn families_have_one_place_for_a_number() {
        for good in ["vm", "vm-{}", "{}", "vm{}-disk"] {
            assert_eq!(family_name(good), Ok(good.into()));
        }
        for bad in ["", "{", "vm-{}-{}", "-{}", "a/{}"] {
            assert!(family_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
    }

    #[test]
    fn networks_have_a_prefix_and_a_subnet() {
        assert_eq!(network("t-1=10.2.3"), Ok(Network { prefix: "t-1".into(), subnet: [10, 2, 3] }));
        for bad in ["", "t", "t=10.2", "t=10.2.3.4", "t=10.2.256", "../t=10.2.3", "=10.2.3"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ratios_and_shares_are_positive_numbers_or_none() {
        let ratios = ["3", "3.0", "0.01", "2.5", "1000", "none"].map(ratio);
        let percents = [300, 300, 1, 250, 100_000].map(|n| Ok(Limit::Percent(n)));
        assert_eq!(ratios[..5], percents);
        assert_eq!(ratios[5], Ok(Limit::None));
        for bad in ["", "0", "0.00", "1.234", "-1", "+1", "1000.01", "1,5", "3x", ".5", "5.", "99999999999", "None"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
        assert_eq!(["80%", "1", "100%"].map(percent), [80, 1, 100].map(|n| Ok(Limit::Percent(n))));
        assert_eq!(percent("none"), Ok(Limit::None));
        for bad in ["", "%", "0", "101%", "80.5%", "-1", "+5", "80%%"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "1d", "1.5s", "-1s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_roots() {
        assert_eq!(url("http://a:1/"), Ok("http://a:1".into()));
        assert_eq!(url("10.0.0.1:7400"), Ok("http://10.0.0.1:7400".into()));
        for bad in ["", "https://a", "http://a/v1", "http://", "ftp://a", "http://a?x=1"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
