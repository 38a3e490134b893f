//! What happened, for `switchctl events` and the events stream.
//!
//! The last [`KEPT`] events are kept; a listener that falls further behind sees a gap in the numbers.
//! Numbers begin at 1 with the broker; a dataplane that is started again goes on behind those of the last
//! one ([`super::carry`]).

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use switchd_api::reply::Event;
use tokio::sync::broadcast;
use tracing::Level;

/// Events that are kept for those who come later, and that a slow listener may lag behind.
pub const KEPT: usize = 1024;

pub struct Events {
    kept: VecDeque<Event>,
    last: u64,
    listeners: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Events {
        Events { kept: VecDeque::with_capacity(64), last: 0, listeners: broadcast::channel(KEPT).0 }
    }
}

impl Events {
    /// `message` is for people; of one that is empty the kind has to do.
    pub fn tell(&mut self, kind: &str, object: impl Into<String>, message: impl Into<String>) {
        self.last += 1;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let mut message = message.into();
        if message.is_empty() {
            message = kind.replace(['.', '-'], " ");
        }
        let event = Event { seq: self.last, time, kind: kind.to_owned(), object: object.into(), message };
        let Event { kind, object, message, .. } = &event;
        match level(kind) {
            Level::ERROR => tracing::error!(kind, object, "{message}"),
            Level::WARN => tracing::warn!(kind, object, "{message}"),
            _ => tracing::info!(kind, object, "{message}"),
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        // Nobody may be listening.
        let _ = self.listeners.send(event);
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next event's number is above this one.
    pub fn go_on_from(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    pub fn since(&self, seq: Option<u64>) -> Vec<Event> {
        self.kept.iter().filter(|event| seq.is_none_or(|seq| event.seq > seq)).cloned().collect()
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.listeners.subscribe()
    }
}

/// How the log tells it. An error: something of ours was lost or has failed. A warning: something does not work,
/// was refused or is full, and somebody may have to act. The rest is the course of things.
fn level(kind: &str) -> Level {
    match kind {
        "state.damaged" | "services.failed" | "leases.failing" | "port.panicked" => Level::ERROR,
        "broker.refused" | "worker.refused" => Level::WARN,
        "config.differs" | "config.failed" | "config.rolled-back" => Level::WARN,
        "network.conflict" | "network.no-ping" | "mirror.failing" | "outside.lost" => Level::WARN,
        "port.shut" | "port.storm" | "bond.churn" | "fdb.full" => Level::WARN,
        "nat.conflict" | "nat.full" | "nat.no-port" | "nat.quota" => Level::WARN,
        "lease.declined" | "lease.in-use" | "lease.pool-full" | "lease.port-full" => Level::WARN,
        "network.down" | "uplink.down" | "member.down" | "port.down" | "forward.down" => Level::WARN,
        "bond.down" | "bond.member-down" | "bond.peer-down" => Level::WARN,
        _ => Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_forgotten_and_numbers_have_no_gap() {
        let mut events = Events::default();
        for number in 0..KEPT + 5 {
            events.tell("test", "network n", number.to_string());
        }
        let kept = events.since(None);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].seq, 6);
        assert!(kept.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    }

    #[test]
    fn since_gives_only_newer_events() {
        let mut events = Events::default();
        for _ in 0..4 {
            events.tell("test", "network n", "text");
        }
        let seqs: Vec<u64> = events.since(Some(2)).iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [3, 4]);
    }

    #[test]
    fn a_listener_hears_what_comes_after_it_subscribed() {
        let mut events = Events::default();
        events.tell("test", "network n", "before");
        let mut listener = events.subscribe();
        events.tell("test", "network n", "after");
        assert_eq!(listener.try_recv().unwrap().message, "after");
        assert!(listener.try_recv().is_err());
    }
}
