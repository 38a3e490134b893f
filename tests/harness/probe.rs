//! Numbered datagrams at a steady rate: what is lost, doubled or overtaken while something fails.

use crate::command::Background;
use crate::lab::Space;
use crate::wait::eventually;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const HELPER: &str = include_str!("probe.py");
const PORT: &str = "7100";
const SOON: Duration = Duration::from_secs(10);

/// A stretch of time as the prober saw it.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub sent: u64,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Between two answers of one flow, in ms.
    pub gap: u64,
}

pub struct Probe {
    prober: Background,
    _echo: Background,
    told: usize,
}

impl Probe {
    /// A thousand a second to a server in the other namespace, in a number of flows.
    #[track_caller]
    pub fn start(from: &Space, to: &Space, address: &str, flows: u32) -> Probe {
        Probe::at_rate(from, to, address, flows, 1000)
    }

    #[track_caller]
    pub fn at_rate(from: &Space, to: &Space, address: &str, flows: u32, rate: u32) -> Probe {
        let echo = to.background(&["python3", "-c", HELPER, "echo", address, PORT]);
        ready(&echo);
        let (rate, flows) = (rate.to_string(), flows.to_string());
        let mut prober = from.command(&["python3", "-c", HELPER, "probe", address, PORT, &rate, &flows]);
        let prober = Background::start(prober.stdin(Stdio::piped()));
        ready(&prober);
        let mut probe = Probe { prober, _echo: echo, told: 0 };
        // What ARP cost is not counted.
        std::thread::sleep(Duration::from_millis(200));
        probe.stretch();
        probe
    }

    /// What happened since the last stretch, without the last 0.3 s, which belong to the next one.
    #[track_caller]
    pub fn stretch(&mut self) -> Stretch {
        let stdin = self.prober.child().stdin.as_mut().expect("a pipe");
        stdin.write_all(b"\n").and_then(|()| stdin.flush()).expect("the prober listens");
        self.told += 1;
        eventually(SOON, || {
            let text = self.prober.stdout();
            // The first line says "ready".
            let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let line = complete.lines().nth(self.told).ok_or("the prober says nothing")?;
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let &[sent, lost, doubled, reordered, gap] = &numbers[..] else { return Err(line.to_owned()) };
            Ok(Stretch { sent, lost, doubled, reordered, gap })
        })
    }

    /// Waits for a stretch without loss. How long that takes is up to the machine as much as to the switches.
    #[track_caller]
    pub fn recovers(&mut self) {
        eventually(2 * SOON, || match self.stretch() {
            calm if calm.sent > 0 && (calm.lost, calm.doubled) == (0, 0) => Ok(()),
            lossy => Err(format!("frames are still lost: {lossy:?}")),
        });
    }
}

#[track_caller]
fn ready(program: &Background) {
    eventually(SOON, || match program.stdout().starts_with("ready") {
        true => Ok(()),
        false => Err(format!("the probe is not ready: {}", program.stderr())),
    });
}
