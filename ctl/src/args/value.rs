//! Syntax of single values.

use clap::builder::TypedValueParser;
use std::time::Duration;
use switchd_api::Name;

/// A name of an object to be made.
pub fn new_name() -> impl TypedValueParser<Value = String> {
    clap::builder::StringValueParser::new()
        .try_map(|text| text.parse::<Name>().map(|_| text).map_err(|error| error.to_string()))
}

/// A name of an object that is there; only the empty one is refused.
pub fn name_of(kind: &'static str) -> impl TypedValueParser<Value = String> {
    clap::builder::StringValueParser::new().try_map(move |text| {
        if text.is_empty() { Err(format!("the name of a {kind} is not empty")) } else { Ok(text) }
    })
}

/// `30s`, `500ms`, `2m`, `1h`, or plain seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let bad = || format!("{text:?} is not a time: write a number with ms, s, m or h, as in 30s");
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = digits.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| bad())
}

pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// `[HOSTIP:]PROTO/PORT[-PORT]:IP:PORT` → outside and guest.
pub fn parse_forward(text: &str) -> Result<(String, String), String> {
    // An address holds colons, but no slash.
    let ports =
        text.find('/').ok_or_else(|| format!("{text:?} names no PROTO/PORT, as in tcp/8080:10.7.0.20:80"))?;
    match text[ports..].find(':').map(|at| ports + at) {
        Some(at) if at + 1 < text.len() => Ok((text[..at].to_owned(), text[at + 1..].to_owned())),
        _ => Err(format!("{text:?} names no guest: write IP:PORT behind it, as in tcp/8080:10.7.0.20:80")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_settings() {
        assert_eq!(parse_time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "s", "-1s", "3x", "1e999", "soon"] {
            assert!(parse_time(bad).unwrap_err().contains("is not a time"), "{bad:?}");
        }
        assert_eq!(parse_setting("vlan=access=10"), Ok(("vlan".into(), "access=10".into())));
        let forward = |text: &str| parse_forward(text).unwrap();
        let pair = |key: &str, to: &str| (key.to_owned(), to.to_owned());
        assert_eq!(forward("tcp/8080:10.7.0.20:80"), pair("tcp/8080", "10.7.0.20:80"));
        assert_eq!(forward("192.0.2.9:udp/1-9:10.7.0.20:1"), pair("192.0.2.9:udp/1-9", "10.7.0.20:1"));
        assert_eq!(
            forward("[2001:db8::1]:tcp/80:[fd00::2]:8080"),
            pair("[2001:db8::1]:tcp/80", "[fd00::2]:8080")
        );
        for bad in ["8080:10.7.0.20:80", "tcp/8080", "tcp/8080:", ""] {
            assert!(parse_forward(bad).unwrap_err().contains("as in tcp/8080:10.7.0.20:80"), "{bad:?}");
        }
        assert!(parse_setting("=1").is_err() && parse_setting("mtu").is_err());
    }
}
