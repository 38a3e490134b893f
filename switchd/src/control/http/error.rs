//! Errors as replies: `ErrorCode` ↔ HTTP status, and the errors that HTTP itself brings.
//!
//! The status follows from the code. Where HTTP knows better (405, 415, 431, 408) the status is the finer one
//! and the code the nearest one, so that a client may look at the code alone.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use switchd_api::reply::{ErrorBody, ErrorCode};

/// A refused request.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub body: ErrorBody,
    /// The rest of the request is not worth reading: close the connection.
    pub close: bool,
}

pub fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Denied => StatusCode::FORBIDDEN,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        let body = ErrorBody { code, message: message.into(), hint: None, report: None };
        Failure { status: status(code), body, close: false }
    }

    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(ErrorCode::Invalid, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.body.hint = Some(hint.into());
        self
    }

    pub fn status(mut self, status: StatusCode) -> Failure {
        self.status = status;
        self
    }

    pub fn close(mut self) -> Failure {
        self.close = true;
        self
    }
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Failure {
        Failure { status: status(body.code), body, close: false }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What a handler returns.
pub type Reply<T> = Result<T, Failure>;

/// Text of a client, made fit for one line of an error.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

pub async fn unknown_route(method: Method, uri: Uri) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("{method} {}: there is no such path", shown(uri.path())))
        .hint("GET /v1/openapi.json lists the paths")
}

/// axum adds the `Allow` field.
pub async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::invalid(format!("{method} is not a method of {}", shown(uri.path())))
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .hint("the reply's Allow field names the methods of this path; GET /v1/openapi.json has them all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_its_own() {
        use ErrorCode::*;
        let all = [Invalid, NotFound, Conflict, Denied, TooLarge, Unavailable, Timeout, Internal];
        let statuses: std::collections::BTreeSet<u16> =
            all.iter().map(|&code| status(code).as_u16()).collect();
        assert_eq!(statuses, [400, 403, 404, 409, 413, 500, 503, 504].into());
    }

    #[test]
    fn foreign_text_is_shortened_and_escaped() {
        assert_eq!(shown("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 81);
    }
}
