//! Lookup: learn where the source is, and find where the destination is.
//!
//! Learning (802.1Q-2022 8.7) takes unicast sources of admitted frames. A known source at the same port costs
//! one compare, and one write when the coarse clock has moved. What is new, moves or is refused is the
//! slow way.
//!
//! Limits: the network's and the port's number of learned addresses. When one is reached, new addresses
//! are not learned, counted and told once; nothing is evicted for a newcomer. A move needs room at the new
//! port only. Static entries are never moved, nor do they count against the limits. An entry older than
//! the ageing time is treated as absent, even before `expire` has come to it.

use crate::counters::PortCounters;
use crate::fdb::{self, Entry, Fdb, Spot};
use crate::ingress::Admitted;
use crate::notices::{DataplaneNotice, Notices};
use crate::rim::{NetworkId, PortId};
use crate::table::{Network, Port};

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Port(u32),
    Flood,
}

/// What the slow way of learning writes besides the table.
pub(crate) struct Learning<'a> {
    pub now: u64,
    pub ports: &'a mut [Port],
    pub counters: &'a mut [PortCounters],
    pub notices: &'a mut Notices,
}

/// True when the source is known behind `port`, and now fresh.
#[inline(always)]
pub(crate) fn known(fdb: &mut Fdb, admitted: &Admitted, port: u32, tick: u16) -> bool {
    let Some(spot) = fdb.find(admitted.source, admitted.source_hash) else { return false };
    let entry = fdb.entry(spot);
    if entry.port() != port {
        return false;
    }
    if entry.seen != tick {
        fdb.refresh(spot, tick);
    }
    true
}

/// Learns a source that is not [`known`].
#[inline(never)]
pub(crate) fn learn(network: &mut Network, id: u32, key: u64, port: u32, learning: &mut Learning<'_>) {
    let tick = network.clock.tick(learning.now);
    let hash = network.fdb.hash(key);
    match network.fdb.find(key, hash) {
        None => insert(network, id, key, port, learning),
        Some(spot) => {
            let entry = network.fdb.entry(spot);
            if entry.is_static() {
                return;
            }
            if network.clock.is_old(entry, tick) {
                network.fdb.remove(spot);
                network.addresses -= 1;
                learning.ports[entry.port() as usize].addresses -= 1;
                network.counters.aged += 1;
                insert(network, id, key, port, learning);
            } else {
                move_to(network, id, spot, entry, port, learning);
            }
        }
    }
}

fn insert(network: &mut Network, id: u32, key: u64, port: u32, learning: &mut Learning<'_>) {
    let network_full = network.addresses >= network.limit;
    let here = &mut learning.ports[port as usize];
    let port_full = here.addresses >= here.limit;
    let entry = Entry { key, place: port as u16, seen: network.clock.tick(learning.now) };
    if network_full || port_full || !network.fdb.insert(entry) {
        refuse(network, id, port, port_full && !network_full, learning);
        return;
    }
    here.addresses += 1;
    network.addresses += 1;
    network.counters.learned += 1;
}

fn move_to(network: &mut Network, id: u32, spot: Spot, entry: Entry, port: u32, learning: &mut Learning<'_>) {
    let here = &mut learning.ports[port as usize];
    if here.addresses >= here.limit {
        refuse(network, id, port, true, learning);
        return;
    }
    here.addresses += 1;
    let from = entry.port();
    learning.ports[from as usize].addresses -= 1;
    network.fdb.replace(spot, port as u16, network.clock.tick(learning.now));
    network.counters.moves += 1;
    learning.counters[port as usize].mac_moves += 1;
    let mac = fdb::mac_of(entry.key);
    learning.notices.moved(
        learning.now,
        DataplaneNotice::Moved { network: NetworkId(id), mac, from: PortId(from), to: PortId(port) },
    );
}

fn refuse(network: &mut Network, id: u32, port: u32, by_port: bool, learning: &mut Learning<'_>) {
    network.counters.learn_refused += 1;
    learning.counters[port as usize].learn_refused += 1;
    let here = &mut learning.ports[port as usize];
    let told = if by_port { &mut here.full_told } else { &mut network.full_told };
    if !std::mem::replace(told, true) {
        let port = by_port.then_some(PortId(port));
        learning.notices.tell(DataplaneNotice::Full { network: NetworkId(id), port });
    }
}

/// Where the destination is: the port of a fresh or static entry, otherwise everywhere.
#[inline(always)]
pub(crate) fn way(network: &Network, admitted: &Admitted, tick: u16) -> Way {
    if admitted.destination == 0 {
        return Way::Flood;
    }
    let Some(spot) = network.fdb.find(admitted.destination, admitted.destination_hash) else {
        return Way::Flood;
    };
    let entry = network.fdb.entry(spot);
    if network.clock.is_old(entry, tick) {
        return Way::Flood;
    }
    Way::Port(entry.port())
}
