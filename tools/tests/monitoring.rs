//! The dashboard and the alert rules name metrics that exist, jobs that are scraped, and pages that are there.
//!
//! The page of metrics says what exists; tests of the daemons compare it with what they export.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn guide(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(guide(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("levee_")).map(str::to_string).collect()
}

#[track_caller]
fn assert_exist(named: &BTreeSet<String>, place: &str) {
    let known = metrics(&read("metrics.md"));
    let parts = ["_bucket", "_sum", "_count"];
    let base =
        |name: &str| parts.iter().find_map(|part| name.strip_suffix(part)).is_some_and(|name| known.contains(name));
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(*name) && !base(name)).collect();
    assert!(unknown.is_empty(), "{place} names metrics that docs/operations/metrics.md does not: {unknown:?}");
}

/// Every expression of the dashboard, wherever it is.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        found.push(text.clone());
                    }
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let named = metrics(&found.join("\n"));
    assert!(named.len() > 20, "{named:?}");
    assert_exist(&named, "grafana-dashboard.json");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}

#[test]
fn alerts_watch_metrics_that_exist_and_lead_to_pages() {
    let rules = read("alerts.yml");
    let of = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(|rest| rest.trim().to_string()).collect()
    };
    assert_exist(&metrics(&of("expr:").join("\n")), "alerts.yml");
    let (alerts, pages) = (of("- alert:"), of("page:"));
    assert!(alerts.len() == pages.len() && alerts.len() == of("summary:").len(), "each alert has a summary and a page");
    for page in pages {
        assert!(guide(&page).exists(), "alerts.yml names {page}, which is not in docs/operations");
    }
    let scraped = read("prometheus.yml");
    for job in rules.split("job=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(scraped.contains(&format!("job_name: {job}")), "prometheus.yml has no job {job}");
    }
}

/// Links between the pages, and to those beside them.
#[test]
fn links_of_the_guide_lead_somewhere() {
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(guide("")).expect("docs/operations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let there = target.is_empty() || target.contains("://") || guide(target).exists();
            if !there {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
