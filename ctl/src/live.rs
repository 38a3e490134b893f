//! What goes on until it is stopped: captures and events.

use crate::args::{Capture, Output};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::render;
use http_body_util::BodyExt;
use hyper::Method;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;
use switchd_api::reply::{DropRow, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// After Ctrl-C each next piece of a capture is waited for this long; a second Ctrl-C does not wait.
const REST: Duration = Duration::from_secs(5);
/// What follows sooner is the same Ctrl-C: timeout(1) sends its signal twice.
const ECHO: Duration = Duration::from_millis(300);

/// Streams pcapng to a file or to standard output until the count is reached, the reader goes, or Ctrl-C. Ctrl-C
/// has the daemon end the capture in order, so that its last statistics are in the file.
pub async fn capture(client: &Client, capture: Capture, quiet: bool) -> Result<(), Failure> {
    let Capture { source, filter, write, count, snaplen, direction, segment } = capture;
    let to_stdout = write == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Failed, "a capture is binary and standard output is a terminal")
            .hint("-w FILE, or `| wireshark -k -i -`, or `| tshark -r -`"));
    }
    if !to_stdout {
        check(&write)?;
    }
    let mut request = json!({ "source": source });
    if !filter.is_empty() {
        request["filter"] = json!(filter.join(" "));
    }
    for (key, value) in
        [("snaplen", json!(snaplen)), ("count", json!(count)), ("direction", json!(direction))]
    {
        if !value.is_null() {
            request[key] = value;
        }
    }
    if segment {
        request["segment"] = json!(true);
    }
    let body = request.to_string();
    let response = client.open(Method::POST, "/v1/capture", None, body.as_bytes()).await?;
    let mut out: Box<dyn Write> =
        if to_stdout { Box::new(std::io::stdout()) } else { Box::new(open(&write)?) };
    let location =
        response.headers().get("content-location").and_then(|at| at.to_str().ok()).map(str::to_owned);
    let mut stream = response.into_body();
    let (mut tally, mut pending) = (Tally::default(), Vec::new());
    // Made once: a Ctrl-C while a slow reader holds up a write is not forgotten.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut patience, mut asked) = (None, None::<Instant>);
    loop {
        let step = tokio::select! {
            biased;
            _ = interrupt.recv() => Err(()),
            _ = terminate.recv() => Err(()),
            frame = stream.frame() => Ok(frame),
            () = until(patience) => break,
            () = reader_goes(), if to_stdout => return Ok(()),
        };
        let Ok(frame) = step else {
            if asked.is_some_and(|asked| asked.elapsed() < ECHO) {
                continue;
            }
            let Some(location) = location.as_deref().filter(|_| asked.is_none()) else { break };
            asked = Some(Instant::now());
            let stopped = tokio::time::timeout(REST, client.call(Method::DELETE, location, None, &[])).await;
            if !matches!(stopped, Ok(Ok(_))) {
                break;
            }
            patience = Some(Instant::now() + REST);
            continue;
        };
        let Some(frame) = frame else { break };
        patience = patience.map(|_| Instant::now() + REST);
        let frame = frame.map_err(Failure::broken)?;
        let Some(data) = frame.data_ref() else { continue };
        pending.extend_from_slice(data);
        // Whole blocks only: however the capture ends, the file is whole.
        let whole = whole_blocks(&pending);
        let written = out.write_all(&pending[..whole]).and_then(|()| out.flush());
        tally.add(&pending[..whole]);
        pending.drain(..whole);
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
    if !quiet && !to_stdout {
        eprintln!("{tally}, {} bytes in {}", tally.bytes, write.display());
    } else if !quiet && tally.lost() > 0 {
        eprintln!("{tally}");
    }
    Ok(())
}

/// Sleeps, for ever without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What a stream of pcapng blocks has brought.
#[derive(Default)]
struct Tally {
    bytes: u64,
    packets: u64,
    /// By interface, as the last statistics told.
    dropped: HashMap<u32, u64>,
}

impl Tally {
    const STATISTICS: u32 = 5;
    const PACKET: u32 = 6;
    const IFDROP: u16 = 5;

    /// Whole blocks, in our byte order.
    fn add(&mut self, mut blocks: &[u8]) {
        self.bytes += blocks.len() as u64;
        let number = |bytes: &[u8], at: usize| -> Option<u32> {
            bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
        };
        while let (Some(kind), Some(length)) = (number(blocks, 0), number(blocks, 4)) {
            let Some((block, rest)) = blocks.split_at_checked((length as usize).max(12)) else { return };
            blocks = rest;
            match (kind, number(block, 8)) {
                (Tally::PACKET, _) => self.packets += 1,
                (Tally::STATISTICS, Some(interface)) => {
                    // Behind the interface's number and a time stand the options; the length again ends the block.
                    let options = block.get(20..block.len() - 4).unwrap_or_default();
                    if let Some(dropped) = Tally::option(options, Tally::IFDROP) {
                        self.dropped.insert(interface, dropped);
                    }
                }
                _ => {}
            }
        }
    }

    /// A number of eight bytes among options, each of which is padded to four.
    fn option(mut options: &[u8], wanted: u16) -> Option<u64> {
        while let Some(([a, b, c, d], rest)) = options.split_first_chunk() {
            let (code, length) = (u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d]) as usize);
            if code == wanted {
                return rest.get(..length)?.try_into().ok().map(u64::from_ne_bytes);
            }
            options = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }

    fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} packets, {} lost", self.packets, self.lost())
    }
}

/// Length of the complete pcapng blocks at the beginning of `bytes`. A block has its length behind its type,
/// in the byte order of the daemon, which is ours. What cannot be a block is passed on as it is.
fn whole_blocks(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[.., a, b, c, d]) = bytes.get(at..at + 8) {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        if length < 12 {
            return bytes.len();
        }
        if bytes.len() - at < length {
            break;
        }
        at += length;
    }
    at
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// A pcapng file may be appended to (a new section); anything else that holds bytes is left alone.
fn check(path: &Path) -> Result<(), Failure> {
    const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    let known = std::fs::metadata(path).ok();
    if known.is_some_and(|known| known.is_file() && known.len() > 0) {
        let mut start = Vec::new();
        File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(named(path))?;
        if start != SECTION_HEADER {
            let text = format!("{}: there is such a file, and it is not pcapng", path.display());
            return Err(Failure::new(Exit::Failed, text).hint("-w with another name"));
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Failure> {
    File::options().append(true).create(true).open(path).map_err(named(path))
}

/// True when standard output is a pipe or socket whose reader has gone: nothing that is written would arrive.
fn reader_has_gone() -> bool {
    let stdout = std::io::stdout();
    let mut ask = [PollFd::new(&stdout, PollFlags::empty())];
    rustix::event::poll(&mut ask, Some(&Timespec::default())).is_ok()
        && ask[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Returns when the reader has gone; it is looked for a few times a second.
async fn reader_goes() {
    while !reader_has_gone() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits; true when the reader has gone meanwhile.
pub async fn reader_goes_within(time: Duration) -> bool {
    tokio::time::timeout(time, reader_goes()).await.is_ok()
}

/// Prints what the daemon remembers; with `watch`, goes on.
pub async fn events(client: &Client, output: Output, watch: bool) -> Result<(), Failure> {
    if !watch {
        let list: Vec<Event> = client.get("/v1/events?follow=0").await?;
        return render::show(output, &list, |_| {
            list.iter().fold(String::new(), |all, event| all + &render::event(event) + "\n")
        });
    }
    let response = client.open(Method::GET, "/v1/events?since=0&follow=1", None, &[]).await?;
    let mut stream = response.into_body();
    let mut pending = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = stream.frame() => frame,
            () = reader_goes() => return Ok(()),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(Failure::broken)?;
        let Some(data) = frame.data_ref() else { continue };
        pending.extend_from_slice(data);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            // Server-sent events: only the data lines carry anything for us.
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let Ok(event) = serde_json::from_slice::<Event>(data.trim_ascii()) else { continue };
            match output {
                Output::Json => {
                    let line = serde_json::to_string(&event).map_err(std::io::Error::from)?;
                    render::print(&(line + "\n"))?;
                }
                Output::Yaml => render::show(output, &vec![event], |_| String::new())?,
                _ => render::print(&(render::event(&event) + "\n"))?,
            }
        }
    }
    Err(Failure::new(Exit::Unreachable, "the daemon ended the stream of events")
        .hint("switchctl status --wait 30s"))
}

/// The rows that grew, with what was added.
pub fn added(before: &[DropRow], now: &[DropRow]) -> Vec<DropRow> {
    type RowKey<'a> = (&'a str, &'a str, &'a str);
    fn key(row: &DropRow) -> RowKey<'_> {
        (&row.port, &row.direction, &row.reason)
    }
    let old: HashMap<RowKey<'_>, u64> = before.iter().map(|row| (key(row), row.frames)).collect();
    now.iter()
        .filter_map(|row| {
            let frames = row.frames.saturating_sub(old.get(&key(row)).copied().unwrap_or(0));
            (frames > 0).then(|| DropRow { frames, ..row.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_written_in_whole_blocks() {
        let block = |length: u32| {
            [&6u32.to_ne_bytes()[..], &length.to_ne_bytes(), &vec![0; length as usize - 8]].concat()
        };
        let bytes = [block(12), block(32), block(16)].concat();
        for (end, whole) in
            [(0, 0), (7, 0), (8, 0), (11, 0), (12, 12), (43, 12), (44, 44), (59, 44), (60, 60)]
        {
            assert_eq!(whole_blocks(&bytes[..end]), whole, "of {end} bytes");
        }
        assert_eq!(whole_blocks(&[1; 20]), 0);
        assert_eq!(whole_blocks(&[0; 20]), 20);
    }

    #[test]
    fn packets_and_losses_are_taken_from_the_blocks() {
        let block = |kind: u32, body: &[u8]| {
            let length = (12 + body.len() as u32).to_ne_bytes();
            [&kind.to_ne_bytes()[..], &length, body, &length].concat()
        };
        let option = |code: u16, value: &[u8]| {
            let mut option = [&code.to_ne_bytes()[..], &(value.len() as u16).to_ne_bytes(), value].concat();
            option.resize(option.len().next_multiple_of(4), 0);
            option
        };
        let statistics = |interface: u32, dropped: u64| {
            let options = [option(1, b"noted"), option(5, &dropped.to_ne_bytes()), option(0, b"")].concat();
            block(5, &[&interface.to_ne_bytes()[..], &[0; 8], &options].concat())
        };
        let mut tally = Tally::default();
        tally.add(&[block(0x0a0d_0d0a, &[0; 16]), block(6, &[0; 40]), statistics(0, 3)].concat());
        tally.add(&[statistics(1, 4), block(6, &[0; 8]), block(6, &[0; 8]), statistics(0, 5)].concat());
        assert_eq!(tally.to_string(), "3 packets, 9 lost");
        // Nonsense neither ends the program nor holds it up.
        for nonsense in [&[5u8; 40][..], &[0; 40], &block(5, &[1, 0, 0, 0])[..], &[6, 0, 0]] {
            tally.add(nonsense);
        }
        assert_eq!(tally.lost(), 9);
    }

    #[test]
    fn only_what_was_added_is_shown() {
        let row = |reason: &str, frames| DropRow {
            network: "lab".into(),
            port: "vm1".into(),
            direction: "in".into(),
            reason: reason.into(),
            frames,
            meaning: String::new(),
        };
        let added =
            added(&[row("runt", 3), row("too-long", 1)], &[row("runt", 5), row("too-long", 1), row("x", 2)]);
        assert_eq!(added, [row("runt", 2), row("x", 2)]);
    }
}
