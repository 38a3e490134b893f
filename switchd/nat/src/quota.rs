//! Who has how many flows, who is refused, and who makes room.
//!
//! A guest has at most `quota` flows. At its quota it may still open one when one of its own transitory
//! flows (unanswered, half open, closing, reset) has been silent for [`GRACE`]: the oldest such goes. When the
//! network's table is full, the oldest transitory flow of anybody goes by the same rule. Otherwise the new flow is
//! refused, counted and told of at most once a second. Flows in use are never evicted.
//!
//! Ports are shared by a moving limit: of each outside address and protocol a guest gets a new port only
//! while it has fewer than are still free. One guest alone can have half of them, two a third each; there
//! is always something left for the next.

use crate::links::List;
use crate::ports::SPACES;
use crate::verdict::NatNotice;

/// Silence after which a transitory flow may make room, in ticks: 10 s.
pub(crate) const GRACE: u32 = 75;
/// Flows that are looked at to find one.
pub(crate) const CANDIDATES: usize = 8;
/// Guests that are told apart; as many as a worker can have ports.
pub const GUESTS_MAX: u32 = 1 << 15;
/// Between two notices of a kind.
const QUIET: u64 = 1_000_000_000;
/// Notices that wait to be taken.
const NOTICES_MAX: usize = 64;

#[derive(Clone, Copy, Default)]
pub(crate) struct Guest {
    pub flows: u32,
    pub transitory: List,
    pub ports: [u32; SPACES],
    refused: u64,
    told: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Guests {
    /// 0: of nobody in particular (opened from outside to a guest that has not been seen).
    all: Vec<Guest>,
    notices: Vec<NatNotice>,
    full: Hush,
    no_port: Hush,
}

/// Counts between two notices.
#[derive(Default)]
struct Hush {
    refused: u64,
    told: Option<u64>,
}

fn is_quiet(told: Option<u64>, now: u64) -> bool {
    told.is_some_and(|told| now.saturating_sub(told) < QUIET)
}

impl Hush {
    /// How many to tell of, if it is time.
    fn another(&mut self, now: u64) -> Option<u64> {
        self.refused += 1;
        if is_quiet(self.told, now) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.refused))
    }
}

impl Guests {
    /// The place of a guest; of nobody for `None`.
    pub fn place(&mut self, guest: Option<u32>) -> u32 {
        let place = guest.map_or(0, |guest| guest.min(GUESTS_MAX - 1) + 1);
        if self.all.len() <= place as usize {
            self.all.resize(place as usize + 1, Guest::default());
        }
        place
    }

    pub fn number(place: u32) -> Option<u32> {
        place.checked_sub(1)
    }

    pub fn at(&mut self, place: u32) -> &mut Guest {
        &mut self.all[place as usize]
    }

    pub fn list(&mut self, place: u32) -> &mut List {
        &mut self.all[place as usize].transitory
    }

    pub fn refused_quota(&mut self, place: u32, now: u64) {
        let guest = &mut self.all[place as usize];
        guest.refused += 1;
        if is_quiet(guest.told, now) || self.notices.len() >= NOTICES_MAX {
            return;
        }
        guest.told = Some(now);
        let refused = std::mem::take(&mut guest.refused);
        self.notices.push(NatNotice::Quota { guest: place.saturating_sub(1), refused });
    }

    pub fn refused_full(&mut self, now: u64) {
        if self.notices.len() < NOTICES_MAX
            && let Some(refused) = self.full.another(now)
        {
            self.notices.push(NatNotice::TableFull { refused });
        }
    }

    pub fn refused_port(&mut self, outside: std::net::IpAddr, now: u64) {
        if self.notices.len() < NOTICES_MAX
            && let Some(refused) = self.no_port.another(now)
        {
            self.notices.push(NatNotice::NoPort { outside, refused });
        }
    }

    pub fn take_notices(&mut self) -> Vec<NatNotice> {
        std::mem::take(&mut self.notices)
    }
}
