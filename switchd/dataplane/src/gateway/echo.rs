//! Echo requests that come in fragments: which later fragments belong to a request that we answer.
//!
//! Each fragment of a request is sent back as it comes, so nothing is put together and no payload is copied.
//! A later fragment does not say that it is of an echo request; only those whose first one was seen go back,
//! or two gateways could throw a fragment to and fro for ever. A later one that overtakes the first is lost.
//! Bounds: [`SLOTS`] datagrams, the oldest makes room; [`LIFETIME`].

use std::net::IpAddr;

const SLOTS: usize = 32;
/// RFC 1122 3.3.2: 60 seconds at least for a reassembly; no reassembly here, and ids are reused.
const LIFETIME: u64 = 10_000_000_000;

#[derive(Default)]
pub struct EchoFragments {
    slots: Vec<(IpAddr, u32, u64)>,
    next: usize,
}

impl EchoFragments {
    /// The first fragment of a request.
    pub fn first(&mut self, now: u64, source: IpAddr, id: u32) {
        let slot = (source, id, now);
        if self.slots.len() < SLOTS {
            self.slots.push(slot);
        } else {
            self.slots[self.next] = slot;
            self.next = (self.next + 1) % SLOTS;
        }
    }

    pub fn is_known(&self, now: u64, source: IpAddr, id: u32) -> bool {
        self.slots.iter().any(|&slot| slot.0 == source && slot.1 == id && now < slot.2 + LIFETIME)
    }
}
