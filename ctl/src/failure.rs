//! What went wrong, and the exit status that says so to scripts.

use crate::render::harmless;
use std::fmt;
use std::io::Write;
use switchd_api::reply::{ErrorBody, ErrorCode};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Unreachable = 5,
    Timeout = 6,
    Differs = 7,
    Denied = 8,
}

#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
    hint: Option<String>,
    report: Option<String>,
    /// The connection broke before the answer was whole.
    broken: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, report: None, broken: false }
    }

    /// An exit status that needs no words.
    pub fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn broken(error: impl fmt::Display) -> Failure {
        let failure = Failure::new(Exit::Unreachable, format!("the connection to switchd broke: {error}"))
            .hint("switchctl status --wait 30s");
        Failure { broken: true, ..failure }
    }

    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub fn refused(error: ErrorBody) -> Failure {
        let exit = match error.code {
            ErrorCode::NotFound => Exit::NotFound,
            ErrorCode::Conflict => Exit::Conflict,
            ErrorCode::Denied => Exit::Denied,
            ErrorCode::Timeout => Exit::Timeout,
            ErrorCode::Invalid | ErrorCode::TooLarge | ErrorCode::Unavailable | ErrorCode::Internal => {
                Exit::Failed
            }
        };
        Failure { message: error.message, hint: error.hint, report: error.report, ..Failure::silent(exit) }
    }

    pub fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        let mut text = match &self.report {
            Some(report) => format!("{}\n", report.trim_end()),
            None => format!("switchctl: {}\n", self.message),
        };
        // A report holds its help already.
        if let Some(hint) = self.hint.as_ref().filter(|_| self.report.is_none()) {
            text += &format!("  try: {hint}\n");
        }
        let _ = std::io::stderr().write_all(harmless(&text).as_bytes());
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}
