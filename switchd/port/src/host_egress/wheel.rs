//! Timers of the flows: one coarse wheel.
//!
//! A flow stands in one slot at most, so the wheel is as large as the table and never larger. A deadline that
//! moves later costs nothing: the flow keeps its slot, is looked at when that comes, and is put further on.
//! Deadlines beyond the wheel's reach stand in its last slot for now. The engine asks the flow itself for
//! its true deadline.

/// Resolution. Every deadline of ours is at least four of these away.
pub const TICK: u64 = 50_000_000;
/// With 50 ms each, 51 seconds.
const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    /// 0: not on the wheel.
    tick: u64,
}

pub struct Wheel {
    heads: Box<[u32; SLOTS]>,
    occupied: [u64; SLOTS / 64],
    links: Vec<Link>,
    /// All ticks up to this one have been served.
    served: u64,
}

impl Wheel {
    pub fn new(now: u64) -> Wheel {
        Wheel {
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; SLOTS / 64],
            links: Vec::new(),
            served: now / TICK,
        }
    }

    /// Looks at `index` no later than (a tick after) `at`. A later time than the one that is set changes
    /// nothing.
    pub fn set(&mut self, index: u32, at: u64) {
        let place = index as usize;
        if place >= self.links.len() {
            self.links.resize(place + 1, Link { previous: NONE, next: NONE, tick: 0 });
        }
        let tick = at.div_ceil(TICK).clamp(self.served + 1, self.served + SLOTS as u64 - 1);
        let present = self.links[place].tick;
        if present != 0 {
            if present <= tick {
                return;
            }
            self.remove(index);
        }
        let slot = (tick % SLOTS as u64) as usize;
        let head = self.heads[slot];
        if head != NONE {
            self.links[head as usize].previous = index;
        }
        self.links[place] = Link { previous: NONE, next: head, tick };
        self.heads[slot] = index;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    pub fn remove(&mut self, index: u32) {
        let Some(link) = self.links.get(index as usize).copied().filter(|link| link.tick != 0) else {
            return;
        };
        let slot = (link.tick % SLOTS as u64) as usize;
        match link.previous {
            NONE => self.heads[slot] = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        if self.heads[slot] == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        self.links[index as usize].tick = 0;
    }

    /// Moves everything that is due into `due`.
    pub fn expire(&mut self, now: u64, due: &mut Vec<u32>) {
        let last = now / TICK;
        // After a long sleep every slot has come up once.
        let ticks = last.saturating_sub(self.served).min(SLOTS as u64);
        for tick in last + 1 - ticks..=last {
            let slot = (tick % SLOTS as u64) as usize;
            while self.heads[slot] != NONE {
                let index = self.heads[slot];
                self.remove(index);
                due.push(index);
            }
        }
        self.served = self.served.max(last);
    }

    /// When the earliest slot in use is due.
    pub fn next(&self) -> Option<u64> {
        let first = (self.served + 1) % SLOTS as u64;
        let mut passed = 0u64;
        while passed < SLOTS as u64 {
            let slot = ((first + passed) % SLOTS as u64) as usize;
            let bits = self.occupied[slot / 64] >> (slot % 64);
            if bits != 0 {
                return Some((self.served + 1 + passed + u64::from(bits.trailing_zeros())) * TICK);
            }
            passed += 64 - (slot % 64) as u64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_deadline_is_served_within_a_tick_and_once() {
        let mut wheel = Wheel::new(7 * TICK + 3);
        wheel.set(5, 10 * TICK + 1);
        wheel.set(6, 10 * TICK);
        assert_eq!(wheel.next(), Some(10 * TICK));
        assert!(due(&mut wheel, 10 * TICK - 1).is_empty());
        assert_eq!(due(&mut wheel, 10 * TICK), [6]);
        assert_eq!(wheel.next(), Some(11 * TICK));
        assert_eq!(due(&mut wheel, 11 * TICK), [5]);
        assert!(due(&mut wheel, 5000 * TICK).is_empty() && wheel.next().is_none());
    }

    #[test]
    fn an_earlier_deadline_moves_and_a_later_one_waits_to_be_asked() {
        let mut wheel = Wheel::new(0);
        wheel.set(1, 20 * TICK);
        wheel.set(1, 40 * TICK);
        assert_eq!(wheel.next(), Some(20 * TICK));
        wheel.set(1, 4 * TICK);
        assert_eq!(wheel.next(), Some(4 * TICK));
        wheel.set(2, 4 * TICK);
        wheel.remove(1);
        assert_eq!(due(&mut wheel, 30 * TICK), [2]);
    }

    #[test]
    fn what_lies_beyond_the_wheel_comes_up_in_its_last_slot_and_a_long_sleep_misses_nothing() {
        let mut wheel = Wheel::new(0);
        wheel.set(1, u64::MAX / 2);
        assert_eq!(wheel.next(), Some((SLOTS as u64 - 1) * TICK));
        for index in 2..2000 {
            wheel.set(index, u64::from(index) * TICK);
        }
        assert_eq!(due(&mut wheel, 100_000 * TICK).len(), 1999);
        assert_eq!(wheel.next(), None);
        wheel.set(3, 0);
        assert_eq!(wheel.next(), Some(100_001 * TICK), "the past is due at the next tick");
    }
}
