//! What is wrong with a file, drawn under its lines.
//!
//! The text of the file is untrusted: control characters and those that reorder a line are replaced before
//! anything is drawn, and lines too long for a terminal are not drawn at all.

use super::problem::Problem;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use std::fmt;
use std::ops::Range;
use switchd_api::reply::{ErrorBody, ErrorCode};

/// A longer line is not drawn, in bytes.
const MAX_LINE: usize = 400;

/// A refused file. `Display` gives the first message with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    problems: Vec<Problem>,
    more: usize,
    first_place: String,
    rendered: String,
}

impl Report {
    /// `problems` with their spans in `text`; `more` were not kept.
    pub(super) fn new(file: &str, text: &str, problems: Vec<(Problem, Vec<Label>)>, more: usize) -> Report {
        let file: String = file.chars().take(256).map(|c| if c.is_control() { '?' } else { c }).collect();
        let source = NamedSource::new(&file, harmless(text));
        let first_place = match problems.first().and_then(|(_, labels)| labels.first()) {
            Some(label) => {
                let (line, column) = place(text, label.span.start);
                format!("{file}:{line}:{column}")
            }
            None => file.clone(),
        };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_links(false)
            .with_width(100)
            .with_context_lines(1);
        let mut rendered = String::new();
        for (problem, labels) in &problems {
            let mut drawn = Drawn { problem, labels: Vec::new(), source: None };
            let short = labels.iter().all(|label| line_length(text, label.span.start) <= MAX_LINE);
            if short && !labels.is_empty() {
                drawn.source = Some(&source);
                drawn.labels = labels.clone();
            }
            if handler.render_report(&mut rendered, &drawn).is_err() {
                rendered.push_str(&problem.to_string());
            }
            if !short && let Some(label) = labels.first() {
                let (line, column) = place(text, label.span.start);
                rendered.push_str(&format!("  in {file}, line {line}, column {column}\n"));
            }
        }
        if more > 0 {
            rendered.push_str(&format!("and {more} more\n"));
        }
        let problems = problems.into_iter().map(|(problem, _)| problem).collect();
        Report { problems, more, first_place, rendered }
    }

    /// At most [`super::MAX_PROBLEMS`], never none.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All of them, drawn under the lines; plain text.
    pub fn rendered(&self) -> &str {
        &self.rendered
    }

    pub fn help(&self) -> Option<&str> {
        self.problems.first()?.help.as_deref()
    }

    pub fn code(&self) -> ErrorCode {
        self.problems.first().map_or(ErrorCode::Invalid, |problem| problem.code)
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.code(),
            message: self.to_string(),
            hint: self.help().map(str::to_owned),
            report: Some(self.rendered.clone()),
        }
    }
}

/// `FILE:LINE:COLUMN: port vm1: vlan "access=0": the rule (and 2 more)`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first_place)?;
        if let Some(first) = self.problems.first() {
            write!(f, ": {first}")?;
        }
        match self.problems.len() + self.more {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more)", count - 1),
        }
    }
}

impl std::error::Error for Report {}

/// A span in the file and what is written under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Label {
    pub span: Range<usize>,
    pub text: &'static str,
}

#[derive(Debug)]
struct Drawn<'a> {
    problem: &'a Problem,
    labels: Vec<Label>,
    source: Option<&'a NamedSource<String>>,
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(
            self.labels.iter().map(|label| {
                LabeledSpan::new(Some(label.text.to_owned()), label.span.start, label.span.len())
            }),
        ))
    }
}

/// The text with every character that a terminal would act on replaced by one of the same length.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => ' ',
            c if c.is_control() && c.len_utf8() == 1 => '?',
            c if c.is_control() => '¿',
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// Of the lines that would be drawn: this one and its neighbours.
fn line_length(text: &str, at: usize) -> usize {
    let start = line_start(text, at);
    let before = line_start(text, start.saturating_sub(1));
    text.get(before..).unwrap_or_default().split('\n').take(3).map(str::len).max().unwrap_or(0)
}

/// Line and column, from 1; the column in characters.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let at = at.min(text.len());
    let start = line_start(text, at);
    let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&text.as_bytes()[start..at]).chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, span: Range<usize>) -> Report {
        let problem = Problem::new(&["port", "vm1", "vlan"], "the rule").text("x").help("do that");
        Report::new("some.toml", text, vec![(problem, vec![Label { span, text: "here" }])], 0)
    }

    #[test]
    fn the_place_is_drawn_without_colours() {
        let report = report("[port.vm1]\nvlan = \"x\"\n", 18..21);
        assert_eq!(report.to_string(), "some.toml:2:8: port vm1: vlan \"x\": the rule");
        let drawn = report.rendered();
        for part in ["some.toml:2:8", "vlan = \"x\"", "here", "do that", "port vm1: vlan \"x\": the rule"] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
        assert!(!drawn.contains('\u{1b}'));
        assert_eq!(report.body().report.as_deref(), Some(drawn));
        assert_eq!(report.body().hint.as_deref(), Some("do that"));
    }

    #[test]
    fn what_a_terminal_would_act_on_is_replaced() {
        let text = "a = \"\u{1b}[2J\u{9b}\u{202e}\r\u{7f}\"\n";
        let clean = harmless(text);
        assert_eq!(clean.len(), text.len());
        assert!(clean.chars().all(|c| c == '\n' || !c.is_control()), "{clean:?}");
        assert!(!report(text, 4..8).rendered().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r', '\u{7f}']));
    }

    #[test]
    fn a_huge_line_is_not_drawn_but_its_place_is_told() {
        let text = format!("a = 1\nb = \"{}\"\n", "x".repeat(1 << 20));
        let report = report(&text, 10..20);
        assert!(report.rendered().len() < 1000, "{}", report.rendered().len());
        assert!(report.rendered().contains("line 2, column 5"), "{}", report.rendered());
    }

    #[test]
    fn places_count_characters_and_stay_in_the_text() {
        assert_eq!(place("é = 1\nä b", 10), (2, 3));
        assert_eq!(place("a", 99), (1, 2));
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("a\n", 2), (2, 1));
    }
}
