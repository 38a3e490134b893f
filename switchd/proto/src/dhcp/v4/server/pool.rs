//! Which address a client gets (RFC 2131 4.3.1): the one kept for it, the one it has or had, the one it asks
//! for, one that nobody had, one that is over longest.

use super::super::super::spread;
use super::{Lease, SHARE, Server, State, Who};
use std::net::Ipv4Addr;

/// Why a client gets none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    Pool,
    Port,
}

impl Server {
    /// The lease is this client's: here, or where it cannot be any more.
    pub(super) fn is_own(&self, lease: &Lease, who: &Who) -> bool {
        lease.client == who.client
            && lease.state != State::Declined
            && (lease.port == who.port || !lease.is_held() || !self.plan.has_port(&lease.port))
    }

    /// The client's lease, the one that counts if there are several.
    pub(super) fn own(&self, who: &Who) -> Option<&Lease> {
        let own = self.table.of_client(&who.client).filter(|lease| self.is_own(lease, who));
        own.max_by_key(|lease| (lease.port == who.port, lease.is_held(), lease.expires, lease.address))
    }

    /// The configuration lets this client have the address.
    pub(super) fn is_allowed(&self, address: Ipv4Addr, who: &Who) -> bool {
        self.plan.is_dynamic(address) || self.plan.reserved(&who.port, who.mac) == Some(address)
    }

    /// Nobody else has it.
    pub(super) fn is_available(&self, address: Ipv4Addr, who: &Who) -> bool {
        let Some(lease) = self.table.get(address) else { return true };
        if !lease.is_held() || self.is_own(lease, who) {
            return true;
        }
        // A reservation is the interface's: a boot loader and a system with different identifiers share it,
        // and a port that is gone holds nothing back.
        let kept = self.plan.reserved(&who.port, who.mac) == Some(address);
        let same = lease.port == who.port && lease.mac.is_some() && lease.mac == who.mac;
        kept && lease.state != State::Declined && (same || !self.plan.has_port(&lease.port))
    }

    /// An address kept for the client that it could have instead of `address`.
    pub(super) fn prefers_another(&self, address: Ipv4Addr, who: &Who) -> bool {
        let kept = self.plan.reserved(&who.port, who.mac);
        kept.is_some_and(|kept| kept != address && self.is_available(kept, who))
    }

    /// Whether the port may hold one address more.
    pub(super) fn may_take(&self, who: &Who) -> Result<(), Full> {
        let held = self.table.held_by(&who.port);
        if self.plan.config.port_limit.is_some_and(|limit| held >= limit) {
            return Err(Full::Port);
        }
        let kept = self.plan.kept().filter(|address| self.table.get(*address).is_some_and(Lease::is_held));
        let kept = kept.count() as u32;
        let free = self.plan.size().saturating_sub(self.table.held() - kept);
        if free == 0 {
            return Err(Full::Pool);
        }
        let share = (self.plan.size() / (self.plan.port_count() + 1)).clamp(1, SHARE);
        if held < share {
            return Ok(());
        }
        let others = self.plan.ports_without_address().filter(|port| **port != who.port);
        let promised: u32 = others.map(|port| share.saturating_sub(self.table.held_by(port))).sum();
        let spare = self.plan.size() / 16;
        if free > promised + spare { Ok(()) } else { Err(Full::Port) }
    }

    /// The address for a client that asks for one.
    pub(super) fn choose(&self, who: &Who, requested: Option<Ipv4Addr>) -> Result<Ipv4Addr, Full> {
        let kept = self.plan.reserved(&who.port, who.mac);
        if let Some(kept) = kept.filter(|&kept| self.is_available(kept, who)) {
            return Ok(kept);
        }
        let own = self.own(who).filter(|lease| self.is_allowed(lease.address, who));
        if let Some(lease) = own.filter(|lease| lease.is_held()) {
            return Ok(lease.address);
        }
        let own = own.map(|lease| lease.address);
        self.may_take(who)?;
        let free = |address: &Ipv4Addr| self.plan.is_dynamic(*address) && self.is_available(*address, who);
        if let Some(address) = own.or(requested).filter(free) {
            return Ok(address);
        }
        let full = u64::from(self.plan.size()) <= self.table.len() as u64;
        let mut fresh = self.plan.walk(spread(&who.client)).filter(|_| !full);
        let fresh = fresh.find(|&address| self.plan.is_dynamic(address) && self.table.get(address).is_none());
        let oldest = || self.table.oldest(|address| self.plan.is_dynamic(address));
        // The walk was skipped when the table looked full; it may hold addresses outside of the range.
        let any = || self.plan.walk(0).find(free);
        fresh.or_else(oldest).or_else(any).ok_or(Full::Pool)
    }
}
