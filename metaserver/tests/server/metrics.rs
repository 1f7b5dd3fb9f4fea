//! What the meta server exports is what the operators' guide says.

use crate::common::Group;
use std::collections::BTreeSet;
use std::path::Path;

/// Metrics named in the first column of the guide's tables between a heading and the next of its rank.
fn documented(heading: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/metrics.md");
    let page = std::fs::read_to_string(path).expect("docs/operations/metrics.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_string());
    section.lines().filter_map(name).collect()
}

fn exported(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_in_the_guide() {
    let group = Group::start(1, &[]).await;
    group.client(0).register(1, 11).await;
    let text = group.http.get(format!("{}/metrics", group.members[0].url)).send().await.unwrap().text().await.unwrap();
    let (exported, documented) = (exported(&text), documented("Meta server"));
    let missing: Vec<_> = exported.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&exported).collect();
    assert!(missing.is_empty(), "add to \"Meta server\" in docs/operations/metrics.md: {missing:?}");
    assert!(gone.is_empty(), "docs/operations/metrics.md names what the meta server does not export: {gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_commits_are_counted() {
    let group = Group::start(1, &[]).await;
    group.client(0).register(1, 11).await;
    let url = &group.members[0].url;
    let get = async |path: &str| group.http.get(format!("{url}{path}")).send().await.unwrap().text().await.unwrap();
    for path in ["/v1/volumes", "/v1/volumes/none", "/nonsense"] {
        get(path).await;
    }
    let text = get("/metrics").await;
    for line in [
        "levee_meta_requests_total{method=\"GET\",route=\"/v1/volumes/{name}\",status=\"404\"} 1",
        "levee_meta_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "levee_meta_leader_known 1",
        "levee_meta_members 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let count = text.lines().find_map(|line| line.strip_prefix("levee_meta_commit_seconds_count "));
    assert!(count.is_some_and(|count| count.parse::<f64>().unwrap() >= 1.0), "the cluster was founded by a commit");
}
