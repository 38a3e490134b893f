//! Answers for people: tables. JSON and YAML are the answer itself.

use crate::args::Output;
use crate::failure::{Exit, Failure};
use comfy_table::{ContentArrangement, Table, presets};
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
            return Err(Failure::new(Exit::Failed, "dot and svg are forms of `topology` only"));
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

pub fn grid<R: IntoIterator<Item = Vec<String>>>(header: &[&str], rows: R) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    let mut any = false;
    for row in rows {
        any = true;
        table.add_row(row);
    }
    if !any {
        return "none\n".to_owned();
    }
    let text = table.to_string();
    text.lines()
        .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn paint(text: &str, code: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn state(state: State, reason: Option<&str>) -> String {
    match (state, reason) {
        (State::Up, _) => paint("up", "32"),
        (State::Down, None) => paint("down", "31"),
        (State::Down, Some(reason)) => format!("{}: {reason}", paint("down", "31")),
    }
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

pub fn networks(list: &[NetworkStatus], wide: bool) -> String {
    let mut header = vec!["NAME", "KIND", "UPLINK", "VLAN", "STATE", "PORTS", "ADDRESSES"];
    if wide {
        header.extend(["MTU", "FORWARDED", "FLOODED", "MOVES", "WORKER"]);
    }
    let rows = list.iter().map(|n| {
        let mut row = vec![
            n.name.to_string(),
            word(&n.spec.kind),
            or_dash(n.spec.uplink.as_ref()),
            or_dash(n.spec.vlan),
            state(n.state, n.reason.as_deref()),
            n.ports.len().to_string(),
            n.counters.addresses.to_string(),
        ];
        if wide {
            let c = &n.counters;
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
        header.extend(["NETNS", "MAC", "VLAN", "MTU", "RX BYTES", "TX BYTES", "WORKER"]);
    }
    let rows = list.iter().map(|p| {
        let c = &p.counters;
        let drops = c.dropped_in.values().sum::<u64>() + c.dropped_out.values().sum::<u64>();
        let mut row = vec![
            p.name.clone(),
            p.spec.network.to_string(),
            p.spec.tap.clone().or_else(|| p.spec.netdev.clone()).unwrap_or_default(),
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
                p.mtu.to_string(),
                c.rx_bytes.to_string(),
                c.tx_bytes.to_string(),
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
            Some(error) if m.state != "running" => format!("{}: {error}", paint(&m.state, "31")),
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

pub fn status(s: &Status, _: bool) -> String {
    let mut text = format!(
        "switchd {} up {} s, {}, pid {}, dataplane {} ({} restarts), {} workers\n\
         {} networks, {} of {} ports up, {} mirrors\n\
         state in {}, captures in {}\nsandbox: {}\n",
        s.version,
        s.uptime,
        s.mode,
        s.pid,
        s.dataplane_pid,
        s.dataplane_restarts,
        s.workers,
        s.networks,
        s.ports_up,
        s.ports,
        s.mirrors,
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
    if !s.troubles.is_empty() {
        let rows =
            s.troubles.iter().map(|t| vec![t.object.clone(), t.reason.clone(), format!("{} s", t.retry_in)]);
        text += &format!("\n{}", grid(&["NOT UP", "REASON", "NEXT TRY"], rows));
    }
    text
}

pub fn event(e: &Event) -> String {
    let (second, milli) = (e.time / 1_000_000_000, e.time / 1_000_000 % 1000);
    let day = second % 86_400;
    let (hour, minute) = (day / 3600, day / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}.{milli:03}Z {:<18} {:<20} {}", day % 60, e.kind, e.object, e.message)
}

/// One object as `key: value` lines, nested keys joined with dots.
pub fn object<T: Serialize>(value: &T) -> String {
    fn walk(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&key, value, out);
                }
            }
            serde_json::Value::Array(items) => {
                let items: Vec<_> = items.iter().map(plain).collect();
                out.push((prefix.to_owned(), items.join(", ")));
            }
            other => out.push((prefix.to_owned(), plain(other))),
        }
    }
    fn plain(value: &serde_json::Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }
    let mut lines = Vec::new();
    walk("", &serde_json::to_value(value).unwrap_or_default(), &mut lines);
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |all, (key, value)| all + &format!("{key:<width$}  {value}\n"))
}
