//! When flows are looked at again.
//!
//! Time is counted in ticks of 2^27 ns (134 ms), which 32 bits hold for 18 years. A wheel of [`TURN`] ticks
//! holds each flow once, at the tick at which it may be over. Frames do not move a flow: its record says
//! when it was last used, and a flow that is found alive when its tick comes is put where it belongs by
//! then. Only a state with a shorter time moves a flow at once. Times beyond a turn of the wheel (18 minutes)
//! take several.

use crate::links::{Linked, List};

pub(crate) const SHIFT: u32 = 27;
/// Ticks of a turn: one `u128` has a bit for each 64 of them.
const TURN: u32 = 8192;
const WORDS: usize = TURN as usize / 64;

#[inline]
pub(crate) fn tick(now: u64) -> u32 {
    (now >> SHIFT) as u32
}

/// The end of a tick: when it is certainly over.
fn end_of(tick: u64) -> u64 {
    (tick + 1) << SHIFT
}

/// As many ticks as the time has, rounded up. A flow is over when more than these have gone, so a time is
/// never cut short and at most two ticks longer.
pub(crate) fn ticks(time: std::time::Duration) -> u32 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    u32::try_from(nanos.div_ceil(1 << SHIFT)).unwrap_or(1 << 30).min(1 << 30)
}

/// The link that the wheel uses.
pub(crate) const WHEEL: usize = 0;

pub(crate) struct Wheel {
    spokes: Vec<List>,
    /// A bit for every spoke that is not empty.
    busy: [u64; WORDS],
    /// A bit for every word of `busy` that is not 0.
    lanes: u128,
    /// The first tick that was not yet looked at.
    next: u32,
}

impl Wheel {
    pub fn new() -> Wheel {
        Wheel { spokes: vec![List::default(); TURN as usize], busy: [0; WORDS], lanes: 0, next: 0 }
    }

    /// Puts a flow where its tick is and returns the spoke, by which it is taken away again.
    pub fn put<T: Linked<WHEEL>>(&mut self, all: &mut [T], slot: u32, at: u32) -> u32 {
        let ahead = at.wrapping_sub(self.next);
        // What is past comes next; what is beyond the turn, at its end.
        let at = if ahead > 1 << 31 { self.next } else { self.next.wrapping_add(ahead.min(TURN - 1)) };
        let spoke = at % TURN;
        self.spokes[spoke as usize].push(all, slot);
        self.busy[spoke as usize / 64] |= 1 << (spoke % 64);
        self.lanes |= 1 << (spoke / 64);
        spoke
    }

    pub fn take<T: Linked<WHEEL>>(&mut self, all: &mut [T], slot: u32, spoke: u32) {
        let list = &mut self.spokes[spoke as usize];
        list.unlink(all, slot);
        if list.first().is_none() {
            let word = &mut self.busy[spoke as usize / 64];
            *word &= !(1 << (spoke % 64));
            if *word == 0 {
                self.lanes &= !(1 << (spoke / 64));
            }
        }
    }

    /// Sets the hand when nothing is on the wheel (the first use, or after a long silence).
    pub fn start(&mut self, tick: u32) {
        self.next = tick;
    }

    /// A flow whose tick is before `tick`. The caller takes it off or puts it elsewhere.
    pub fn due(&mut self, tick: u32) -> Option<u32> {
        while (tick.wrapping_sub(self.next) as i32) > 0 {
            let spoke = self.next % TURN;
            if let Some(slot) = self.spokes[spoke as usize].first() {
                return Some(slot);
            }
            let step = self.gap(spoke).min(tick.wrapping_sub(self.next));
            self.next = self.next.wrapping_add(step);
        }
        None
    }

    /// Empty spokes from this one on, at most a turn. Asked after every burst.
    #[inline]
    fn gap(&self, spoke: u32) -> u32 {
        let lane = spoke / 64;
        let word = self.busy[lane as usize] >> (spoke % 64);
        if word != 0 {
            return word.trailing_zeros();
        }
        // The next lane that is not empty, around the turn; at last this one's part that lies behind us.
        let ahead = self.lanes.rotate_right(lane + 1).trailing_zeros();
        if ahead >= WORDS as u32 {
            return TURN;
        }
        let lane = (lane + 1 + ahead) % WORDS as u32;
        let found = lane * 64 + self.busy[lane as usize].trailing_zeros();
        (found + TURN - spoke) % TURN
    }

    /// When `due` will have something.
    pub fn next_due(&self) -> Option<u64> {
        let gap = self.gap(self.next % TURN);
        (gap < TURN).then(|| end_of(u64::from(self.next) + u64::from(gap)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::{LOOSE, Link};
    use std::time::Duration;

    struct Item(Link);

    impl Linked<WHEEL> for Item {
        fn link(&mut self) -> &mut Link {
            &mut self.0
        }
    }

    #[test]
    fn a_flow_comes_due_after_its_tick_and_never_before() {
        let mut items: Vec<Item> = (0..4).map(|_| Item(LOOSE)).collect();
        let mut wheel = Wheel::new();
        wheel.start(1000);
        for (slot, at) in [(0, 1005), (1, 1000 + TURN - 1), (2, 1005), (3, 1000 + 3 * TURN)] {
            wheel.put(&mut items, slot, at);
        }
        assert_eq!(wheel.due(1005), None);
        assert_eq!(wheel.next_due(), Some(1006 << SHIFT));
        assert_eq!(wheel.due(1006), Some(0));
        wheel.take(&mut items, 0, 1005);
        assert_eq!(wheel.due(1006), Some(2));
        wheel.take(&mut items, 2, 1005);
        assert_eq!(wheel.due(1000 + TURN - 1), None);
        assert_eq!(wheel.due(1000 + TURN), Some(1));
        wheel.take(&mut items, 1, (1000 + TURN - 1) % TURN);
        // The one that is three turns away stands at the end of the first.
        assert_eq!(wheel.due(1000 + TURN), Some(3));
        wheel.take(&mut items, 3, (1000 + TURN - 1) % TURN);
        assert_eq!((wheel.due(9_000_000), wheel.next_due()), (None, None));
    }

    #[test]
    fn the_gap_is_what_looking_at_every_spoke_finds() {
        let mut random = crate::hash::Random::new(11);
        let mut items: Vec<Item> = (0..6).map(|_| Item(LOOSE)).collect();
        for _ in 0..3000 {
            let mut wheel = Wheel::new();
            wheel.start(random.below(TURN));
            let count = random.below(items.len() as u32 + 1);
            // Close together as often as far apart.
            let width = [3, 70, TURN][random.below(3) as usize];
            for slot in 0..count {
                wheel.put(&mut items, slot, wheel.next + random.below(width));
            }
            let spoke = random.below(TURN);
            let full = |ahead: &u32| wheel.spokes[((spoke + ahead) % TURN) as usize].first().is_some();
            assert_eq!(wheel.gap(spoke), (0..TURN).find(full).unwrap_or(TURN));
        }
    }

    #[test]
    fn a_time_is_never_cut_short() {
        for nanos in [1, (1 << 27) - 1, 1 << 27, 300_000_000_000] {
            let last = 12_345_678_901u64;
            let over = u64::from(tick(last)) + u64::from(ticks(Duration::from_nanos(nanos))) + 1;
            assert!(over << SHIFT >= last + nanos, "{nanos}");
        }
    }
}
