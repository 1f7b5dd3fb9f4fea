//! A file of options: TOML, one key for each option.
//!
//! Knows nothing of what a program takes; it gives every key with its line, so that whoever refuses one can say where.

use crate::limits::MAX_FILE;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use toml::{Spanned, Value};

/// One key of the file.
#[derive(Debug, PartialEq)]
pub struct Given {
    pub key: String,
    pub line: usize,
    pub value: Text,
}

/// A value, as it would stand on a command line.
#[derive(Debug, PartialEq)]
pub enum Text {
    Switch(bool),
    One(String),
    Many(Vec<String>),
}

/// Reads and takes apart a file. What is wrong is told with the file's name, and the line if there is one.
pub fn read(path: &Path) -> Result<Vec<Given>, String> {
    let name = path.display();
    let text = contents(path).map_err(|e| format!("cannot read the options in {name}: {e}"))?;
    let mut given = parse(&text).map_err(|(line, what)| format!("{name}, line {line}: {what}"))?;
    given.sort_by_key(|given| given.line);
    Ok(given)
}

fn contents(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(std::io::Error::other(format!("it is larger than {MAX_FILE} bytes"))),
        false => Ok(text),
    }
}

fn parse(text: &str) -> Result<Vec<Given>, (usize, String)> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let table: BTreeMap<Spanned<String>, Spanned<Value>> =
        toml::from_str(text).map_err(|e| (line(e.span().map_or(0, |span| span.start)), syntax(e.message())))?;
    table
        .into_iter()
        .map(|(key, value)| {
            let line = line(key.span().start);
            let key = key.into_inner();
            let value = as_text(&value.into_inner()).map_err(|what| (line, format!("`{key}` {what}")))?;
            Ok(Given { key, line, value })
        })
        .collect()
}

fn syntax(message: &str) -> String {
    format!("{message}; lines are `key = value`, with text in quotes, lists in brackets, and comments after #")
}

fn as_text(value: &Value) -> Result<Text, String> {
    match value {
        Value::Boolean(on) => Ok(Text::Switch(*on)),
        Value::Array(values) => values.iter().map(plain).collect::<Result<_, _>>().map(Text::Many),
        Value::Table(_) => Err("is a section; options are not in sections: remove its [header]".into()),
        other => plain(other).map(Text::One),
    }
}

fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if text.contains('\0') => Err("contains a zero byte".into()),
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        other => Err(format!("has a value of type {}; put it in quotes", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_lines() {
        let given = parse("# first\nb = 3\n\na = [\n  'x',\n  'y']\nc=true").unwrap();
        let of = |key: &str| given.iter().find(|g| g.key == key).unwrap();
        assert_eq!((of("b").line, &of("b").value), (2, &Text::One("3".into())));
        assert_eq!((of("a").line, &of("a").value), (4, &Text::Many(vec!["x".into(), "y".into()])));
        assert_eq!((of("c").line, &of("c").value), (7, &Text::Switch(true)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("a = 1\nb = x", 2, "quotes"),
            ("a = 1\na = 2", 2, "duplicate"),
            ("a = 1\n[b]\nc = 1", 2, "section"),
            ("a = 1\n\nb = [[1]]", 3, "array"),
            ("d = 2026-01-01", 1, "datetime"),
            ("a = \"x\\u0000\"", 1, "zero byte"),
        ] {
            let (at, message) = parse(text).unwrap_err();
            assert!(at == line && message.contains(what), "{text:?}: line {at}: {message}");
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.toml");
        assert!(read(&missing).unwrap_err().contains("none.toml"));
        let large = dir.path().join("large.toml");
        std::fs::write(&large, "#".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(read(&large).unwrap_err().contains("larger"));
        let binary = dir.path().join("binary.toml");
        std::fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(read(&binary).is_err());
    }
}
