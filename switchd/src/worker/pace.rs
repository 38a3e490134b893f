//! When a worker sleeps.
//!
//! Waking from `epoll_wait` costs tens of microseconds, so after the last frame a worker looks for more for
//! a while before it sleeps. It must not take a processor from the guests that are to send those frames:
//! while it spins it yields, and a yield that takes long tells that somebody else was waiting for this
//! processor. From then on it sleeps as soon as there is nothing to do (a sleeper that wakes is run at once,
//! thanks to its short time slices; one that yielded waits for the others), and tries again after a while:
//! 20 ms at first, twice as long after each failure, a second at most. An idle worker sleeps without end.

/// How long a worker looks for more after the last frame.
pub const SPIN: u64 = 5_000_000;
/// A yield that took longer than this let somebody run who has much to do. (What comes for a moment, a
/// guest that takes one frame or a thread of the kernel, is gone sooner.)
const CONTENDED: u64 = 300_000;
/// First and longest time without spinning after a contended yield.
const HOLD: (u64, u64) = (20_000_000, 1_000_000_000);

pub struct Pace {
    busy_poll: bool,
    spin_until: u64,
    hold_until: u64,
    hold: u64,
}

impl Pace {
    pub fn new(busy_poll: bool) -> Pace {
        Pace { busy_poll, spin_until: 0, hold_until: 0, hold: HOLD.0 }
    }

    /// A burst held frames.
    pub fn worked(&mut self, now: u64) {
        self.spin_until = now + SPIN;
    }

    /// A yield lasted from `before` to `after`.
    pub fn yielded(&mut self, before: u64, after: u64) {
        if after.saturating_sub(before) > CONTENDED {
            self.hold_until = after + self.hold;
            self.hold = (self.hold * 2).min(HOLD.1);
        } else if after > self.hold_until + 2 * self.hold {
            // The processor has been ours for a good while.
            self.hold = HOLD.0;
        }
    }

    pub fn may_spin(&self, now: u64) -> bool {
        self.busy_poll || (now < self.spin_until && now >= self.hold_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_after_a_frame_for_a_bounded_time() {
        let mut pace = Pace::new(false);
        assert!(!pace.may_spin(0));
        pace.worked(1_000);
        assert!(pace.may_spin(1_000 + SPIN - 1));
        assert!(!pace.may_spin(1_000 + SPIN));
    }

    #[test]
    fn a_contended_yield_ends_the_spin_for_a_time_that_doubles() {
        let mut pace = Pace::new(false);
        let mut now = 0;
        for hold in [HOLD.0, HOLD.0 * 2, HOLD.0 * 4] {
            pace.worked(now);
            assert!(pace.may_spin(now));
            pace.yielded(now, now + CONTENDED + 1);
            now += CONTENDED + 1;
            pace.worked(now + hold - 1);
            assert!(!pace.may_spin(now + hold - 1), "frames do not bring the spin back before {hold}");
            now += hold;
        }
    }

    #[test]
    fn a_processor_that_is_free_again_is_trusted_again() {
        let mut pace = Pace::new(false);
        pace.yielded(0, CONTENDED + 1);
        let later = CONTENDED + 1 + 6 * HOLD.0;
        pace.worked(later);
        pace.yielded(later, later + 100);
        pace.yielded(later + 200, later + 200 + CONTENDED + 1);
        assert_eq!(pace.hold_until, later + 201 + CONTENDED + HOLD.0);
    }

    #[test]
    fn busy_poll_never_sleeps() {
        let mut pace = Pace::new(true);
        pace.yielded(0, u64::MAX / 2);
        assert!(pace.may_spin(u64::MAX));
    }
}
