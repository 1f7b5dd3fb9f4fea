//! Arguments out of a file of options, put before those of the command line.
//!
//! `--config FILE` belongs to a program, or to one of its subcommands: that one's options are what the file may set.

use crate::file::{self, Given, Text};
use crate::limits::MAX_TYPOS;
use crate::pages;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, Error, Parser};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The option that names the file; it cannot be set in one.
const CONFIG: &str = "config";
/// Options that only print something: files are not looked at for them.
const PRINTING: [&str; 4] = ["-h", "--help", "-V", "--version"];

/// The program's options, from its command line, its environment and a file. Exits where there is nothing to run:
/// wrong options, a request for help, or for [`pages`].
pub fn parse<P: Parser>() -> P {
    let args: Vec<OsString> = std::env::args_os().collect();
    pages::write_if_asked(P::command(), &args);
    try_parse_from(args).unwrap_or_else(|error| error.exit())
}

/// The same, of given arguments, the first being the program's name.
pub fn try_parse_from<P: Parser>(args: Vec<OsString>) -> Result<P, Error> {
    let mut command = P::command();
    let Some(asked) = Asked::find(&command, &args) else { return P::try_parse_from(args) };
    let at = asked.command_at + 1;
    let given = file::read(&asked.file).map_err(|what| refuse(&mut command, what))?;
    let from_file = arguments(&asked, &given, &args).map_err(|what| refuse(&mut command, what))?;
    let merged: Vec<_> = args[..at].iter().cloned().chain(from_file).chain(args[at..].iter().cloned()).collect();
    P::try_parse_from(merged).map_err(|error| explain(error, &asked.file, &given, command))
}

fn refuse(command: &mut Command, what: String) -> Error {
    command.error(ErrorKind::ValueValidation, what)
}

/// A file that the command line names.
struct Asked {
    file: PathBuf,
    /// Whose options it sets, and where in the arguments that is named.
    command: Command,
    command_at: usize,
}

impl Asked {
    /// Follows the words as clap will: subcommands, options, and options' values.
    fn find(root: &Command, args: &[OsString]) -> Option<Self> {
        let mut command = root.clone();
        let (mut command_at, mut found) = (0, None);
        let mut at = 1;
        while let Some(word) = args.get(at).and_then(|word| word.to_str()) {
            if word == "--" || PRINTING.contains(&word) {
                break;
            }
            if let Some((name, value)) = long(word) {
                let takes_next = value.is_none() && option(&command, name).is_some_and(takes_value);
                if name == CONFIG && option(&command, name).is_some() {
                    let file = value.map(OsString::from).or_else(|| args.get(at + 1).cloned())?;
                    found = Some(Asked { file: file.into(), command: command.clone(), command_at });
                }
                at += usize::from(takes_next);
            } else if let Some(sub) = command.find_subcommand(word) {
                (command, command_at) = (sub.clone(), at);
            }
            at += 1;
        }
        let printing = args.iter().any(|word| PRINTING.iter().any(|p| word == p));
        found.filter(|_| !printing)
    }
}

/// An option's name, and its value if it is in the same word.
fn long(word: &str) -> Option<(&str, Option<&str>)> {
    let word = word.strip_prefix("--")?;
    Some(word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))))
}

fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// What the file may set.
pub(crate) fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let printing = matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
        arg.get_long().is_some_and(|name| name != CONFIG) && !printing
    })
}

fn arguments(asked: &Asked, given: &[Given], args: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut all = Vec::new();
    for one in given {
        let place = format!("{}, line {}", asked.file.display(), one.line);
        let Some(arg) = keys(&asked.command).find(|arg| arg.get_long() == Some(&one.key)) else {
            return Err(format!("{place}: {}", unknown(&asked.command, &one.key)));
        };
        let words = words(arg, one).map_err(|what| format!("{place}: `{}` {what}", one.key))?;
        if !is_given_elsewhere(arg, args) {
            all.extend(words);
        }
    }
    Ok(all)
}

/// On the command line, or in the environment.
fn is_given_elsewhere(arg: &Arg, args: &[OsString]) -> bool {
    let named = |word: &OsStr| word.to_str().and_then(long).is_some_and(|(name, _)| arg.get_long() == Some(name));
    args.iter().any(|word| named(word)) || arg.get_env().is_some_and(|name| std::env::var_os(name).is_some())
}

fn words(arg: &Arg, given: &Given) -> Result<Vec<OsString>, &'static str> {
    let key = &given.key;
    let word = |value: &String| OsString::from(format!("--{key}={value}"));
    let several = matches!(arg.get_action(), ArgAction::Append);
    match &given.value {
        Text::Switch(on) if !takes_value(arg) => Ok(on.then(|| format!("--{key}").into()).into_iter().collect()),
        _ if !takes_value(arg) => Err("is a switch: set it to true or false"),
        Text::Switch(on) => Ok(vec![word(&on.to_string())]),
        Text::One(value) => Ok(vec![word(value)]),
        Text::Many(values) if several => Ok(values.iter().map(word).collect()),
        Text::Many(_) => Err("takes one value: remove the brackets"),
    }
}

fn unknown(command: &Command, key: &str) -> String {
    let known: Vec<_> = keys(command).filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long).collect();
    let near = known.iter().map(|name| (typos(name, &key.replace('_', "-")), name)).min();
    match near {
        _ if key == CONFIG => format!("`{CONFIG}` cannot be set in a file: remove the line"),
        Some((typos, name)) if typos <= MAX_TYPOS => {
            format!("there is no option `{key}`; did you mean `{name}`?")
        }
        _ => format!("there is no option `{key}`: remove the line. There are {}", known.join(", ")),
    }
}

/// Letters to insert, remove or replace to make one word of the other.
fn typos(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Says which lines of the file an error is about.
fn explain(error: Error, file: &std::path::Path, given: &[Given], mut command: Command) -> Error {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    let note = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return error,
        ErrorKind::MissingRequiredArgument => {
            format!("give them here, or in {} without the dashes: `key = value`", file.display())
        }
        _ => match named(&error, given) {
            lines if lines.is_empty() => return error,
            lines => {
                let lines: Vec<_> = lines.iter().map(|g| format!("line {} (`{}`)", g.line, g.key)).collect();
                format!("see {}, {}", file.display(), lines.join(", "))
            }
        },
    };
    command.error(error.kind(), format!("{what}\n  {note}"))
}

/// The file's keys that an error names.
fn named<'a>(error: &Error, given: &'a [Given]) -> Vec<&'a Given> {
    let about = [ContextKind::InvalidArg, ContextKind::PriorArg].into_iter().filter_map(|kind| error.get(kind));
    let words: Vec<&str> = about
        .flat_map(|value| match value {
            ContextValue::String(text) => vec![text.as_str()],
            ContextValue::Strings(texts) => texts.iter().map(String::as_str).collect(),
            _ => vec![],
        })
        .filter_map(|text| text.strip_prefix("--")?.split([' ', '=', '<', '[']).next())
        .collect();
    given.iter().filter(|given| words.contains(&given.key.as_str())).collect()
}

#[cfg(test)]
mod tests;
