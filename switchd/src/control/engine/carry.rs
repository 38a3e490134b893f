//! What the engine itself leaves for the next dataplane: the number of the last event, and members' numbers.
//!
//! Numbers of events are reserved in blocks, so that not every event costs a message: after a crash the
//! numbers go on behind the block, and the gap says that events were lost, which they are.

use super::Engine;
use super::teams::Numbers;
use serde::{Deserialize, Serialize};

const KEY: &str = "engine";
/// Numbers reserved ahead.
const BLOCK: u64 = 1024;

#[derive(Default, Serialize, Deserialize)]
struct Carried {
    /// No event has a number above it.
    events: u64,
    numbers: Numbers,
}

impl Engine {
    /// At the start: what the last dataplane has left.
    pub(super) fn take_up(&mut self) {
        let kept = match self.means.broker.kept(KEY) {
            Ok(kept) => kept,
            Err(refused) => {
                self.events.tell("broker.refused", "switchd", refused.message);
                None
            }
        };
        // Of another version it may be unreadable: then numbers begin anew.
        let carried = kept.and_then(|bytes| postcard::from_bytes::<Carried>(&bytes).ok()).unwrap_or_default();
        self.events.go_on_from(carried.events);
        self.numbers = carried.numbers;
        self.hand_down();
    }

    /// When it is time.
    pub(super) fn hand_down_if_due(&mut self) {
        if self.numbers_changed || self.events.last() + BLOCK / 2 > self.reserved {
            self.hand_down();
        }
    }

    fn hand_down(&mut self) {
        self.numbers_changed = false;
        self.reserved = self.events.last() + BLOCK;
        let carried = Carried { events: self.reserved, numbers: self.numbers.clone() };
        let left = match postcard::to_stdvec(&carried) {
            Ok(bytes) => self.means.broker.keep(KEY, &bytes).map_err(|refused| refused.message),
            Err(error) => Err(error.to_string()),
        };
        if let Err(message) = left {
            tracing::warn!("nothing could be left for a next dataplane: {message}");
        }
    }
}
