//! One thing that is wrong: where, with which value, against which rule, and what to do.

use std::fmt;
use switchd_api::reply::{ErrorBody, ErrorCode};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Section, object, key, element: `["port", "vm1", "vlan"]`. Shorter when it concerns all of it.
    pub path: Vec<String>,
    /// The offending value as it is shown: text quoted and cut.
    pub value: Option<String>,
    /// The rule.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The other place, when two contradict each other.
    pub also: Option<Box<[String]>>,
    pub code: ErrorCode,
}

impl Problem {
    pub(super) fn new(path: &[&str], message: impl Into<String>) -> Problem {
        Problem {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            value: None,
            message: message.into(),
            help: None,
            also: None,
            code: ErrorCode::Invalid,
        }
    }

    pub(super) fn text(mut self, value: &str) -> Problem {
        self.value = Some(quoted(value));
        self
    }

    pub(super) fn number(mut self, value: impl fmt::Display) -> Problem {
        self.value = Some(value.to_string());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    pub(super) fn also(mut self, path: &[&str]) -> Problem {
        self.also = Some(path.iter().map(|&part| part.to_owned()).collect());
        self
    }

    pub(super) fn conflict(mut self) -> Problem {
        self.code = ErrorCode::Conflict;
        self
    }

    pub(super) fn not_found(mut self) -> Problem {
        self.code = ErrorCode::NotFound;
        self
    }

    /// `port vm1`, or the section alone.
    pub fn object(&self) -> String {
        self.path.iter().take(2).map(|part| shown(part)).collect::<Vec<_>>().join(" ")
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody { code: self.code, message: self.to_string(), hint: self.help.clone(), report: None }
    }
}

/// `port vm1: vlan "access=0": the rule`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.object())?;
        }
        let key: Vec<String> = self.path.iter().skip(2).map(|part| shown(part)).collect();
        match (&key[..], &self.value) {
            ([], None) => {}
            ([], Some(value)) => write!(f, "{value}: ")?,
            (key, None) => write!(f, "{}: ", key.join("."))?,
            (key, Some(value)) => write!(f, "{} {value}: ", key.join("."))?,
        }
        f.write_str(&self.message)
    }
}

/// The answer to a client: the first problem, the others in the report. `problems` is not empty.
pub fn error_body(problems: &[Problem]) -> ErrorBody {
    let Some(first) = problems.first() else {
        return Problem::new(&[], "the configuration was refused").body();
    };
    let mut body = first.body();
    if problems.len() > 1 {
        body.message += &format!(" (and {} more)", problems.len() - 1);
        let line = |problem: &Problem| match &problem.help {
            Some(help) => format!("{problem}\n  try: {help}"),
            None => problem.to_string(),
        };
        let lines: Vec<String> = problems.iter().take(super::MAX_PROBLEMS).map(line).collect();
        body.report = Some(lines.join("\n"));
    }
    body
}

/// Text of a user in a message: quoted, control characters escaped, at most 80 characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

/// A key or name in a message: bare when it is harmless.
fn shown(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
    if (1..=80).contains(&text.len()) && text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

/// `a, b or c`
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > 40 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 2 && distance * 2 <= candidate.chars().count().max(2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein: insertions, deletions, replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_object_key_value_and_rule() {
        let problem = Problem::new(&["port", "vm1", "vlan"], "the rule").text("a\n\u{1b}[31m");
        assert_eq!(problem.to_string(), r#"port vm1: vlan "a\n\u{1b}[31m": the rule"#);
        assert_eq!(Problem::new(&["port", "a b"], "bad").to_string(), r#"port "a b": bad"#);
        assert_eq!(Problem::new(&[], "bad").to_string(), "bad");
    }

    #[test]
    fn long_values_are_cut() {
        let text = quoted(&"é".repeat(5000));
        assert_eq!(text.chars().count(), 83);
        assert!(text.ends_with("\"…"));
    }

    #[test]
    fn the_body_tells_the_first_and_counts_the_rest() {
        let two = [
            Problem::new(&["port", "a"], "one").conflict(),
            Problem::new(&["port", "b"], "two").help("that"),
        ];
        let body = error_body(&two);
        assert_eq!(body.code, ErrorCode::Conflict);
        assert_eq!(body.message, "port a: one (and 1 more)");
        assert_eq!(body.report.as_deref(), Some("port a: one\nport b: two\n  try: that"));
        assert_eq!(error_body(&two[1..]).message, "port b: two");
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["uplink", "vlan", "mtu", "mac-limit"];
        assert_eq!(nearest("uplnk", keys), Some("uplink"));
        assert_eq!(nearest("mac_limit", keys), Some("mac-limit"));
        assert_eq!(nearest("subnet", keys), None);
        assert_eq!(nearest(&"v".repeat(9999), keys), None);
    }
}
