//! Places that many share, so that nobody is left without.
//!
//! One gets another place only while it has fewer than are free: alone it has half of them at most, two have
//! a third each, and there is always one for the next.

use crate::worker::command::Key;
use std::collections::HashMap;

pub struct Shares {
    bound: usize,
    taken: usize,
    of: HashMap<Key, usize>,
}

impl Shares {
    pub fn new(bound: usize) -> Shares {
        Shares { bound, taken: 0, of: HashMap::new() }
    }

    /// Whether there is a place for this one; if so it is taken.
    pub fn take(&mut self, who: &Key) -> bool {
        let mine = self.of.get(who).copied().unwrap_or(0);
        if mine >= self.bound - self.taken {
            return false;
        }
        self.taken += 1;
        self.of.insert(who.clone(), mine + 1);
        true
    }

    pub fn give_back(&mut self, who: &Key) {
        let Some(mine) = self.of.get_mut(who) else { return };
        *mine -= 1;
        self.taken -= 1;
        if *mine == 0 {
            self.of.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(shares: &mut Shares, who: &str) -> usize {
        std::iter::from_fn(|| shares.take(&who.into()).then_some(())).count()
    }

    #[test]
    fn one_alone_has_half_and_there_is_always_one_for_the_next() {
        let mut shares = Shares::new(64);
        assert_eq!(["a", "b", "c"].map(|who| all_of(&mut shares, who)), [32, 16, 8]);
        assert!(shares.take(&"d".into()));
        (0..32).for_each(|_| shares.give_back(&"a".into()));
        shares.give_back(&"a".into());
        assert_eq!((shares.taken, shares.of.len()), (25, 3), "nothing is given back twice");
        assert!(shares.take(&"a".into()));
    }
}
