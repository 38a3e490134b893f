//! Storm control: how many frames a second a guest's port may flood.
//!
//! Broadcast, multicast and unknown unicast count together, one a frame whatever it becomes (a superframe
//! is one). The limit is a rate with room for a burst of a quarter of a second's worth, so a storm is cut
//! within that time, and what the limit allows goes on. Told once; told again when the port had been without
//! a cut frame for [`QUIET`].

use crate::config::PortConfig;

const SECOND: u64 = 1_000_000_000;
/// Frames ahead of the rate, as time.
const BURST: u64 = SECOND / 4;
pub const QUIET: u64 = 10 * SECOND;

#[derive(Clone, Copy, Default)]
pub(crate) struct Storm {
    limit: u32,
    /// Time a frame takes at the limit; 0: no limit.
    cost: u64,
    /// When the frames let through would have come at the rate of the limit.
    due: u64,
    /// The last frame that was cut; 0: none yet.
    cut: u64,
}

/// What becomes of a frame that would flood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Pass,
    Cut,
    /// Cut, the first one of a storm.
    Began,
}

impl Storm {
    pub fn new(config: &PortConfig) -> Storm {
        let limit = config.storm_limit.unwrap_or(0);
        let cost = SECOND.checked_div(limit.into()).unwrap_or(0);
        Storm { limit, cost, due: 0, cut: 0 }
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    #[inline]
    pub fn judge(&mut self, now: u64) -> Verdict {
        if self.cost == 0 {
            return Verdict::Pass;
        }
        let due = self.due.max(now) + self.cost;
        if due - now <= BURST.max(self.cost) {
            self.due = due;
            return Verdict::Pass;
        }
        let quiet = self.cut == 0 || now.saturating_sub(self.cut) >= QUIET;
        self.cut = now;
        if quiet { Verdict::Began } else { Verdict::Cut }
    }
}
