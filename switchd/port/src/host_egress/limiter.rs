//! How many ICMP errors a guest is told (RFC 1812 4.3.2.8 and RFC 4443 2.4 (f) want a limit), and how many echo
//! requests are taken of it: the answers of all guests share one queue of the kernel's.
//!
//! A token bucket for each guest, so that one that has too many takes none of the others'. Bound:
//! [`GUESTS_MAX`] buckets; a full bucket says nothing and is forgotten when room is needed, and guests for
//! whom there is no room share one.

use super::table::NOBODY;
use hashbrown::HashMap;
use switchd_wire::rate::{Bucket, Rate};

/// Errors a second for one guest, and how many at once. Choices, as in the gateway's own.
pub const ERRORS: Rate = Rate { second: 1000, burst: 100 };
/// Echo requests of one guest. A choice.
pub const ECHOES: Rate = Rate { second: 5000, burst: 500 };
const GUESTS_MAX: usize = 1024;
/// Between two looks for buckets that can be forgotten.
const SWEEP_EVERY: u64 = 1_000_000_000;

pub struct Limiter {
    rate: Rate,
    guests: HashMap<u32, Bucket, foldhash::quality::RandomState>,
    swept: u64,
}

impl Limiter {
    pub fn new(rate: Rate) -> Limiter {
        Limiter { rate, guests: HashMap::default(), swept: 0 }
    }

    /// Whether this guest may have one more now.
    pub fn take(&mut self, now: u64, guest: u32) -> bool {
        let (mut guest, rate) = (guest, self.rate);
        if self.guests.len() >= GUESTS_MAX && !self.guests.contains_key(&guest) {
            if now >= self.swept + SWEEP_EVERY {
                self.swept = now;
                self.guests.retain(|_, bucket| !bucket.is_full(now, rate));
            }
            if self.guests.len() >= GUESTS_MAX {
                guest = NOBODY;
            }
        }
        self.guests.entry(guest).or_insert(Bucket::full(now, rate)).take(now, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u64 = ERRORS.burst;
    const STEP: u64 = 1_000_000_000 / ERRORS.second;

    fn granted(limiter: &mut Limiter, now: u64, guest: u32, asked: u64) -> u64 {
        (0..asked).filter(|_| limiter.take(now, guest)).count() as u64
    }

    #[test]
    fn one_guests_errors_are_limited_and_anothers_are_not_touched() {
        let mut limiter = Limiter::new(ERRORS);
        let now = 5_000_000_007;
        assert_eq!(granted(&mut limiter, now, 1, 1000), BURST);
        assert_eq!(granted(&mut limiter, now, 2, 1), 1);
        assert_eq!(granted(&mut limiter, now + 10 * STEP, 1, 1000), 10);
        assert_eq!(granted(&mut limiter, now + 10 * STEP + STEP / 2, 1, 1), 0);
        assert_eq!(granted(&mut limiter, now + 11 * STEP, 1, 9), 1, "halves of a step add up");
        assert_eq!(granted(&mut limiter, now + 60_000_000_000, 1, 1000), BURST);
    }

    #[test]
    fn guests_without_number_cost_bounded_memory_and_have_one_share() {
        let mut limiter = Limiter::new(ERRORS);
        let now = 5_000_000_000;
        for number in 0..GUESTS_MAX as u32 {
            assert!(limiter.take(now, number));
        }
        let shared: u64 = (0..1000).map(|more| granted(&mut limiter, now, 100_000 + more, 1)).sum();
        assert_eq!((shared, limiter.guests.len()), (BURST, GUESTS_MAX + 1));
        assert!(limiter.take(now + SWEEP_EVERY, 200_000));
        assert!(limiter.guests.len() < 5, "what is full again is forgotten");
    }
}
