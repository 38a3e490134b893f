//! Ports of one outside address, for one protocol.
//!
//! A port belongs to one guest's endpoint or to a forward, never to two (no overloading, RFC 4787 REQ-3).
//! They are drawn at random (RFC 6056 3.3.1, RFC 7857 9); the range 0–1023 or 1024–65535 of the guest's
//! own port is kept (REQ-3 a and b) and so is parity (REQ-4), as long as there is one left: parity is given up
//! first, then the low range. Identifiers of ICMP have neither range nor parity.

use crate::hash::Random;

const WORDS: usize = 1024;
const LOW: u32 = 1024;
const ALL: u32 = 65_536;
/// Draws before the set is searched.
const DRAWS: usize = 4;

/// The protocols whose flows have ports of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Space {
    Tcp,
    Udp,
    Icmp,
}

pub(crate) const SPACES: usize = 3;

impl Space {
    #[inline]
    pub fn of(protocol: u8) -> Option<Space> {
        match protocol {
            6 => Some(Space::Tcp),
            17 => Some(Space::Udp),
            1 | 58 => Some(Space::Icmp),
            _ => None,
        }
    }
}

pub(crate) struct Ports {
    taken: Box<[u64; WORDS]>,
    free: u32,
}

impl Ports {
    pub fn new(space: Space) -> Ports {
        let mut ports = Ports { taken: Box::new([0; WORDS]), free: ALL };
        if space != Space::Icmp {
            ports.take(0);
        }
        ports
    }

    pub fn is_taken(&self, port: u16) -> bool {
        self.taken[usize::from(port / 64)] >> (port % 64) & 1 != 0
    }

    /// False if it was taken already.
    pub fn take(&mut self, port: u16) -> bool {
        let fresh = !self.is_taken(port);
        self.taken[usize::from(port / 64)] |= 1 << (port % 64);
        self.free -= u32::from(fresh);
        fresh
    }

    pub fn give_back(&mut self, port: u16) {
        if self.is_taken(port) {
            self.taken[usize::from(port / 64)] &= !(1 << (port % 64));
            self.free += 1;
        }
    }

    pub fn free(&self) -> u32 {
        self.free
    }

    /// Takes a port for a guest's own port `like`.
    pub fn draw(&mut self, space: Space, like: u16, random: &mut Random) -> Option<u16> {
        let parity = Some(like % 2);
        let tries: &[(u32, u32, Option<u16>)] = match space {
            Space::Icmp => &[(0, ALL, None)],
            _ if u32::from(like) >= LOW => &[(LOW, ALL, parity), (LOW, ALL, None)],
            _ => &[(0, LOW, parity), (0, LOW, None), (LOW, ALL, parity), (LOW, ALL, None)],
        };
        let port = tries.iter().find_map(|&(from, to, parity)| self.find(from, to, parity, random))?;
        self.take(port);
        Some(port)
    }

    /// A free port in `from..to`, which are multiples of 64.
    fn find(&self, from: u32, to: u32, parity: Option<u16>, random: &mut Random) -> Option<u16> {
        for _ in 0..DRAWS {
            let drawn = (from + random.below(to - from)) as u16;
            let port = parity.map_or(drawn, |parity| drawn & !1 | parity);
            if !self.is_taken(port) {
                return Some(port);
            }
        }
        let mask = match parity {
            None => u64::MAX,
            Some(0) => 0x5555_5555_5555_5555,
            Some(_) => 0xaaaa_aaaa_aaaa_aaaa,
        };
        let (first, words) = (from / 64, (to - from) / 64);
        let start = random.below(words);
        (0..words).find_map(|step| {
            let word = first + (start + step) % words;
            let free = !self.taken[word as usize] & mask;
            (free != 0).then(|| {
                let turn = random.below(64);
                let bit = (free.rotate_right(turn).trailing_zeros() + turn) % 64;
                (word * 64 + bit) as u16
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4787_req3_no_port_is_given_twice_until_none_is_left() {
        let (mut ports, mut random) = (Ports::new(Space::Udp), Random::new(1));
        let mut seen = vec![false; 65_536];
        for _ in 1024..65_536 {
            let port = ports.draw(Space::Udp, 5000, &mut random).expect("there are as many");
            assert!(!std::mem::replace(&mut seen[usize::from(port)], true), "{port} twice");
        }
        assert_eq!(ports.draw(Space::Udp, 5000, &mut random), None);
        ports.give_back(4711);
        assert_eq!(ports.draw(Space::Udp, 5000, &mut random), Some(4711));
    }

    #[test]
    fn rfc4787_req3_the_range_of_the_port_is_kept() {
        let (mut ports, mut random) = (Ports::new(Space::Udp), Random::new(2));
        for _ in 0..1023 {
            assert!(ports.draw(Space::Udp, 68, &mut random).unwrap() < 1024);
            assert!(ports.draw(Space::Udp, 1024, &mut random).unwrap() >= 1024);
        }
        assert!(ports.draw(Space::Udp, 68, &mut random).unwrap() >= 1024, "the low range is used up");
        assert!(!ports.is_taken(0) || ports.find(0, 1024, None, &mut random).is_none());
    }

    #[test]
    fn rfc4787_req4_parity_is_kept_while_there_is_one() {
        let (mut ports, mut random) = (Ports::new(Space::Udp), Random::new(3));
        for _ in 0..32_256 {
            assert_eq!(ports.draw(Space::Udp, 5001, &mut random).unwrap() % 2, 1);
        }
        assert_eq!(ports.draw(Space::Udp, 5001, &mut random).unwrap() % 2, 0);
    }

    #[test]
    fn rfc7857_9_ports_are_random() {
        let draw = |seed| Ports::new(Space::Tcp).draw(Space::Tcp, 40_000, &mut Random::new(seed)).unwrap();
        let mut drawn: Vec<u16> = (0..200).map(draw).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert!(drawn.len() > 190, "{} of 200 differ", drawn.len());
        assert!(drawn[0] < 6000 && drawn[drawn.len() - 1] > 60_000);
    }
}
