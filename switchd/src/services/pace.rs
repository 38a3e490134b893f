//! How many messages a guest's port may have answered in a second, where each can cost a write to the disk.
//!
//! A token bucket for each port, of [`MESSAGES`]. That is several times what a relay with
//! hundreds of clients sends, and a fraction of what the disk takes, so one guest that asks and gives back
//! without end does not keep the others' leases waiting.

use crate::worker::command::Key;
use std::collections::HashMap;
use switchd_wire::rate::{Bucket, Rate};

pub const MESSAGES: Rate = Rate { second: 1000, burst: 1000 };
/// Ports whose buckets are kept; full ones are forgotten beyond it.
const PORTS: usize = 4096;

#[derive(Default)]
pub struct Pace {
    of: HashMap<Key, Bucket>,
    pub refused: u64,
}

impl Pace {
    pub fn admit(&mut self, now: u64, port: &Key) -> bool {
        if self.of.len() >= PORTS && !self.of.contains_key(port) {
            self.of.retain(|_, bucket| !bucket.is_full(now, MESSAGES));
        }
        let bucket = self.of.entry(port.clone()).or_insert(Bucket::full(now, MESSAGES));
        let admitted = bucket.take(now, MESSAGES);
        self.refused += u64::from(!admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_proto::dhcp::SECOND;

    const BURST: u64 = MESSAGES.burst;
    const RATE: u64 = MESSAGES.second;
    const STEP: u64 = SECOND / RATE;

    #[test]
    fn one_port_is_held_back_and_the_others_are_not() {
        let mut pace = Pace::default();
        let now = 7 * SECOND;
        let (greedy, other): (Key, Key) = ("greedy".into(), "vm2".into());
        assert_eq!((0..5000).filter(|_| pace.admit(now, &greedy)).count() as u64, BURST);
        assert_eq!(pace.refused, 5000 - BURST);
        assert!((0..100).all(|_| pace.admit(now, &other)));
        assert_eq!((0..5000).filter(|_| pace.admit(now + SECOND / 10, &greedy)).count() as u64, RATE / 10);
        for number in 0..PORTS {
            assert!(pace.admit(now + number as u64 * STEP, &format!("p{number}").into()));
        }
        pace.admit(now + 10 * SECOND, &"last".into());
        assert!(pace.of.len() < 10, "buckets that are full say nothing");
    }
}
