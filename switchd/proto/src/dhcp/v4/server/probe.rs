//! Asking for an address before it is offered (RFC 2131 2.2, RFC 5227 2.1.1).
//!
//! Bounds: [`WAITING_MAX`] probes at once, beyond which addresses are offered unasked; [`CONFLICTS_MAX`] for
//! one client's DISCOVER; an eighth of the pool set aside.

use super::super::super::{DECLINE_HOLD, WAITING_MAX};
use super::super::message::Message;
use super::{Event, Ingress, Lease, PROBE_WAIT, Server, State, Who};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

/// Addresses that one client may find in use, one after the other, before one is offered unasked.
const CONFLICTS_MAX: u32 = 2;

/// A DISCOVER that waits for nobody to answer.
struct Asked {
    at: u64,
    from: Ingress,
    who: Who,
    request: Message,
    conflicts: u32,
}

#[derive(Default)]
pub struct Probing {
    asked: HashMap<Ipv4Addr, Asked>,
    ends: BTreeMap<(u64, Ipv4Addr), ()>,
    out: VecDeque<Ipv4Addr>,
    /// Set aside because somebody answered, with the end of that.
    aside: HashMap<Ipv4Addr, u64>,
}

impl Probing {
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.asked.contains_key(&address)
    }

    pub fn next(&self) -> Option<u64> {
        self.ends.keys().next().map(|&(at, _)| at)
    }

    fn take(&mut self, address: Ipv4Addr) -> Option<Asked> {
        let asked = self.asked.remove(&address)?;
        self.ends.remove(&(asked.at, address));
        Some(asked)
    }
}

impl Server {
    /// An address to ask for.
    pub fn poll_probe(&mut self) -> Option<Ipv4Addr> {
        self.probing.out.pop_front()
    }

    /// Begins to ask. False: the address is to be offered as it is.
    pub(super) fn probe(
        &mut self,
        now: u64,
        from: &Ingress,
        who: &Who,
        request: &Message,
        address: Ipv4Addr,
        conflicts: u32,
    ) -> bool {
        let probing = &mut self.probing;
        if !self.plan.config.probe || conflicts >= CONFLICTS_MAX || probing.asked.len() >= WAITING_MAX {
            return false;
        }
        let at = now + PROBE_WAIT;
        let (from, who, request) = (from.clone(), who.clone(), request.clone());
        probing.asked.insert(address, Asked { at, from, who, request, conflicts });
        probing.ends.insert((at, address), ());
        probing.out.push_back(address);
        self.counters.probe += 1;
        true
    }

    /// Somebody at `mac` answered for the address.
    pub fn probe_answered(&mut self, now: u64, address: Ipv4Addr, mac: MacAddr) {
        self.handle_timeout(now);
        self.probing.aside.retain(|_, end| *end > now);
        let theirs = self.probing.asked.get(&address).is_some_and(|asked| asked.who.mac != Some(mac));
        let room = (self.plan.size() / 8).max(1) as usize > self.probing.aside.len();
        if !theirs || !room {
            return; // The client itself may have the address still.
        }
        let asked = self.probing.take(address).expect("it was there");
        self.counters.in_use += 1;
        let end = now + DECLINE_HOLD;
        self.probing.aside.insert(address, end);
        self.table.put(Lease {
            address,
            client: Vec::new(),
            has_client_id: false,
            mac: Some(mac),
            // Nobody's: a port does not pay for what another one does.
            port: "".into(),
            hostname: None,
            state: State::Declined,
            expires: end,
            durable: None,
        });
        self.tell(Event::InUse { address, mac });
        self.discover(now, &asked.from, &asked.who, &asked.request, asked.conflicts + 1);
    }

    /// Nobody answered: the offers follow.
    pub(super) fn end_probes(&mut self, now: u64) {
        while let Some(&(_, address)) = self.probing.ends.keys().next().filter(|(at, _)| *at <= now) {
            let asked = self.probing.take(address).expect("ends name what is asked");
            let client = self.table.get(address).filter(|lease| lease.client == asked.who.client);
            // It was held all the while, but the configuration may have changed.
            if client.is_some_and(Lease::is_held) && self.is_allowed(address, &asked.who) {
                self.offer(now, &asked.from, &asked.who, &asked.request, address);
            }
        }
    }
}
