//! The table of flows.
//!
//! Flows lie in a slab; their numbers carry a generation, so that an event of a socket that was closed in
//! the same round names nobody. A hash table with a random seed (guests choose the keys) leads from a
//! packet's addresses to the number. Live flows are bounded in all and by guest; a full table refuses new
//! flows and evicts nobody, except that connections in TIME-WAIT, which hold no socket, give way oldest first.

use super::icmp::IcmpFlow;
use super::tcp::TcpFlow;
use super::udp::UdpFlow;
use hashbrown::{HashMap, HashTable};
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use switchd_wire::MacAddr;

/// A full table still has room, an eighth more, for guests with few flows: one that takes all there is does
/// not shut out the others.
const RESERVE: u32 = 8;
const FEW: u32 = 64;
/// Entries of flows that are gone which the list of those in TIME-WAIT may hold besides as many as there are.
const WAITING_SPARE: usize = 64;
/// The guest of flows that came by a forward for one that has not been seen.
pub const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// Seen from the guest. A UDP mapping has no remote end (RFC 4787 4.1: endpoint-independent), unless it
/// came through a forward. For ICMP the ports are the identifier and 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub protocol: Protocol,
    pub guest: SocketAddr,
    pub remote: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowId {
    pub index: u32,
    pub generation: u32,
}

pub enum Body {
    Tcp(Box<TcpFlow>),
    Udp(Box<UdpFlow>),
    Icmp(IcmpFlow),
}

pub struct Flow {
    pub key: Key,
    /// The guest in whose quota it counts.
    pub owner: u32,
    /// Where frames for the guest go: as last seen.
    pub mac: MacAddr,
    pub body: Body,
    /// Last packet in either direction.
    pub used: u64,
    pub packets: u64,
    pub bytes: u64,
    /// It stands in the engine's list of flows to serve.
    pub queued: bool,
}

struct Slot {
    generation: u32,
    flow: Option<Flow>,
}

/// Why there is no room for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    Full,
    Quota,
}

pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: foldhash::quality::RandomState,
    /// Live flows of each guest.
    guests: HashMap<u32, u32, foldhash::quality::RandomState>,
    live: u32,
    /// In TIME-WAIT, oldest first; some may be gone.
    waiting: VecDeque<FlowId>,
    time_wait: u32,
}

impl Table {
    pub fn new() -> Table {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::quality::RandomState::default(),
            guests: HashMap::default(),
            live: 0,
            waiting: VecDeque::new(),
            time_wait: 0,
        }
    }

    pub fn time_wait(&self) -> u32 {
        self.time_wait
    }

    /// Whether a new flow of this guest may be made.
    pub fn room(&self, guest: u32, flows: u32, quota: u32) -> Result<(), NoRoom> {
        let used = self.guests.get(&guest).copied().unwrap_or(0);
        if used >= quota {
            return Err(NoRoom::Quota);
        }
        let bound = if used < FEW { flows.saturating_add(flows / RESERVE) } else { flows };
        if self.live >= bound { Err(NoRoom::Full) } else { Ok(()) }
    }

    pub fn find(&self, key: &Key) -> Option<FlowId> {
        let hash = self.hasher.hash_one(key);
        let same =
            |&index: &u32| self.slots[index as usize].flow.as_ref().is_some_and(|flow| flow.key == *key);
        let index = *self.index.find(hash, same)?;
        Some(FlowId { index, generation: self.slots[index as usize].generation })
    }

    /// The number that the next [`Table::insert`] gives out, for registering a socket beforehand.
    pub fn reserve(&mut self) -> FlowId {
        match self.free.last() {
            Some(&index) => FlowId { index, generation: self.slots[index as usize].generation },
            None => FlowId { index: self.slots.len() as u32, generation: 0 },
        }
    }

    /// The key must not be in the table.
    pub fn insert(&mut self, flow: Flow) -> FlowId {
        let id = self.reserve();
        if self.free.pop().is_none() {
            self.slots.push(Slot { generation: 0, flow: None });
        }
        self.live += 1;
        *self.guests.entry(flow.owner).or_insert(0) += 1;
        let hash = self.hasher.hash_one(flow.key);
        self.slots[id.index as usize].flow = Some(flow);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, id.index, |&index| {
            slots[index as usize].flow.as_ref().map_or(0, |flow| hasher.hash_one(flow.key))
        });
        id
    }

    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.flow.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.flow.as_mut() } else { None }
    }

    /// The flow that has this number now.
    pub fn id_at(&self, index: u32) -> Option<FlowId> {
        let slot = self.slots.get(index as usize)?;
        slot.flow.as_ref().map(|_| FlowId { index, generation: slot.generation })
    }

    /// The flow gave back its socket and is kept for TIME-WAIT only. Returns one that must give way.
    pub fn retire(&mut self, id: FlowId, bound: u32) -> Option<FlowId> {
        let owner = self.get(id)?.owner;
        self.release(owner);
        self.time_wait += 1;
        // A guest may keep the oldest one alive while others come and go.
        if self.waiting.len() >= 2 * self.time_wait as usize + WAITING_SPARE {
            let waiting = std::mem::take(&mut self.waiting);
            self.waiting = waiting.into_iter().filter(|&id| self.get(id).is_some()).collect();
        }
        self.waiting.push_back(id);
        while let Some(&oldest) = self.waiting.front() {
            if self.get(oldest).is_none() {
                self.waiting.pop_front();
            } else if self.time_wait > bound {
                self.waiting.pop_front();
                return Some(oldest);
            } else {
                break;
            }
        }
        None
    }

    fn release(&mut self, guest: u32) {
        self.live -= 1;
        if let Some(used) = self.guests.get_mut(&guest) {
            *used -= 1;
            if *used == 0 {
                self.guests.remove(&guest);
            }
        }
    }

    pub fn remove(&mut self, id: FlowId) -> Option<Flow> {
        self.get(id)?;
        let hash = self.hasher.hash_one(self.get(id)?.key);
        if let Ok(entry) = self.index.find_entry(hash, |&index| index == id.index) {
            entry.remove();
        }
        let slot = &mut self.slots[id.index as usize];
        // One bit is kept free for the marks of other sockets.
        slot.generation = slot.generation.wrapping_add(1) & 0x7fff_ffff;
        let flow = slot.flow.take()?;
        self.free.push(id.index);
        if matches!(&flow.body, Body::Tcp(tcp) if tcp.socket.is_none()) {
            self.time_wait -= 1;
        } else {
            self.release(flow.owner);
        }
        Some(flow)
    }

    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = FlowId { index: index as u32, generation: slot.generation };
            slot.flow.as_ref().map(|flow| (id, flow))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16, guest: u8) -> Flow {
        Flow {
            key: Key {
                protocol: Protocol::Icmp,
                guest: SocketAddr::new([10, 0, 0, guest].into(), port),
                remote: Some("192.0.2.1:0".parse().unwrap()),
            },
            owner: guest.into(),
            mac: MacAddr([2, 0, 0, 0, 0, guest]),
            body: Body::Icmp(IcmpFlow::default()),
            used: 0,
            packets: 0,
            bytes: 0,
            queued: false,
        }
    }

    #[test]
    fn a_number_of_an_earlier_flow_names_nobody() {
        let mut table = Table::new();
        let first = table.insert(flow(1, 1));
        assert_eq!(table.find(&flow(1, 1).key), Some(first));
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        let second = table.insert(flow(2, 1));
        assert_eq!((second.index, table.find(&flow(1, 1).key)), (first.index, None));
        assert!(table.get(first).is_none() && table.get(second).is_some());
    }

    #[test]
    fn a_connection_that_is_kept_in_time_wait_keeps_nothing_of_the_others_there() {
        use super::super::tcp::{Conn, Segment, Times};
        let mut table = Table::new();
        let mut retired = |port: u16| {
            let times = Times { established: 1, transitory: 1 };
            let conn = Conn::from_guest(0, &Segment::default(), 1, 1460, false, times);
            let body = Body::Tcp(Box::new(TcpFlow { conn, socket: None, forwarded: false }));
            let id = table.insert(Flow { body, ..flow(port, 1) });
            assert_eq!(table.retire(id, 100), None);
            if port > 0 {
                table.remove(id);
            }
            table.waiting.len()
        };
        let most = (0..20_000).map(&mut retired).max();
        assert!(most < Some(100), "{most:?}");
        assert_eq!((table.time_wait(), table.live), (1, 0));
    }

    #[test]
    fn one_guest_at_its_quota_leaves_room_for_the_others() {
        let mut table = Table::new();
        let ids: Vec<FlowId> = (0..10).map(|port| table.insert(flow(port, 1))).collect();
        let (one, other) = (flow(0, 1).owner, flow(0, 2).owner);
        assert_eq!(table.room(one, 100, 10), Err(NoRoom::Quota));
        assert_eq!(table.room(other, 100, 10), Ok(()));
        assert_eq!(table.room(other, 5, 100), Err(NoRoom::Full));
        table.remove(ids[3]);
        assert_eq!(table.room(one, 100, 10), Ok(()));
        assert_eq!((table.live, table.iter().count()), (9, 9));
    }

    #[test]
    fn one_guest_that_takes_all_there_is_does_not_shut_out_the_others() {
        let mut table = Table::new();
        (0..800).for_each(|port| {
            table.insert(flow(port, 1));
        });
        let (one, other) = (flow(0, 1).owner, flow(0, 2).owner);
        assert_eq!(table.room(one, 800, 70_000), Err(NoRoom::Full));
        assert_eq!(table.room(other, 800, 70_000), Ok(()));
        (0..64).for_each(|port| {
            table.insert(flow(port, 2));
        });
        assert_eq!(table.room(other, 800, 70_000), Err(NoRoom::Full), "it has many now");
        (0..36).for_each(|port| {
            table.insert(flow(port, 3));
        });
        assert_eq!(table.room(flow(0, 4).owner, 800, 70_000), Err(NoRoom::Full), "the reserve is used up");
    }
}
