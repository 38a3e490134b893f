//! Whom a port heard (802.1AB-2016 9.2.9), by chassis and port identifier.

use super::SECOND;
use switchd_wire::lldp::Lldpdu;

/// Neighbours of a port that are remembered.
pub const NEIGHBORS_MAX: usize = 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbor {
    pub pdu: Lldpdu,
    expires: u64,
}

impl Neighbor {
    pub fn chassis(&self) -> String {
        self.pdu.chassis.show(true)
    }

    pub fn port(&self) -> String {
        self.pdu.port.show(false)
    }
}

#[derive(Default)]
pub struct Neighbors {
    list: Vec<Neighbor>,
}

pub(super) enum Heard {
    New(Neighbor),
    Known,
    Gone(Neighbor),
    TooMany,
}

impl Neighbors {
    pub(super) fn heard(&mut self, now: u64, pdu: Lldpdu) -> Heard {
        let same = |known: &Neighbor| known.pdu.chassis == pdu.chassis && known.pdu.port == pdu.port;
        let place = self.list.iter().position(same);
        let expires = now + u64::from(pdu.ttl) * SECOND;
        match place {
            Some(place) if pdu.ttl == 0 => Heard::Gone(self.list.remove(place)),
            Some(place) => {
                self.list[place] = Neighbor { pdu, expires };
                Heard::Known
            }
            None if pdu.ttl == 0 => Heard::Known,
            None if self.list.len() == NEIGHBORS_MAX => Heard::TooMany,
            None => {
                let neighbor = Neighbor { pdu, expires };
                self.list.push(neighbor.clone());
                Heard::New(neighbor)
            }
        }
    }

    pub(super) fn age(&mut self, now: u64) -> Vec<Neighbor> {
        self.list.extract_if(.., |known| now >= known.expires).collect()
    }

    pub(super) fn clear(&mut self) -> Vec<Neighbor> {
        std::mem::take(&mut self.list)
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.list.iter().map(|known| known.expires).min()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Neighbor> {
        self.list.iter()
    }
}
