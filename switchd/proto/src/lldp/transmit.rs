//! Transmit state machine and transmit timers (802.1AB-2016 9.2.8, 9.2.10).

use super::SECOND;

/// msgTxInterval.
const INTERVAL: u64 = 30 * SECOND;
/// msgFastTx.
const FAST_INTERVAL: u64 = SECOND;
/// txFastInit: frames of the fast start.
const FAST_FRAMES: u8 = 4;
/// txCreditMax: frames that may leave at once; one more a second.
const CREDIT_MAX: u8 = 5;

#[derive(Default)]
pub(super) struct Transmit {
    up: bool,
    /// txTTR: when the next frame is due.
    due: Option<u64>,
    /// txFast: frames left at the fast rate.
    fast: u8,
    credit: u8,
    /// When the credit grows.
    tick: Option<u64>,
    /// localChange.
    changed: bool,
}

impl Transmit {
    pub fn set_link(&mut self, now: u64, up: bool) {
        if std::mem::replace(&mut self.up, up) == up {
            return;
        }
        *self = Transmit { up, ..Transmit::default() };
        if up {
            self.credit = CREDIT_MAX;
            self.due = Some(now);
        }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn changed(&mut self) {
        self.changed = true;
    }

    pub fn new_neighbor(&mut self, now: u64) {
        if self.up && self.fast == 0 {
            self.fast = FAST_FRAMES;
            self.due = Some(now);
        }
    }

    /// True when a frame is to leave; called until it says false.
    pub fn run(&mut self, now: u64) -> bool {
        if !self.up {
            self.changed = false;
            return false;
        }
        while let Some(tick) = self.tick.filter(|tick| now >= *tick) {
            self.credit += 1;
            self.tick = (self.credit < CREDIT_MAX).then_some(tick + SECOND);
        }
        let due = self.due.is_some_and(|at| now >= at);
        if (!due && !self.changed) || self.credit == 0 {
            return false;
        }
        self.changed = false;
        self.credit -= 1;
        self.tick = self.tick.or(Some(now + SECOND));
        if due {
            self.fast = self.fast.saturating_sub(1);
        }
        self.due = Some(now + if self.fast > 0 { FAST_INTERVAL } else { INTERVAL });
        true
    }

    pub fn next(&self) -> Option<u64> {
        // Without credit nothing is due before there is some.
        let due = if self.credit == 0 { self.tick } else { self.due };
        // Credit that nobody waits for is counted when the next frame leaves.
        due.filter(|_| self.up)
    }
}
