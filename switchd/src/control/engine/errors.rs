//! Refusals, as clients see them: each names the object, the rule, the offending value and what to do.

use switchd_api::reply::{ErrorBody, ErrorCode};

pub fn error(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody { code, message: message.into(), hint: None, report: None }
}

pub fn hinted(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    ErrorBody { hint: Some(hint.into()), ..error(code, message) }
}

pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    hinted(ErrorCode::Invalid, message, hint)
}

pub fn conflict(message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    hinted(ErrorCode::Conflict, message, hint)
}

/// `kind` is `network`, `bond`, `port` or `mirror`: also the command that lists them.
pub fn not_found(kind: &str, name: &str) -> ErrorBody {
    // A name that a client made up may hold anything: quoted and cut.
    let name: String = name.chars().take(80).collect();
    hinted(ErrorCode::NotFound, format!("there is no {kind} {name:?}"), format!("switchctl {kind} list"))
}
