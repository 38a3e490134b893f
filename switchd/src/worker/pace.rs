//! When a worker sleeps.
//!
//! Waking from `epoll_wait` costs tens of microseconds, so after the last frame a worker looks for more for
//! a while before it sleeps. It must not take a processor from the guests that are to send those frames:
//! while it spins it yields, and when a yield takes long, somebody else was waiting for this processor, so
//! it stops spinning until the next frame. An idle worker sleeps without end.

/// How long a worker looks for more after the last frame.
pub const SPIN: u64 = 5_000_000;
/// A yield that took longer than this let somebody else run.
const CONTENDED: u64 = 15_000;

#[derive(Default)]
pub struct Pace {
    busy_poll: bool,
    spin_until: u64,
}

impl Pace {
    pub fn new(busy_poll: bool) -> Pace {
        Pace { busy_poll, spin_until: 0 }
    }

    /// A burst held frames.
    pub fn worked(&mut self, now: u64) {
        self.spin_until = now + SPIN;
    }

    /// A yield lasted from `before` to `after`.
    pub fn yielded(&mut self, before: u64, after: u64) {
        if after.saturating_sub(before) > CONTENDED {
            self.spin_until = 0;
        }
    }

    pub fn may_spin(&self, now: u64) -> bool {
        self.busy_poll || now < self.spin_until
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
    fn a_contended_yield_ends_the_spin_until_the_next_frame() {
        let mut pace = Pace::new(false);
        pace.worked(0);
        pace.yielded(10, 20);
        assert!(pace.may_spin(30));
        pace.yielded(30, 31 + CONTENDED);
        assert!(!pace.may_spin(31 + CONTENDED));
        pace.worked(50_000);
        assert!(pace.may_spin(60_000));
    }

    #[test]
    fn busy_poll_never_sleeps() {
        let mut pace = Pace::new(true);
        pace.yielded(0, u64::MAX);
        assert!(pace.may_spin(u64::MAX));
    }
}
