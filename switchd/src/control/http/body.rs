//! Extractors: bodies, queries and path parameters, each with errors that say what was wrong where.
//!
//! A body is read whole, at most [`Limits::body_bytes`](super::Limits) of it and within
//! [`Limits::body`](super::Limits); one that announces more is refused before anything is read. JSON may name
//! no key twice (serde's maps would keep the last silently) and none that we do not know.

use std::borrow::Cow;
use std::fmt;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use switchd_api::Desired;
use switchd_api::reply::ErrorCode;

use super::error::{Failure, shown};
use super::router::App;
use crate::control::engine::Source;

/// A JSON body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Json<T>, Failure> {
        match content_type(request.headers())?.as_str() {
            "" | "application/json" => {}
            other => return Err(unsupported(other, "application/json")),
        }
        Ok(Json(from_json(&read(request.into_body(), app).await?)?))
    }
}

/// A whole configuration: TOML or JSON.
pub struct Configuration(pub Source);

impl FromRequest<App> for Configuration {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Configuration, Failure> {
        let kind = content_type(request.headers())?;
        let toml = match kind.as_str() {
            "application/toml" | "text/x-toml" => true,
            "" | "application/json" => false,
            other => return Err(unsupported(other, "application/toml or application/json")),
        };
        let name = file_name(request.uri().query().unwrap_or_default());
        let bytes = read(request.into_body(), app).await?;
        if !toml {
            return Ok(Configuration(Source::Desired(from_json::<Desired>(&bytes)?)));
        }
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::invalid(format!("the configuration is not UTF-8: byte {at} belongs to no character"))
        })?;
        Ok(Configuration(Source::Toml { text, name }))
    }
}

/// The client's name of the file (`?file=`), for the reports; shown only, never opened.
fn file_name(query: &str) -> String {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("file="));
    let decoded = value.and_then(|_| {
        #[derive(Deserialize)]
        struct Name {
            file: String,
        }
        let uri: axum::http::Uri = format!("/?{query}").parse().ok()?;
        axum::extract::Query::<Name>::try_from_uri(&uri).ok().map(|query| query.0.file)
    });
    decoded.filter(|name| !name.is_empty()).map_or_else(|| "request body".to_owned(), |name| shown(&name))
}

/// The type without parameters, in lower case; empty when there is none.
fn content_type(headers: &HeaderMap) -> Result<String, Failure> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(String::new()) };
    let text = value.to_str().map_err(|_| Failure::invalid("the Content-Type field is not plain text"))?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn unsupported(is: &str, wanted: &str) -> Failure {
    Failure::invalid(format!("a body of type {} is not understood here", shown(is)))
        .status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .hint(format!("send it with Content-Type: {wanted}"))
        .close()
}

pub fn too_large(limit: usize) -> Failure {
    Failure::new(ErrorCode::TooLarge, format!("the request body is larger than {limit} bytes"))
        .hint("split the change into several requests")
        .close()
}

async fn read(body: Body, app: &App) -> Result<Bytes, Failure> {
    let limit = app.limits.body_bytes;
    match tokio::time::timeout(app.limits.body, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => Err(Failure::invalid(format!("the request body broke off: {error}")).close()),
        Err(_) => {
            let seconds = app.limits.body.as_secs_f64();
            Err(Failure::new(
                ErrorCode::Timeout,
                format!("the request body did not arrive within {seconds} s"),
            )
            .status(StatusCode::REQUEST_TIMEOUT)
            .close())
        }
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let fail = |error: serde_json::Error| {
        let failure = Failure::invalid(format!("the JSON body is refused: {error}"));
        match error.classify() {
            serde_json::error::Category::Data => {
                failure.hint("GET /v1/openapi.json has the keys of every body")
            }
            _ => failure,
        }
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::invalid("the request has no body; a JSON object is needed")
            .hint("GET /v1/openapi.json has the keys of every body"));
    }
    serde_json::from_slice::<NoKeyTwice>(bytes).map_err(fail)?;
    serde_json::from_slice(bytes).map_err(fail)
}

/// Accepts any JSON in which no object has a key twice.
struct NoKeyTwice;

impl<'de> Deserialize<'de> for NoKeyTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NoKeyTwice, D::Error> {
        deserializer.deserialize_any(NoKeyTwice)
    }
}

impl<'de> Visitor<'de> for NoKeyTwice {
    type Value = NoKeyTwice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<NoKeyTwice, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NoKeyTwice, A::Error> {
        while items.next_element::<NoKeyTwice>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NoKeyTwice, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key_seed(Text)? {
            map.next_value::<NoKeyTwice>()?;
            if seen.contains(&key) {
                let key = shown(&key);
                return Err(serde::de::Error::custom(format!("the key `{key}` stands twice in one object")));
            }
            seen.insert(key);
        }
        Ok(self)
    }
}

/// A key, borrowed where JSON allows it.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Query parameters.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Query<T>, Failure> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Query(query.0)),
            Err(error) => {
                let why =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), |e| e.to_string());
                Err(Failure::invalid(format!("query of {}: {why}", shown(parts.uri.path()))))
            }
        }
    }
}

/// Parameters of the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Path<T>, Failure> {
        match axum::extract::Path::<T>::from_request_parts(parts, app).await {
            Ok(path) => Ok(Path(path.0)),
            Err(error) => Err(Failure::invalid(format!("path {}: {error}", shown(parts.uri.path())))),
        }
    }
}

/// `?flag`, `?flag=1`, `?flag=true`; `0` and `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    match text.as_ref() {
        "" | "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        other => Err(serde::de::Error::custom(format!("`{}` is neither 1 nor 0", shown(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_api::{Named, NetworkSpec};

    fn refusal<T: DeserializeOwned>(text: &str) -> String {
        match from_json::<T>(text.as_bytes()) {
            Ok(_) => panic!("accepted: {text}"),
            Err(failure) => {
                assert_eq!(failure.body.code, ErrorCode::Invalid);
                failure.body.message
            }
        }
    }

    #[test]
    fn an_error_in_json_names_key_line_and_column() {
        let message = refusal::<Named<NetworkSpec>>("{\"name\":\"lab\",\n\"kind\":\"isolated\",\"x\":1}");
        assert!(message.contains("unknown field `x`") && message.contains("line 2 column 21"), "{message}");
        let message = refusal::<Named<NetworkSpec>>(r#"{"name":"lab","kind":"vpn"}"#);
        assert!(message.contains("`vpn`") && message.contains("bridged"), "{message}");
        let message = refusal::<Named<NetworkSpec>>(r#"{"name":"lab","kind":"isolated","mtu":70000}"#);
        assert!(message.contains("70000"), "{message}");
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_at_any_depth() {
        let twice = r#"{"network":{"a":{"kind":"isolated"},"a":{"kind":"bridged"}}}"#;
        assert!(refusal::<Desired>(twice).contains("`a` stands twice"));
        let escaped = r#"{"network":{"a":{"kind":"isolated"},"\u0061":{"kind":"bridged"}}}"#;
        assert!(refusal::<Desired>(escaped).contains("`a` stands twice"));
        assert!(
            from_json::<Desired>(br#"{"network":{"a":{"kind":"isolated"},"b":{"kind":"bridged"}}}"#).is_ok()
        );
    }

    #[test]
    fn what_is_not_json_is_refused_without_harm() {
        assert!(refusal::<Desired>("").contains("no body"));
        assert!(refusal::<Desired>("{").contains("EOF"));
        assert!(refusal::<Desired>("{} x").contains("trailing"));
        assert!(refusal::<Desired>(&"[".repeat(500_000)).contains("recursion limit"));
        assert!(refusal::<Named<NetworkSpec>>("[1]").contains("invalid type: sequence"));
    }

    #[test]
    fn the_name_of_a_file_is_only_shown() {
        assert_eq!(file_name(""), "request body");
        assert_eq!(file_name("dry_run=1&file=my%20lab.toml"), "my lab.toml");
        assert_eq!(file_name("file=a%0Ab"), "a\\nb");
    }
}
