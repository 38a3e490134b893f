//! `switchctl top`: load of the workers and rates of the ports, every second.

use crate::args::Output;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::render;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Block, Row, Table};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use switchd_api::reply::{PortStatus, WorkerStatus};

const EVERY: Duration = Duration::from_secs(1);
/// The first figures come sooner.
const FIRST: Duration = Duration::from_millis(250);
/// Keys are looked for this often.
const KEYS: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Sample {
    workers: Vec<WorkerRate>,
    ports: Vec<PortRate>,
}

#[derive(Serialize)]
struct WorkerRate {
    worker: usize,
    load: f64,
    frames_per_second: f64,
    cycles_per_frame: f64,
}

#[derive(Serialize)]
struct PortRate {
    port: String,
    network: String,
    rx_frames_per_second: f64,
    tx_frames_per_second: f64,
    rx_bits_per_second: f64,
    tx_bits_per_second: f64,
    drops_per_second: f64,
}

struct Reading {
    at: Instant,
    workers: Vec<WorkerStatus>,
    ports: Vec<PortStatus>,
}

async fn read(client: &Client) -> Result<Reading, Failure> {
    let workers = client.get("/v1/workers").await?;
    let ports = client.get("/v1/ports").await?;
    Ok(Reading { at: Instant::now(), workers, ports })
}

fn drops(port: &PortStatus) -> u64 {
    port.counters.dropped_in.values().sum::<u64>() + port.counters.dropped_out.values().sum::<u64>()
}

fn sample(before: &Reading, now: &Reading) -> Sample {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-6);
    let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
    let workers = now.workers.iter().map(|w| {
        let old = before.workers.iter().find(|o| o.worker == w.worker);
        let (frames, cycles) = old.map_or((0, 0), |o| (o.frames, o.busy_cycles));
        let new_frames = w.frames.saturating_sub(frames);
        WorkerRate {
            worker: w.worker,
            load: w.load,
            frames_per_second: rate(w.frames, frames),
            cycles_per_frame: w.busy_cycles.saturating_sub(cycles) as f64 / new_frames.max(1) as f64,
        }
    });
    let ports = now.ports.iter().filter_map(|p| {
        let old = before.ports.iter().find(|o| o.name == p.name)?;
        let (new, was) = (&p.counters, &old.counters);
        Some(PortRate {
            port: p.name.clone(),
            network: p.spec.network.to_string(),
            rx_frames_per_second: rate(new.rx_frames, was.rx_frames),
            tx_frames_per_second: rate(new.tx_frames, was.tx_frames),
            rx_bits_per_second: rate(new.rx_bytes, was.rx_bytes) * 8.0,
            tx_bits_per_second: rate(new.tx_bytes, was.tx_bytes) * 8.0,
            drops_per_second: rate(drops(p), drops(old)),
        })
    });
    Sample { workers: workers.collect(), ports: ports.collect() }
}

/// 1234567 → `1.23M`.
fn scaled(value: f64) -> String {
    for (limit, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= limit {
            return format!("{:.2}{unit}", value / limit);
        }
    }
    format!("{value:.0}")
}

const WORKERS: [&str; 4] = ["WORKER", "LOAD", "FRAMES/S", "CYCLES/FRAME"];
const PORTS: [&str; 7] = ["PORT", "NETWORK", "RX FRAMES/S", "TX FRAMES/S", "RX BIT/S", "TX BIT/S", "DROPS/S"];

fn worker_row(w: &WorkerRate) -> Vec<String> {
    let load = format!("{:.1}%", w.load * 100.0);
    vec![w.worker.to_string(), load, scaled(w.frames_per_second), scaled(w.cycles_per_frame)]
}

fn port_row(p: &PortRate) -> Vec<String> {
    let rates = [
        p.rx_frames_per_second,
        p.tx_frames_per_second,
        p.rx_bits_per_second,
        p.tx_bits_per_second,
        p.drops_per_second,
    ];
    let mut row = vec![p.port.clone(), p.network.clone()];
    row.extend(rates.map(scaled));
    row
}

fn plain(sample: &Sample) -> String {
    let workers = render::grid(&WORKERS, sample.workers.iter().map(worker_row));
    format!("{workers}\n{}", render::grid(&PORTS, sample.ports.iter().map(port_row)))
}

pub async fn run(client: &Client, output: Output, count: Option<u32>) -> Result<(), Failure> {
    let structured = !matches!(output, Output::Table | Output::Wide);
    let count = match count {
        None if structured || !std::io::stdout().is_terminal() => Some(1),
        count => count,
    };
    let mut before = read(client).await?;
    if let Some(count) = count {
        for _ in 0..count {
            tokio::time::sleep(EVERY).await;
            let now = read(client).await?;
            let sample = sample(&before, &now);
            render::show(output, &sample, |_| plain(&sample))?;
            before = now;
        }
        return Ok(());
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = screen(client, &mut terminal, before).await;
    ratatui::restore();
    outcome
}

/// True once the user asks to leave. What else is typed is thrown away.
fn leaves() -> Result<bool, Failure> {
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
            if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn until_left() -> Result<(), Failure> {
    while !leaves()? {
        tokio::time::sleep(KEYS).await;
    }
    Ok(())
}

async fn screen(
    client: &Client,
    terminal: &mut ratatui::DefaultTerminal,
    mut before: Reading,
) -> Result<(), Failure> {
    let mut shown = Sample { workers: Vec::new(), ports: Vec::new() };
    let mut pause = FIRST;
    let mut trouble = None;
    loop {
        terminal.draw(|frame| draw(frame, &shown, trouble.as_deref()))?;
        let next = async {
            tokio::time::sleep(pause).await;
            read(client).await
        };
        // A daemon that hangs must not hold up the keys; one that is gone is shown as such, and may come back.
        let reading = tokio::select! {
            reading = next => reading,
            left = until_left() => return left,
        };
        pause = EVERY;
        match reading {
            Ok(now) => {
                shown = sample(&before, &now);
                before = now;
                trouble = None;
            }
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Timeout) => {
                trouble = Some(failure.message().to_owned());
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn draw(frame: &mut ratatui::Frame<'_>, shown: &Sample, trouble: Option<&str>) {
    let height = shown.workers.len() as u16 + 3;
    let [above, below] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(3)]).areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let title = match trouble {
        Some(text) => format!(" no news: {} ", render::harmless(text)),
        None => " switchd: workers ".to_owned(),
    };
    let workers = shown.workers.iter().map(|w| Row::new(worker_row(w)));
    let table = Table::new(workers, [Constraint::Length(14); 4])
        .header(Row::new(WORKERS).style(bold))
        .block(Block::bordered().title(title));
    frame.render_widget(table, above);
    let ports = shown.ports.iter().map(|p| Row::new(port_row(p)));
    let widths = [18, 16, 12, 12, 11, 11, 9].map(Constraint::Length);
    let table = Table::new(ports, widths)
        .header(Row::new(PORTS).style(bold))
        .block(Block::bordered().title(" ports ").title_bottom(" q: quit "));
    frame.render_widget(table, below);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time_and_survive_a_reset() {
        let worker = |frames, busy_cycles| WorkerStatus {
            worker: 0,
            networks: Vec::new(),
            frames,
            busy_cycles,
            bursts: 0,
            sleeps: 0,
            load: 0.5,
        };
        let start = Instant::now();
        let reading = |second, frames, cycles| Reading {
            at: start + Duration::from_secs(second),
            workers: vec![worker(frames, cycles)],
            ports: Vec::new(),
        };
        let rate = &sample(&reading(0, 100, 1000), &reading(2, 300, 9000)).workers[0];
        assert_eq!((rate.frames_per_second, rate.cycles_per_frame), (100.0, 40.0));
        let rate = &sample(&reading(0, 100, 1000), &reading(1, 5, 10)).workers[0];
        assert_eq!((rate.frames_per_second, rate.cycles_per_frame), (0.0, 0.0));
        assert_eq!(["1.23M", "999", "1.00k"], [1_234_567.0, 999.0, 1000.0].map(scaled));
    }
}
