//! As much of `Cargo.toml` as the rules need, read line by line: the workspace's manifests keep to
//! one entry per line.

use std::path::Path;

const DEV: &str = "dev-";

#[derive(Default)]
pub struct Manifest {
    pub name: String,
    /// Folders of the workspace's crates.
    pub members: Vec<String>,
    /// Of all kinds: normal, development and build.
    pub dependencies: Vec<Dependency>,
    pub workspace_lints: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    /// Whether its version is the workspace's.
    pub workspace: bool,
    /// Whether only tests, examples and benchmarks have it.
    pub dev: bool,
}

impl Manifest {
    pub fn read(path: &Path) -> Manifest {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Manifest::parse(&text)
    }

    pub fn parse(text: &str) -> Manifest {
        let mut manifest = Manifest::default();
        let mut section = String::new();
        let mut in_members = false;
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if in_members {
                in_members = !line.starts_with(']');
                manifest.members.extend(quoted(line).map(String::from));
            } else if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']').to_string();
                // `[dependencies.NAME]`: the entry's keys follow.
                if let Some((_, name)) = section.split_once("dependencies.") {
                    let dev = section.starts_with(DEV);
                    manifest.dependencies.push(Dependency { name: name.into(), workspace: false, dev });
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim(), value.trim());
                in_members = section == "workspace" && key == "members" && !value.ends_with(']');
                manifest.entry(&section, key, value);
            }
        }
        manifest
    }

    fn entry(&mut self, section: &str, key: &str, value: &str) {
        if section == "package" && key == "name" {
            self.name = quoted(value).next().unwrap_or_default().into();
        } else if section == "workspace" && key == "members" {
            self.members.extend(quoted(value).map(String::from));
        } else if section == "lints" && key == "workspace" {
            self.workspace_lints = value == "true";
        } else if section.contains("dependencies.") {
            if let Some(last) = self.dependencies.last_mut().filter(|_| key == "workspace") {
                last.workspace = value == "true";
            }
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" {
            let (name, attribute) = key.split_once('.').unwrap_or((key, ""));
            let inline = value.replace(' ', "").contains("workspace=true");
            let workspace = (attribute == "workspace" && value == "true") || inline;
            self.dependencies.push(Dependency { name: name.into(), workspace, dev: section.starts_with(DEV) });
        }
    }
}

/// The strings in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

#[test]
fn manifests_are_understood() {
    let manifest = Manifest::parse(
        "[package]\nname = \"x\"\n[lints]\nworkspace = true\n[dependencies]\na.workspace = true # yes\n\
         b = { workspace = true, features = [\"f\"] }\nc = \"1\"\n[dev-dependencies.d]\nversion = \"1\"\n",
    );
    let found: Vec<_> = manifest.dependencies.iter().map(|d| (d.name.as_str(), d.workspace, d.dev)).collect();
    assert_eq!(found, [("a", true, false), ("b", true, false), ("c", false, false), ("d", false, true)]);
    assert_eq!((manifest.name.as_str(), manifest.workspace_lints), ("x", true));
    let root =
        Manifest::parse("[workspace]\nmembers = [\n  \"a\",\n  \"b/c\",\n]\n[workspace.dependencies]\nz = \"1\"\n");
    assert_eq!(root.members, ["a", "b/c"]);
    assert!(root.dependencies.is_empty());
}
