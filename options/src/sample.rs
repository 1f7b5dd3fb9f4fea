//! Rules for a sample file: it explains every option, and tells the true defaults.
//!
//! In a sample, `# text` is an explanation and `#key = value` an option that is not set. Options that must be given
//! stand without the `#`. Tests of the programs call [`complaints`]; each complaint says what to change.

use crate::merge::keys;
use clap::{Arg, ArgAction, Command};

/// What is missing from or wrong in a sample for `command`; nothing if it is complete.
pub fn complaints(command: &Command, sample: &str) -> Vec<String> {
    let lines: Vec<&str> = sample.lines().collect();
    let shown = |arg: &&Arg| !arg.is_hide_set();
    keys(command).filter(shown).filter_map(|arg| complaint(arg, &lines)).collect()
}

/// The sample, and the sample with each of its options set that are not: what [`crate::try_parse_from`] must accept. One at
/// a time, for some exclude each other.
pub fn variants(sample: &str) -> Vec<String> {
    let unset = |line: &&str| line.starts_with('#') && key(line).is_some();
    let with =
        |set: &str| sample.lines().map(|line| if line == set { &line[1..] } else { line }.to_string() + "\n").collect();
    std::iter::once(sample.to_string()).chain(sample.lines().filter(unset).map(with)).collect()
}

/// The key that a line sets, or would set without its `#`.
fn key(line: &str) -> Option<&str> {
    let line = line.strip_prefix('#').unwrap_or(line);
    let (key, _) = line.split_once(" = ")?;
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    plain.then_some(key)
}

fn complaint(arg: &Arg, lines: &[&str]) -> Option<String> {
    let name = arg.get_long()?;
    let Some(at) = lines.iter().position(|line| key(line) == Some(name)) else {
        return Some(format!("add to the sample, and explain:\n\n{}", proposal(arg)));
    };
    let explained = at > 0 && lines[at - 1].starts_with("# ");
    let value = lines[at].split_once(" = ").map_or("", |(_, value)| value).replace('"', "");
    let default: Vec<_> = arg.get_default_values().iter().filter_map(|v| v.to_str()).collect();
    let (is_set, required) = (!lines[at].starts_with('#'), arg.is_required_set());
    match () {
        () if !explained => Some(format!("explain `{name}` in a comment (`# ...`) on the lines above it")),
        () if required != is_set => {
            Some(format!("`{name}` {} required: write the line {} a #", is(required), without(required)))
        }
        () if takes_values(arg) && !default.is_empty() && value != default.join(",") => {
            Some(format!("`{name}` is shown as {value}, its default is {}", default.join(",")))
        }
        () => None,
    }
}

fn is(yes: bool) -> &'static str {
    if yes { "is" } else { "is not" }
}

fn without(yes: bool) -> &'static str {
    if yes { "without" } else { "with" }
}

fn takes_values(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// Lines for an option, out of its help.
fn proposal(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().filter_map(|v| v.to_str()).collect();
    let value = match arg.get_action() {
        action if !action.takes_values() => "true".to_string(),
        ArgAction::Append => "[\"...\"]".to_string(),
        _ if default.len() == 1 && default[0].parse::<i64>().is_ok() => default[0].to_string(),
        _ if default.is_empty() => "\"...\"".to_string(),
        _ => format!("\"{}\"", default.join(",")),
    };
    let mark = if arg.is_required_set() { "" } else { "#" };
    format!("# {help}.\n{mark}{} = {value}\n", arg.get_long().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("daemon").args([
            Arg::new("config").long("config"),
            Arg::new("id").long("id").required(true).help("Its number"),
            Arg::new("after").long("after").default_value("600").help("How long"),
            Arg::new("secret").long("secret").hide(true),
            Arg::new("join").long("join").action(ArgAction::SetTrue).help("Join"),
        ])
    }

    #[test]
    fn complete_samples_are_not_complained_about() {
        let sample = "# Number.\nid = 1\n\n# Time.\n#after = 600\n# Joins.\n#join = true\n";
        assert_eq!(complaints(&command(), sample), [""; 0]);
        let all = variants(sample);
        assert_eq!((all.len(), all[0].as_str()), (3, sample));
        assert!(all[1].contains("\nafter = 600\n") && all[1].contains("\n#join"));
        assert!(all[2].contains("\njoin = true\n") && all[2].contains("# Number.\n"));
    }

    #[test]
    fn complaints_say_what_to_do() {
        for (sample, parts) in [
            ("", ["# Its number.\nid = ", "# How long.\n#after = 600", "# Join.\n#join = true"]),
            ("#id = 1\nafter = 1\n#join = true", ["explain `id`", "explain `after`", "explain `join`"]),
            (
                "# x\n#id = 1\n# x\n#after = 60\n# x\njoin = true",
                ["`id` is required", "its default is 600", "`join` is not required"],
            ),
        ] {
            let all = complaints(&command(), sample);
            assert_eq!(all.len(), parts.len());
            for (complaint, part) in all.iter().zip(parts) {
                assert!(complaint.contains(part), "{part}: {complaint}");
            }
        }
    }
}
