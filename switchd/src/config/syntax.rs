//! What the TOML parser refuses, in our words where its own would mislead.
//!
//! - A value without quotes: the parser would tell of numbers.
//! - A table or key that stands in the file twice: the parser says so without the name and the other place, and
//!   once more for each key of a repeated table. Told once, with both places.
//!
//! Everything else keeps the parser's words. The paths of what stands twice are read off the lines, because the
//! parser's errors have none; a layout that this does not understand (an inline table) costs the name and the
//! other place, never the error.

use super::MAX_PROBLEMS;
use super::problem::Problem;
use super::report::{Label, Report};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A longer text with a syntax error tells only the first error, in bytes.
const RECOVER: usize = 64 << 10;
/// How the parser calls a key or table that was there already.
const TWICE: &str = "duplicate key";

pub(super) fn report(file: &str, text: &str, first: toml::de::Error) -> Report {
    let recovered = (text.len() <= RECOVER).then(|| DeTable::parse_recoverable(text));
    let (table, mut errors) = recovered.map_or((None, Vec::new()), |(table, errors)| (Some(table), errors));
    if errors.is_empty() {
        errors.push(first);
    }
    let table = table.as_ref().map(|table| table.get_ref());
    let (mut problems, mut more) = (Vec::new(), 0);
    // The rest of a table that stands twice: the keys in it are the same mistake.
    let mut repeated = 0..0;
    for error in errors {
        if problems.len() == MAX_PROBLEMS {
            more += 1;
            continue;
        }
        let span = error.span().map(|span| inside(text, span));
        if error.message() == TWICE
            && let Some(span) = span.clone()
        {
            if repeated.contains(&span.start) {
                continue;
            }
            if headed(line(text, span.start)) {
                repeated = span.end..body_end(text, span.end);
            }
            problems.push(twice(text, span, table));
            continue;
        }
        // The parser's messages may span lines.
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let problem = match span.clone().and_then(|span| bare_word(text, span)) {
            Some(word) => {
                Problem::new(&[], "this is not TOML: text stands in quotes").help(format!("write {word:?}"))
            }
            None => Problem::new(&[], format!("this is not TOML: {message}")),
        };
        problems.push((problem, span.map(|span| Label { span, text: "here" }).into_iter().collect()));
    }
    Report::new(file, text, problems, more)
}

fn twice(text: &str, span: Range<usize>, table: Option<&DeTable<'_>>) -> (Problem, Vec<Label>) {
    let path = path(text, &span).unwrap_or_default();
    let key = table.and_then(|table| first_place(table, &path)).filter(|other| other.end <= span.start);
    let other = key.or_else(|| first_header(&text[..span.start], &path));
    let what = if headed(line(text, span.start)) { "this table" } else { "this key" };
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let problem = Problem::new(&words, format!("{what} stands in the file twice"));
    let mut labels = vec![Label { span, text: "here" }];
    labels.extend(other.map(|span| Label { span, text: "the other one" }));
    (problem, labels)
}

/// The path of the key that ends at the end of `span`: that of the header above it, and its own.
fn path(text: &str, span: &Range<usize>) -> Option<Vec<String>> {
    let start = span.start - line(text, span.start).len();
    let written = &text[start..span.end];
    if headed(written) {
        return only_path(&format!("{written}]"));
    }
    let header = text[..start].lines().rev().find(|line| headed(line));
    let mut path = match header {
        Some(header) => only_path(header)?,
        None => Vec::new(),
    };
    path.extend(only_path(&format!("{written} = 0"))?);
    Some(path)
}

/// The keys that lead to the only thing in a text.
fn only_path(text: &str) -> Option<Vec<String>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut path = Vec::new();
    while let Some((key, value)) = table.iter().next() {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(path)
}

/// Where the key at the end of a path stands first.
fn first_place(table: &DeTable<'_>, path: &[String]) -> Option<Range<usize>> {
    let (word, rest) = path.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == word.as_str())?;
    if rest.is_empty() { Some(key.span()) } else { first_place(value.get_ref().as_table()?, rest) }
}

/// The header of a table. The parser keeps the place of the last one only.
fn first_header(text: &str, path: &[String]) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let words = line.trim_end();
        if headed(words) && only_path(words).is_some_and(|found| found == path) {
            return Some(start..start + words.len());
        }
        start += line.len();
    }
    None
}

/// The line up to a place in it.
fn line(text: &str, at: usize) -> &str {
    text[..at].rsplit('\n').next().unwrap_or_default()
}

/// Whether a line is a table's header.
fn headed(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Where the table ends whose header stands at `at`.
fn body_end(text: &str, at: usize) -> usize {
    let mut end = at;
    for (number, line) in text[at..].split_inclusive('\n').enumerate() {
        if number > 0 && headed(line) {
            break;
        }
        end += line.len();
    }
    end
}

/// A value that lacks its quotes: the parser would tell of numbers.
fn bare_word(text: &str, span: Range<usize>) -> Option<&str> {
    let before = text[..span.start].trim_end_matches([' ', '\t']);
    let word = &text[span];
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:=-".contains(c);
    let worded = word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(plain);
    (before.ends_with('=') && worded && word.len() <= 80).then_some(word)
}

/// The span cut to the text and to whole characters.
fn inside(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}
