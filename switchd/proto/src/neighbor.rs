//! Neighbours: which MAC has an IP address on our link, for ARP and IPv6 neighbour discovery alike.
//!
//! ```text
//!            hold                 answer, or asked by it
//! (none) ─────────► Incomplete ───────────────────────────► Reachable ── 4 s ─► Stale
//!                     │ 3 × 1 s silent                          ▲                 │ used
//!                     ▼                                  answer │                 ▼
//!                   Failed ─ 3 s ─► (none)                      ├─────────────  Delay (1 s)
//!                                                               │                 │
//!                                   (none) ◄─ 3 × 1 s silent ─ Probe ◄────────────┘
//! ```
//! The states are those of RFC 4861 7.3.2, used for ARP as well (RFC 1122 2.3.2.1 asks for a way to flush old
//! entries, and lists unicast polls first). Two of the times are shorter than those of RFC 4861 10: hosts
//! have a transport that tells whether a way leads on (7.3.1), a router has not, and a next hop that was
//! replaced by one with another MAC, without a word, would be missed for 38 s. Here the old one is given up
//! after 8 s of use at most ([`REACHABLE`], [`DELAY`], three probes), and the next packet asks everybody; the
//! price is one question in 5 s to each neighbour that is in use. An ARP request, or a solicitation, tells who asks; it does not
//! confirm that our frames arrive there (7.2.3), so the entry becomes stale.
//!
//! The machine has no input or output: [`Neighbors::poll_output`] says what is to be asked, and gives back
//! the packets that waited. `P` is whatever waits; its size is told by the caller.
//!
//! Bounds ([`Limits`]): entries; those of them that are being resolved; packets an address and bytes in all
//! that wait. Whoever sends (a guest, the outside) gets more of the second and the last only while it has less
//! of them than is free: one that asks for every address there is has half at most, and there is something
//! left for the next. A full queue loses its oldest packet (7.2.2). A full table gives up the entry that was used
//! longest ago and is not being resolved; while all are, newcomers are refused. All of this is counted.
//!
//! Left out: the router flag, and anycast's delay; nobody here chooses among routers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use switchd_wire::MacAddr;

const SECOND: u64 = 1_000_000_000;
/// A choice; RFC 4861 10 has REACHABLE_TIME at 30 s, which is a default.
pub const REACHABLE: u64 = 4 * SECOND;
/// RFC 4861 10: RETRANS_TIMER; RFC 1122 2.3.2.1: at most one ARP request a second and address.
pub const RETRANSMIT: u64 = SECOND;
/// RFC 4861 10: MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT.
pub const ATTEMPTS: u8 = 3;
/// RFC 4861 10 has DELAY_FIRST_PROBE_TIME at 5 s, for a transport to confirm meanwhile; nobody does here.
pub const DELAY: u64 = SECOND;
/// How long nobody asks again for an address that was silent. A choice.
pub const NEGATIVE: u64 = 3 * SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub entries: usize,
    /// Entries that are being resolved.
    pub incomplete: usize,
    /// Packets that wait for one address (RFC 1122 2.3.2.2 asks for one at least).
    pub packets: usize,
    /// Bytes that wait in all.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 4096, incomplete: 256, packets: 3, bytes: 1 << 20 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub solicited: u64,
    pub resolved: u64,
    pub failed: u64,
    /// Entries given up for others.
    pub evicted: u64,
    /// Packets lost because their queue, the bytes or the table were full.
    pub overflowed: u64,
    /// An address answered with another MAC than before.
    pub changed: u64,
}

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    Known(MacAddr),
    /// To be asked for, or being asked for: [`Neighbors::hold`] the packet.
    Unknown,
    /// It was silent a moment ago.
    Unreachable,
}

/// What became of a packet that was to wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held<P> {
    Waits,
    /// It waits, and the oldest one goes.
    Replaced(P),
    Refused(P),
}

/// How an address made itself known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It asked for us: an ARP request, a solicitation with its link-layer address (RFC 4861 7.2.3).
    Asked,
    /// It answered (RFC 4861 7.2.5). An ARP reply to us is solicited and overrides.
    Answered { solicited: bool, overrides: bool },
}

#[derive(Debug)]
pub enum Output<P> {
    /// Ask for the address: its holder alone, or (`None`) everybody.
    Solicit {
        address: IpAddr,
        to: Option<MacAddr>,
    },
    Resolved {
        address: IpAddr,
        mac: MacAddr,
        packets: Vec<P>,
    },
    Failed {
        address: IpAddr,
        packets: Vec<P>,
    },
}

/// A row for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub address: IpAddr,
    pub mac: Option<MacAddr>,
    pub state: State,
}

struct Entry<P> {
    mac: MacAddr,
    state: State,
    /// When the state ends; of a stale entry: never.
    until: u64,
    attempts: u8,
    used: u64,
    /// Who wanted it resolved.
    by: u32,
    waiting: VecDeque<Waiting<P>>,
}

struct Waiting<P> {
    packet: P,
    size: usize,
    by: u32,
}

/// What is being resolved and what waits, in all and by sender.
#[derive(Default)]
struct Shares {
    incomplete: usize,
    bytes: usize,
    of: HashMap<u32, (usize, usize)>,
}

impl Shares {
    fn may_ask(&self, by: u32, limits: &Limits) -> bool {
        self.of.get(&by).map_or(0, |of| of.0) < limits.incomplete.saturating_sub(self.incomplete)
    }

    fn may_hold(&self, by: u32, size: usize, limits: &Limits) -> bool {
        self.of.get(&by).map_or(0, |of| of.1) + size <= limits.bytes.saturating_sub(self.bytes)
    }

    fn add(&mut self, by: u32, incomplete: usize, bytes: usize) {
        self.incomplete += incomplete;
        self.bytes += bytes;
        let of = self.of.entry(by).or_default();
        (of.0, of.1) = (of.0 + incomplete, of.1 + bytes);
    }

    fn sub(&mut self, by: u32, incomplete: usize, bytes: usize) {
        self.incomplete -= incomplete;
        self.bytes -= bytes;
        if let Some(of) = self.of.get_mut(&by) {
            (of.0, of.1) = (of.0 - incomplete, of.1 - bytes);
            if *of == (0, 0) {
                self.of.remove(&by);
            }
        }
    }
}

pub struct Neighbors<P> {
    limits: Limits,
    table: HashMap<IpAddr, Entry<P>>,
    shares: Shares,
    /// No timer ends before.
    next: u64,
    /// The last answer of `find` and until when it stands.
    last: Option<(IpAddr, MacAddr, u64)>,
    outputs: VecDeque<Output<P>>,
    counters: Counters,
}

const NEVER: u64 = u64::MAX;

impl<P> Neighbors<P> {
    pub fn new(limits: Limits) -> Neighbors<P> {
        Neighbors {
            limits,
            table: HashMap::new(),
            shares: Shares::default(),
            next: NEVER,
            last: None,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.table.iter().map(|(&address, entry)| Row {
            address,
            mac: (!matches!(entry.state, State::Incomplete | State::Failed)).then_some(entry.mac),
            state: entry.state,
        })
    }

    /// Where to send a packet for `address`. A stale entry is used, and verified from here on.
    #[inline]
    pub fn find(&mut self, now: u64, address: IpAddr) -> Find {
        match self.last {
            Some((last, mac, until)) if last == address && now < until => Find::Known(mac),
            _ => self.find_in_table(now, address),
        }
    }

    fn find_in_table(&mut self, now: u64, address: IpAddr) -> Find {
        let Some(entry) = self.table.get_mut(&address) else { return Find::Unknown };
        entry.used = now;
        match entry.state {
            State::Incomplete => return Find::Unknown,
            State::Failed if now < entry.until => return Find::Unreachable,
            State::Failed => {
                self.remove(address);
                return Find::Unknown;
            }
            State::Reachable | State::Delay | State::Probe if now < entry.until => {}
            State::Reachable | State::Stale => {
                (entry.state, entry.until, entry.attempts) = (State::Delay, now + DELAY, 0);
                self.next = self.next.min(entry.until);
            }
            State::Delay | State::Probe => {}
        }
        self.last = Some((address, entry.mac, entry.until));
        Find::Known(entry.mac)
    }

    /// Lets a packet of `by` wait until its address is resolved, which begins now if it has not.
    pub fn hold(&mut self, now: u64, address: IpAddr, packet: P, size: usize, by: u32) -> Held<P> {
        if !self.table.contains_key(&address) && !self.make_room(by) {
            self.counters.overflowed += 1;
            return Held::Refused(packet);
        }
        if !self.shares.may_hold(by, size, &self.limits) {
            self.counters.overflowed += 1;
            return Held::Refused(packet);
        }
        let entry = self.table.entry(address).or_insert_with(|| {
            self.shares.add(by, 1, 0);
            self.counters.solicited += 1;
            self.next = self.next.min(now + RETRANSMIT);
            self.outputs.push_back(Output::Solicit { address, to: None });
            Entry {
                mac: MacAddr::ZERO,
                state: State::Incomplete,
                until: now + RETRANSMIT,
                attempts: 1,
                used: now,
                by,
                waiting: VecDeque::new(),
            }
        });
        if entry.state != State::Incomplete {
            return Held::Refused(packet);
        }
        entry.used = now;
        let oldest =
            if entry.waiting.len() >= self.limits.packets { entry.waiting.pop_front() } else { None };
        entry.waiting.push_back(Waiting { packet, size, by });
        self.shares.add(by, 0, size);
        match oldest {
            None => Held::Waits,
            Some(oldest) => {
                self.shares.sub(oldest.by, 0, oldest.size);
                self.counters.overflowed += 1;
                Held::Replaced(oldest.packet)
            }
        }
    }

    /// Room for one more entry that is to be resolved.
    fn make_room(&mut self, by: u32) -> bool {
        self.shares.may_ask(by, &self.limits) && self.evict()
    }

    fn evict(&mut self) -> bool {
        if self.table.len() < self.limits.entries {
            return true;
        }
        let settled = self.table.iter().filter(|(_, entry)| entry.state != State::Incomplete);
        let Some((&oldest, _)) = settled.min_by_key(|(_, entry)| entry.used) else { return false };
        self.remove(oldest);
        self.counters.evicted += 1;
        true
    }

    /// A packet said which MAC an address has. `mac` is absent in an advertisement without the option.
    pub fn heard(&mut self, now: u64, address: IpAddr, mac: Option<MacAddr>, how: Heard) {
        self.last = None;
        let Some(entry) = self.table.get_mut(&address) else {
            // RFC 4861 7.2.5: an advertisement nobody asked for makes no entry; 7.2.3: a question does.
            if let (Some(mac), Heard::Asked) = (mac, how)
                && self.evict()
            {
                let (state, until, waiting) = (State::Stale, NEVER, VecDeque::new());
                let entry = Entry { mac, state, until, attempts: 0, used: now, by: 0, waiting };
                self.table.insert(address, entry);
            }
            return;
        };
        let solicited = matches!(how, Heard::Answered { solicited: true, .. });
        let confirmed = if solicited { (State::Reachable, now + REACHABLE) } else { (State::Stale, NEVER) };
        if matches!(entry.state, State::Incomplete | State::Failed) {
            let Some(mac) = mac else { return };
            let was_incomplete = entry.state == State::Incomplete;
            entry.mac = mac;
            (entry.state, entry.until) = confirmed;
            self.shares.sub(entry.by, usize::from(was_incomplete), 0);
            self.counters.resolved += 1;
            let packets = drain(entry, &mut self.shares);
            if !packets.is_empty() {
                self.outputs.push_back(Output::Resolved { address, mac, packets });
            }
            return;
        }
        let changed = mac.is_some_and(|mac| mac != entry.mac);
        if let Heard::Answered { overrides: false, .. } = how
            && changed
        {
            if entry.state == State::Reachable {
                (entry.state, entry.until) = (State::Stale, NEVER);
            }
            return;
        }
        if let Some(mac) = mac.filter(|_| changed) {
            entry.mac = mac;
            self.counters.changed += 1;
        }
        if solicited || changed {
            (entry.state, entry.until) = confirmed;
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        (self.next != NEVER).then_some(self.next)
    }

    pub fn handle_timeout(&mut self, now: u64) {
        if now < self.next {
            return;
        }
        self.next = NEVER;
        self.last = None;
        let mut gone = Vec::new();
        for (&address, entry) in &mut self.table {
            if now >= entry.until {
                match entry.state {
                    State::Incomplete | State::Probe if entry.attempts < ATTEMPTS => {
                        let to = (entry.state == State::Probe).then_some(entry.mac);
                        entry.attempts += 1;
                        entry.until = now + RETRANSMIT;
                        self.counters.solicited += 1;
                        self.outputs.push_back(Output::Solicit { address, to });
                    }
                    State::Incomplete => {
                        (entry.state, entry.until) = (State::Failed, now + NEGATIVE);
                        self.shares.sub(entry.by, 1, 0);
                        self.counters.failed += 1;
                        let packets = drain(entry, &mut self.shares);
                        self.outputs.push_back(Output::Failed { address, packets });
                    }
                    State::Delay => {
                        (entry.state, entry.until, entry.attempts) = (State::Probe, now + RETRANSMIT, 1);
                        self.counters.solicited += 1;
                        self.outputs.push_back(Output::Solicit { address, to: Some(entry.mac) });
                    }
                    State::Probe | State::Failed => {
                        gone.push(address);
                        continue;
                    }
                    // Nobody uses it: it becomes stale when somebody looks.
                    State::Reachable | State::Stale => continue,
                }
            }
            if !matches!(entry.state, State::Reachable | State::Stale) {
                self.next = self.next.min(entry.until);
            }
        }
        gone.into_iter().for_each(|address| self.remove(address));
    }

    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// The link was away: who has which address is asked anew. What is being resolved goes on.
    pub fn doubt(&mut self) {
        let settled = self.table.iter().filter(|(_, entry)| entry.state != State::Incomplete);
        let settled: Vec<IpAddr> = settled.map(|(&address, _)| address).collect();
        settled.into_iter().for_each(|address| self.remove(address));
    }

    /// Forgets everything that `keep` does not want, with the packets that wait.
    pub fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) -> Vec<P> {
        let gone: Vec<IpAddr> = self.table.keys().copied().filter(|&address| !keep(address)).collect();
        let mut lost = Vec::new();
        for address in gone {
            if let Some(entry) = self.table.get_mut(&address) {
                lost.extend(drain(entry, &mut self.shares));
            }
            self.remove(address);
        }
        lost
    }

    fn remove(&mut self, address: IpAddr) {
        self.last = None;
        if let Some(mut entry) = self.table.remove(&address) {
            self.shares.sub(entry.by, usize::from(entry.state == State::Incomplete), 0);
            drain(&mut entry, &mut self.shares);
        }
    }
}

fn drain<P>(entry: &mut Entry<P>, shares: &mut Shares) -> Vec<P> {
    let waiting = entry.waiting.drain(..).inspect(|waiting| shares.sub(waiting.by, 0, waiting.size));
    waiting.map(|waiting| waiting.packet).collect()
}

#[cfg(test)]
#[path = "neighbor_tests.rs"]
mod tests;
