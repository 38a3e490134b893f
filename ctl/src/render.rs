//! Answers for people: tables. JSON and YAML are the answer itself.
//!
//! What comes from the daemon may hold odd bytes (names of interfaces, texts of errors): control characters
//! are made visible before they reach the terminal, and colour is added after that, on a terminal only.

mod bond;
mod nat;

pub use bond::{bond, bonds};
pub use nat::{floatings, flows, forwards, leases};

use crate::args::Output;
use crate::failure::{Exit, Failure};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use switchd_api::reply::{DropRow, Event, FdbEntry, MirrorStatus, NetworkStatus, PortStatus, State, Status};

/// Prints a value as JSON or YAML, or through `table`.
pub fn show<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(value).map_err(unprintable)? + "\n",
        Output::Yaml => serde_yaml_ng::to_string(value).map_err(unprintable)?,
        Output::Table => table(false),
        Output::Wide => table(true),
        Output::Dot | Output::Svg => {
            return Err(Failure::new(Exit::Usage, "dot and svg are forms of `topology` only"));
        }
    };
    print(&text)
}

fn unprintable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot print the answer: {error}"))
}

/// A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::from),
    }
}

/// Control characters but the end of a line, and those that turn the direction of text, made visible.
pub fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || turns {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// In a table a line is a row.
fn one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\n")
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn state_colour(text: &str) -> Option<Color> {
    match text.split(':').next() {
        Some("up" | "running") => Some(Color::DarkGreen),
        Some("down" | "failing") => Some(Color::DarkRed),
        Some("waiting") => Some(Color::DarkYellow),
        _ => None,
    }
}

pub fn grid<R: IntoIterator<Item = Vec<String>>>(header: &[&str], rows: R) -> String {
    grid_with(header, rows, colour())
}

fn grid_with<R: IntoIterator<Item = Vec<String>>>(header: &[&str], rows: R, coloured: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if coloured {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.to_vec());
    let mut any = false;
    for row in rows {
        any = true;
        table.add_row(row.into_iter().zip(header).map(|(text, title)| {
            let cell = Cell::new(one_line(&text));
            match state_colour(&text).filter(|_| *title == "STATE") {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }
    if !any {
        return "none\n".to_owned();
    }
    let text = table.to_string();
    text.lines()
        .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn state(state: State, reason: Option<&str>) -> String {
    match (state, reason) {
        (State::Up, _) => "up".to_owned(),
        (State::Down, None) => "down".to_owned(),
        (State::Down, Some(reason)) => format!("down: {reason}"),
    }
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Uplink or egress.
fn way_out(n: &NetworkStatus) -> String {
    match n.spec.kind {
        switchd_api::Kind::Nat => n.spec.egress.clone().unwrap_or_else(|| "host".to_owned()),
        _ => or_dash(n.spec.uplink.as_ref()),
    }
}

pub fn networks(list: &[NetworkStatus], wide: bool) -> String {
    let mut header = vec!["NAME", "KIND", "UPLINK", "VLAN", "STATE", "PORTS", "ADDRESSES"];
    if wide {
        header.extend(["SUBNET", "FLOWS", "MTU", "FORWARDED", "FLOODED", "MOVES", "WORKER"]);
    }
    let rows = list.iter().map(|n| {
        let mut row = vec![
            n.name.to_string(),
            word(&n.spec.kind),
            way_out(n),
            or_dash(n.spec.vlan),
            state(n.state, n.reason.as_deref()),
            n.ports.len().to_string(),
            n.counters.addresses.to_string(),
        ];
        if wide {
            let c = &n.counters;
            row.push(or_dash(n.spec.subnet.as_ref()));
            row.push(or_dash(n.nat.as_ref().map(|nat| nat.flows)));
            row.push(n.spec.mtu.unwrap_or(1500).to_string());
            row.extend([c.forwarded, c.flooded, c.moves].map(|count| count.to_string()));
            row.push(n.worker.to_string());
        }
        row
    });
    grid(&header, rows)
}

pub fn ports(list: &[PortStatus], wide: bool) -> String {
    let mut header = vec!["NAME", "NETWORK", "INTERFACE", "STATE", "RX", "TX", "DROPS"];
    if wide {
        header
            .extend(["NETNS", "MAC", "VLAN", "RESERVE", "MTU", "RX BYTES", "TX BYTES", "NEIGHBOR", "WORKER"]);
    }
    let rows = list.iter().map(|p| {
        let c = &p.counters;
        let drops = c.dropped_in.values().sum::<u64>() + c.dropped_out.values().sum::<u64>();
        let mut row = vec![
            p.name.clone(),
            p.spec.network.to_string(),
            p.spec
                .tap
                .clone()
                .or_else(|| p.spec.netdev.clone())
                .or_else(|| p.spec.vhost_user.clone())
                .unwrap_or_default(),
            state(p.state, p.reason.as_deref()),
            c.rx_frames.to_string(),
            c.tx_frames.to_string(),
            drops.to_string(),
        ];
        if wide {
            row.extend([
                or_dash(p.spec.netns.as_ref()),
                or_dash(p.address.as_ref()),
                or_dash(p.spec.vlan.as_ref()),
                or_dash(p.spec.reserve.as_ref()),
                p.mtu.to_string(),
                c.rx_bytes.to_string(),
                c.tx_bytes.to_string(),
                bond::neighbor_of(&p.neighbors),
                p.worker.to_string(),
            ]);
        }
        row
    });
    grid(&header, rows)
}

pub fn mirrors(list: &[MirrorStatus], wide: bool) -> String {
    let mut header = vec!["NAME", "SOURCE", "TO", "STATE", "COPIED", "LOST"];
    if wide {
        header.extend(["FILTER", "FILTERED", "BYTES", "FILE"]);
    }
    let rows = list.iter().map(|m| {
        let shown = match &m.last_error {
            Some(error) if m.state != "running" => format!("{}: {error}", m.state),
            _ => m.state.clone(),
        };
        let mut row = vec![
            m.name.to_string(),
            m.spec.source.join(","),
            m.spec.to.clone(),
            shown,
            m.counters.copied.to_string(),
            m.counters.lost.to_string(),
        ];
        if wide {
            row.extend([
                or_dash(m.spec.filter.as_ref()),
                m.counters.filtered.to_string(),
                m.counters.bytes.to_string(),
                or_dash(m.file.as_ref()),
            ]);
        }
        row
    });
    grid(&header, rows)
}

pub fn fdb(list: &[FdbEntry], _: bool) -> String {
    let rows = list.iter().map(|e| {
        let age = if e.is_static { "static".to_owned() } else { or_dash(e.age) };
        vec![e.mac.clone(), or_dash(e.vlan), e.port.clone(), age]
    });
    grid(&["MAC", "VLAN", "PORT", "AGE"], rows)
}

pub fn drops(list: &[DropRow], _: bool) -> String {
    let rows = list.iter().map(|d| {
        let frames = d.frames.to_string();
        vec![
            d.network.clone(),
            d.port.clone(),
            d.direction.clone(),
            d.reason.clone(),
            frames,
            d.meaning.clone(),
        ]
    });
    grid(&["NETWORK", "PORT", "DIRECTION", "REASON", "FRAMES", "MEANING"], rows)
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// 93784 → `1d 2h 3m`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) => format!("{m}m {}s", seconds % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, m) => format!("{d}d {h}h {m}m"),
    }
}

pub fn status(s: &Status, _: bool) -> String {
    let mut text = format!(
        "switchd {} up {}, {}, pid {}, dataplane {} ({}), {}\n\
         {}, {} of {} up, {}\n\
         state in {}, captures in {}\nsandbox: {}\n",
        s.version,
        duration(s.uptime),
        s.mode,
        s.pid,
        s.dataplane_pid,
        count(s.dataplane_restarts as usize, "restart"),
        count(s.workers, "worker"),
        count(s.networks, "network"),
        s.ports_up,
        count(s.ports, "port"),
        match s.bonds {
            0 => count(s.mirrors, "mirror"),
            all => format!("{} of {} up, {}", s.bonds_up, count(all, "bond"), count(s.mirrors, "mirror")),
        },
        s.state_dir,
        s.capture_dir,
        if s.sandbox.is_empty() { "none".to_owned() } else { s.sandbox.join(", ") },
    );
    if let Some(seconds) = s.confirm_within {
        text +=
            &format!("unconfirmed changes are rolled back in {seconds} s: `switchctl confirm` keeps them\n");
    }
    if s.config_differs {
        text += "the saved state differs from the --config file: `switchctl diff FILE` shows where\n";
    }
    text = harmless(&text);
    if !s.troubles.is_empty() {
        let next = |wait: Option<u64>| wait.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
        let rows = s.troubles.iter().map(|t| vec![t.object.clone(), t.reason.clone(), next(t.retry_in)]);
        text += &format!("\n{}", grid(&["NOT UP", "REASON", "NEXT TRY"], rows));
    }
    text
}

/// Nanoseconds since 1970 as RFC 3339, in UTC. The date is Howard Hinnant's `civil_from_days`.
fn moment(time: u64) -> String {
    let (seconds, milli) = (time / 1_000_000_000, time / 1_000_000 % 1000);
    let second = seconds % 86_400;
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{milli:03}Z", second % 60)
}

pub fn event(e: &Event) -> String {
    let line = format!("{} {:<17} {:<16} {}", moment(e.time), e.kind, e.object, e.message);
    one_line(line.trim_end())
}

/// One object as `key: value` lines, nested keys joined with dots, in the order of the API. Of the long lists
/// of counters (the kernel's, of translation and services) those that are 0 are left out unless `wide`.
pub fn object<T: Serialize>(value: &T, wide: bool) -> String {
    use serde_yaml_ng::Value;
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Mapping(map) => {
                for (key, value) in map {
                    let key = plain(key);
                    let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&key, value, out);
                }
            }
            // Objects are counted from 1.
            Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
                for (index, item) in items.iter().enumerate() {
                    walk(&format!("{prefix}.{}", index + 1), item, out);
                }
            }
            Value::Sequence(items) => {
                let items: Vec<_> = items.iter().map(plain).collect();
                out.push((prefix.to_owned(), items.join(", ")));
            }
            other => out.push((prefix.to_owned(), plain(other))),
        }
    }
    fn plain(value: &Value) -> String {
        match value {
            Value::String(text) => one_line(text),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => "-".to_owned(),
        }
    }
    let mut lines = Vec::new();
    walk("", &serde_yaml_ng::to_value(value).unwrap_or_default(), &mut lines);
    let many = ["kernel.", "nat.translation.", "nat.dhcp.", "nat.dns."];
    lines.retain(|(key, value)| wide || value != "0" || !many.iter().any(|begin| key.starts_with(begin)));
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |all, (key, value)| all + &format!("{key:<width$}  {value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(harmless("a\x1b[31m\u{9b}1m\r\nb\u{202e}"), "a\\u{1b}[31m\\u{9b}1m\\r\nb\\u{202e}");
        let row = vec!["eth\x1b]0;x\x07".to_owned(), "down: two\nlines".to_owned()];
        let table = grid_with(&["NAME", "STATE"], [row], false);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(!table.contains('\x1b') && table.contains("two\\nlines"), "{table}");
    }

    #[test]
    fn colour_marks_states_and_keeps_the_columns() {
        let rows =
            || [vec!["up".into(), "up".into(), "x".into()], vec!["a".into(), "down".into(), "x".into()]];
        let plain = grid_with(&["NAME", "STATE", "END"], rows(), false);
        assert_eq!(plain, "NAME  STATE  END\nup    up     x\na     down   x\n");
        let coloured = grid_with(&["NAME", "STATE", "END"], rows(), true);
        let mut bare = String::new();
        let mut rest = coloured.as_str();
        while let Some(start) = rest.find('\x1b') {
            bare += &rest[..start];
            rest = &rest[start + rest[start..].find('m').unwrap() + 1..];
        }
        bare += rest;
        assert_eq!(bare.replace(' ', ""), plain.replace(' ', ""));
        assert_eq!(
            coloured.lines().nth(1).unwrap().matches('\x1b').count(),
            2,
            "only the state: {coloured:?}"
        );
    }

    #[test]
    fn no_rows_are_said_to_be_none() {
        assert_eq!(grid_with(&["NAME"], [], false), "none\n");
    }

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(moment(1_794_192_042_845_999_999), "2026-11-09T02:40:42.845Z");
    }

    #[test]
    fn objects_keep_their_order_and_hide_silent_kernel_counters() {
        #[derive(Serialize)]
        struct Thing {
            name: &'static str,
            list: [u8; 2],
            kernel: std::collections::BTreeMap<&'static str, u64>,
        }
        let thing = Thing { name: "z", list: [1, 2], kernel: [("a", 0), ("b", 3)].into() };
        assert_eq!(object(&thing, false), "name      z\nlist      1, 2\nkernel.b  3\n");
        assert!(object(&thing, true).contains("kernel.a  0\n"));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([7, 65, 3700, 93_784].map(duration), ["7 s", "1m 5s", "1h 1m", "1d 2h 3m"]);
    }
}
