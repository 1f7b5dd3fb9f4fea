//! Rust sources with comments and literals blanked out, so that words and braces in them do not count.

use std::path::Path;

pub struct Source {
    /// From the workspace's root, with `/`.
    pub path: String,
    /// The code: every character of a comment or literal is a blank, line ends are kept.
    code: String,
}

/// The sources below `folder`, without those below any of `nested`.
pub fn under(root: &Path, folder: &str, nested: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut pending = vec![root.join(folder)];
    while let Some(dir) = pending.pop() {
        // Others may be at work in the tree: what has gone meanwhile is not there.
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            if path.is_dir() {
                let below = nested.iter().any(|other| *other == name && other.starts_with(folder));
                if !below && !name.ends_with("/target") {
                    pending.push(path);
                }
            } else if name.ends_with(".rs")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push(Source { path: name, code: blank(&text) });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Source {
    pub fn line_count(&self) -> usize {
        self.code.lines().count()
    }

    /// Numbers of the lines that contain `word` as a word.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(_, line)| has_word(line, word)).map(|(index, _)| index + 1).collect()
    }

    /// Every function with a body: name, first line, number of lines.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut functions = Vec::new();
        let mut at = 0;
        while let Some(found) = self.code[at..].find("fn ") {
            let start = at + found;
            at = start + 3;
            let fresh = self.code[..start].chars().next_back().is_none_or(|c| !is_word(c));
            let name: String = self.code[at..].chars().take_while(|c| is_word(*c)).collect();
            if !fresh || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(&self.code[at..]) {
                let lines = self.code[start..at + end].matches('\n').count() + 1;
                functions.push((name, self.code[..start].matches('\n').count() + 1, lines));
            }
        }
        functions
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Where the body that follows a function's name ends; `None` if there is no body.
fn body_end(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut brackets = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Blanks comments and literals.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at..] {
            ['/', '/', ..] => line_end(&chars, at),
            ['/', '*', ..] => comment_end(&chars, at),
            ['"', ..] => string_end(&chars, at),
            ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) || byte_prefix(&chars, at) => {
                raw_end(&chars, at)
            }
            ['\'', '\\', ..] => 2 + at + chars[at + 2..].iter().skip(1).position(|c| *c == '\'').map_or(0, |n| n + 2),
            ['\'', _, '\'', ..] => at + 3,
            _ => at,
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        }
        while at < end.min(chars.len()) {
            code.push(if chars[at] == '\n' { '\n' } else { ' ' });
            at += 1;
        }
    }
    code
}

/// `br"…"`: the `b` before is no part of a longer word.
fn byte_prefix(chars: &[char], at: usize) -> bool {
    chars[at - 1] == 'b' && (at == 1 || !is_word(chars[at - 2]))
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

/// Comments nest.
fn comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

/// The end of a raw string, or `at` if none begins here (`r#name`).
fn raw_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes =
        |n: &usize| chars[*n] == '"' && chars[*n + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |n| n + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "x.rs".into(), code: blank(text) }
    }

    #[test]
    fn comments_and_literals_do_not_count() {
        let text = "// unsafe\n/* unsafe /* { */ unsafe */ let a = \"unsafe \\\" {\";\nlet b = r#\"unsafe \" {\"#; 'x: loop {}\n\
                    let c = ['{', '\\'', '\\u{7b}', b'{']; let l: &'static str = \"\"; unsafe_code();\nunsafe {}\n";
        assert_eq!(source(text).lines_with("unsafe"), [5]);
        assert_eq!(blank(text).matches('{').count(), 2);
        assert_eq!(blank(text).matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn functions_are_measured() {
        let text = "trait T {\n    fn no_body(&self, a: [u8; 2]);\n    fn short() {}\n}\nfn long(\n    a: fn(u8),\n) {\n    if a {\n    }\n}\n";
        assert_eq!(source(text).functions(), [("short".to_string(), 3, 1), ("long".to_string(), 5, 6)]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("use std::time::Instant;", "Instant"));
        assert!(!has_word("struct Instantly;", "Instant"));
        assert!(has_word("std::thread::spawn", "std::thread"));
    }
}
