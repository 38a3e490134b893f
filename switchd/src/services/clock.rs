//! The services' clocks: nanoseconds that only grow, and the real time that leases are written in.
//!
//! The monotonic one begins far from zero, so that what was before the start has a time too.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use switchd_proto::dhcp::SECOND;

/// Sixty years.
const BEGIN: u64 = 60 * 365 * 86_400 * SECOND;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

/// One moment by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic, nanoseconds.
    pub mono: u64,
    /// Seconds since 1970.
    pub real: u64,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { began: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Now { mono: BEGIN + self.began.elapsed().as_nanos() as u64, real }
    }

    /// The same moment for tokio's timers.
    pub fn instant(&self, mono: u64) -> Instant {
        self.began + std::time::Duration::from_nanos(mono.saturating_sub(BEGIN))
    }
}

impl Now {
    /// Seconds of the real clock at a monotonic time, rounded up.
    pub fn to_real(self, mono: u64) -> u64 {
        match mono.checked_sub(self.mono) {
            Some(ahead) => self.real + ahead.div_ceil(SECOND),
            None => self.real.saturating_sub((self.mono - mono) / SECOND),
        }
    }

    /// The monotonic time of a second of the real clock, at most `longest` seconds ahead.
    pub fn to_mono(self, real: u64, longest: u64) -> u64 {
        match real.checked_sub(self.real) {
            Some(ahead) => self.mono.saturating_add(ahead.min(longest).saturating_mul(SECOND)),
            None => self.mono.saturating_sub((self.real - real).saturating_mul(SECOND)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_put_back_makes_no_lease_longer() {
        let now = Now { mono: BEGIN, real: 1_000_000 };
        assert_eq!(now.to_mono(1_000_060, 3600), BEGIN + 60 * SECOND);
        assert_eq!(now.to_mono(9_000_000, 3600), BEGIN + 3600 * SECOND);
        assert_eq!(now.to_mono(999_000, 3600), BEGIN - 1000 * SECOND);
        assert_eq!(now.to_real(now.to_mono(1_000_060, 3600)), 1_000_060);
        assert_eq!(now.to_real(BEGIN + 1), 1_000_001);
    }
}
