//! The daemons' configuration of one host: the samples, with this host's values in them.

use super::plan::{DiskSpec, Host, Plan};
use std::path::PathBuf;

const META_SAMPLE: &str = include_str!("../../../packaging/levee-metad.toml");
const NODE_SAMPLE: &str = include_str!("../../../packaging/levee-stored.toml");
pub const META_FILE: &str = "levee-metad.toml";
pub const NODE_FILE: &str = "levee-stored.toml";

pub fn of(plan: &Plan<'_>, host: &Host<'_>) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let folder = PathBuf::from(&host.name);
    if let Some(id) = host.member {
        files.push((folder.join(META_FILE), meta(plan, host, id)));
    }
    if let Some(node) = host.node {
        let disks: Vec<_> = node.disks.iter().map(DiskSpec::option).collect();
        let data: Vec<_> = plan.data(node).iter().map(ToString::to_string).collect();
        let mut set = vec![
            ("name", text(&node.name)),
            ("meta", list(&plan.meta_urls())),
            ("admin", text(&plan.admin(node).to_string())),
            ("data", list(&data)),
        ];
        if !disks.is_empty() {
            set.push(("disk", list(&disks)));
        }
        set.extend(plan.zone(node).map(|zone| ("zone", text(zone))));
        set.extend(plan.rack(node).map(|rack| ("rack", text(rack))));
        files.push((folder.join(NODE_FILE), fill(NODE_SAMPLE, &set)));
    }
    files
}

fn meta(plan: &Plan<'_>, host: &Host<'_>, id: usize) -> String {
    let peers: Vec<_> = plan.meta_urls().iter().enumerate().map(|(i, url)| format!("{}={url}", i + 1)).collect();
    let listen = text(&plan.member(host.address).to_string());
    fill(META_SAMPLE, &[("id", id.to_string()), ("listen", listen), ("peers", list(&peers))])
}

/// Puts values in the places that a sample has for them.
fn fill(sample: &str, set: &[(&str, String)]) -> String {
    let value = |line: &str| {
        let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
        set.iter().find(|(name, _)| *name == key)
    };
    sample
        .lines()
        .map(|line| value(line).map_or(line.into(), |(key, value)| format!("{key} = {value}")) + "\n")
        .collect()
}

/// A string as TOML has it; its escapes are those of JSON.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| text(value)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_in_the_samples() {
        for (sample, keys) in [
            (META_SAMPLE, &["id", "listen", "peers"][..]),
            (NODE_SAMPLE, &["name", "meta", "admin", "data", "disk", "zone", "rack"]),
        ] {
            for key in keys {
                let filled = fill(sample, &[(key, "\"set here\"".into())]);
                assert_eq!(filled.matches(&format!("\n{key} = \"set here\"\n")).count(), 1, "{key}");
            }
        }
    }

    #[test]
    fn quotes_are_escaped() {
        assert_eq!(text("a\"b\\"), r#""a\"b\\""#);
        assert_eq!(list(&["a".into(), "b".into()]), r#"["a", "b"]"#);
    }
}
