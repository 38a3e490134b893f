//! Programs that others wrote, as judges: ping, iperf3, tshark.

use crate::command::{self, Output};
use crate::lab::Space;
use crate::wait::eventually;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub sent: u64,
    pub received: u64,
}

impl Ping {
    pub fn parse(text: &str) -> Option<Ping> {
        let line = text.lines().find(|line| line.contains("packets transmitted"))?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Some(Ping { sent: numbers.next()?, received: numbers.next()? })
    }

    pub fn lost(&self) -> u64 {
        self.sent - self.received.min(self.sent)
    }
}

impl Space {
    /// Sends echo requests at an interval and waits for the answers.
    #[track_caller]
    pub fn pings(&self, to: &str, count: u32, interval: &str) -> Ping {
        let count = count.to_string();
        let mut ping = self.command(&["ping", "-n", "-q", "-c", &count, "-i", interval, "-W", "1", to]);
        let output = command::run(&mut ping, Duration::from_secs(60));
        Ping::parse(&output.text()).unwrap_or_else(|| panic!("ping {to}: {}{}", output.text(), output.stderr))
    }

    /// The other host answers, at the latest after a few tries (ARP, learning).
    #[track_caller]
    pub fn reaches(&self, to: &str) {
        eventually(Duration::from_secs(6), || match self.pings(to, 1, "1").received {
            0 => Err(format!("{} does not reach {to}", self.name())),
            _ => Ok(()),
        });
    }

    #[track_caller]
    pub fn does_not_reach(&self, to: &str) {
        let ping = self.pings(to, 3, "0.1");
        assert_eq!(ping.received, 0, "{} reaches {to}", self.name());
    }

    /// TCP for some seconds to a server in another namespace; returns bits a second as the receiver saw them.
    #[track_caller]
    pub fn tcp(&self, server: &Space, address: &str, seconds: u32, more: &[&str]) -> f64 {
        let listener = server.background(&["iperf3", "-s", "-1", "--forceflush"]);
        eventually(Duration::from_secs(10), || match listener.stdout().contains("listening") {
            true => Ok(()),
            false => Err(format!("iperf3 does not listen: {}{}", listener.stdout(), listener.stderr())),
        });
        let time = seconds.to_string();
        let mut words = vec!["iperf3", "-c", address, "-t", &time, "-J", "--connect-timeout", "5000"];
        words.extend(more);
        let output =
            command::run(&mut self.command(&words), Duration::from_secs(u64::from(seconds) + 20)).ok();
        let report: Value = serde_json::from_str(&output.text()).expect("iperf3 prints JSON");
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.unwrap_or_else(|| panic!("iperf3: {}", output.text()))
    }
}

/// Fields of the packets of a capture, as tshark reads it.
#[track_caller]
pub fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let output = tshark_raw(file, filter, fields).ok();
    output.text().lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[track_caller]
pub fn tshark_raw(file: &Path, filter: &str, fields: &[&str]) -> Output {
    let mut tshark = command::command(&["tshark", "-n", "-r"]);
    tshark.arg(file).args(["-T", "fields"]);
    if !filter.is_empty() {
        tshark.args(["-Y", filter]);
    }
    fields.iter().for_each(|field| {
        tshark.args(["-e", field]);
    });
    command::run(&mut tshark, Duration::from_secs(60))
}
