//! The translator of one network.

use crate::config::NatConfig;
use crate::packet::Classified;
use crate::verdict::{Flow, NatCounters, NatDrop, NatNotice, Released, Side, Verdict};
use switchd_wire::{Frame, MacAddr, TailSource};

pub struct Nat {
    config: NatConfig,
    counters: NatCounters,
}

impl Nat {
    /// `seed` chooses source ports and keys the tables: it must not be guessable.
    pub fn new(config: NatConfig, _seed: u64) -> Nat {
        Nat { config, counters: NatCounters::default() }
    }

    /// Takes a new configuration. Flows that still fit stay.
    pub fn configure(&mut self, _now: u64, config: NatConfig) {
        self.config = config;
    }

    pub fn config(&self) -> &NatConfig {
        &self.config
    }

    /// Parses and hashes. A burst is best classified as a whole, then touched, located, translated.
    #[inline]
    pub fn classify(&self, frame: &Frame, side: Side) -> Classified {
        Classified::of(frame, side)
    }

    /// Brings the flow's place in the table into the cache.
    #[inline]
    pub fn touch(&self, _classified: &Classified) {}

    /// Finds the flow's record and brings it into the cache. Not needed, but faster between `touch` and
    /// the translation.
    #[inline]
    pub fn locate(&self, _classified: &mut Classified) {}

    pub fn outbound(
        &mut self,
        _now: u64,
        _guest: u32,
        _guest_mac: MacAddr,
        _classified: &Classified,
        _frame: &mut Frame,
        _tails: &dyn TailSource,
    ) -> Verdict {
        self.drop(NatDrop::NoOutside)
    }

    pub fn inbound(
        &mut self,
        _now: u64,
        _classified: &Classified,
        _frame: &mut Frame,
        _tails: &dyn TailSource,
    ) -> Verdict {
        self.drop(NatDrop::NoOutside)
    }

    fn drop(&mut self, reason: NatDrop) -> Verdict {
        self.counters.dropped[reason as usize] += 1;
        Verdict::Drop(reason)
    }

    /// Forgets what is over, at most `budget` flows at once.
    pub fn expire(&mut self, _now: u64, _budget: usize) {}

    /// When `expire` has something to do.
    pub fn next_expiry(&self) -> Option<u64> {
        None
    }

    pub fn flows(&self, _now: u64, _limit: usize) -> Vec<Flow> {
        Vec::new()
    }

    pub fn counters(&self) -> NatCounters {
        self.counters
    }

    pub fn take_notices(&mut self) -> Vec<NatNotice> {
        Vec::new()
    }

    /// Fragments whose first one has come. Look after every burst in which something was `Held` or a first
    /// fragment went through; empty vectors cost nothing.
    pub fn released(&mut self) -> Vec<Released> {
        Vec::new()
    }
}
