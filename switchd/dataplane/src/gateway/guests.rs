//! Numbers for the guests of a network, under which translation counts their flows.
//!
//! A port's index changes when the network moves to another worker; its number does not. A number is free
//! again when its port goes: what is left of that guest's flows then counts for the next one with the number.

use crate::table::NONE;

#[derive(Default)]
pub struct Guests {
    of_port: Vec<u32>,
    ports: Vec<u32>,
}

impl Guests {
    #[inline]
    pub fn number(&mut self, port: u32) -> u32 {
        match self.of_port.get(port as usize) {
            Some(&number) if number != NONE => number,
            _ => self.newcomer(port),
        }
    }

    #[inline(never)]
    fn newcomer(&mut self, port: u32) -> u32 {
        let free = self.ports.iter().position(|&port| port == NONE).unwrap_or(self.ports.len());
        self.set(port, free as u32);
        free as u32
    }

    fn set(&mut self, port: u32, number: u32) {
        for (list, at, value) in [(&mut self.of_port, port, number), (&mut self.ports, number, port)] {
            if list.len() <= at as usize {
                list.resize(at as usize + 1, NONE);
            }
            list[at as usize] = value;
        }
    }

    pub fn port(&self, number: u32) -> Option<u32> {
        self.ports.get(number as usize).copied().filter(|&port| port != NONE)
    }

    /// The port is gone.
    pub fn release(&mut self, port: u32) {
        if let Some(number) = self.of_port.get_mut(port as usize)
            && *number != NONE
        {
            self.ports[*number as usize] = NONE;
            *number = NONE;
        }
    }

    /// Ports and numbers.
    pub fn all(&self) -> Vec<(u32, u32)> {
        let all = self.ports.iter().enumerate().filter(|&(_, &port)| port != NONE);
        all.map(|(number, &port)| (port, number as u32)).collect()
    }

    pub fn restore(&mut self, all: &[(u32, u32)]) {
        *self = Guests::default();
        all.iter().for_each(|&(port, number)| self.set(port, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_until_its_port_goes_and_moves_with_its_guest() {
        let mut guests = Guests::default();
        assert_eq!([7, 3, 7].map(|port| guests.number(port)), [0, 1, 0]);
        let mut moved = Guests::default();
        moved.restore(&[(20, 1), (9, 0)]);
        assert_eq!([moved.number(20), moved.number(9), moved.number(3)], [1, 0, 2]);
        assert_eq!((moved.port(1), moved.port(7)), (Some(20), None));
        moved.release(9);
        assert_eq!((moved.port(0), moved.number(55), moved.all().len()), (None, 0, 3));
    }
}
