//! How busy workers are: the share of the time between two looks that they spent on bursts with frames.
//!
//! Nothing is sampled while nobody asks. A look within [`LEAST`] of the one before shows the same share.

use std::time::{Duration, Instant};

const LEAST: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    busy: Duration,
    share: f64,
}

#[derive(Default, Debug)]
pub struct Load(Vec<Option<Look>>);

impl Load {
    /// `busy`: the worker's total so far. Returns 0–1.
    pub fn look(&mut self, worker: usize, busy: Duration, started: Instant, now: Instant) -> f64 {
        if self.0.len() <= worker {
            self.0.resize(worker + 1, None);
        }
        let before = self.0[worker].unwrap_or(Look { at: started, busy: Duration::ZERO, share: 0.0 });
        let time = now.saturating_duration_since(before.at);
        if time < LEAST {
            return before.share;
        }
        let spent = busy.saturating_sub(before.busy);
        let share = (spent.as_secs_f64() / time.as_secs_f64()).min(1.0);
        self.0[worker] = Some(Look { at: now, busy, share });
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_time_since_the_last_look() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let busy = Duration::from_millis;
        let mut load = Load::default();
        assert_eq!(load.look(0, busy(500), start, at(1000)), 0.5);
        assert_eq!(load.look(0, busy(600), start, at(1100)), 0.5, "too soon for a new one");
        assert_eq!(load.look(0, busy(1500), start, at(2000)), 1.0);
        assert_eq!(load.look(1, busy(0), start, at(2000)), 0.0);
        assert_eq!(load.look(0, busy(1500), start, at(3000)), 0.0);
    }
}
