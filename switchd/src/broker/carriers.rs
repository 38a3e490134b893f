//! The carriers of bond members, asked for again and again.
//!
//! The kernel tells of a lost carrier at once, but not more than once a second for all of the machine's
//! hardware together (its link watch; veths are exempt), so the second of two pulls could cost a second of
//! frames. Each look wakes a sleeping processor, which costs far more than the question: so there is one every
//! [`BUSY`] while frames pass, and one every [`QUIET`] while there are fewer than [`FEW`] in that time, which
//! is what can be lost then.

use super::links::Links;
use super::messages::Notice;
use std::io;
use std::time::{Duration, Instant};
use switchd_port::netlink::Netlink;
use switchd_port::sys::ethtool;

const BUSY: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_millis(50);
const FEW: u64 = 5;

pub struct Carriers {
    short: ethtool::Carriers,
    pace: Pace,
}

impl Carriers {
    /// For the calling thread's namespace.
    pub fn new(now: Instant) -> io::Result<Carriers> {
        Ok(Carriers { short: ethtool::Carriers::new()?, pace: Pace::new(now) })
    }

    /// When [`Carriers::ask`] is due, while there are members.
    pub fn due(&self) -> Instant {
        self.pace.due()
    }

    /// Asks about members, by name and index, and returns what has changed.
    pub fn ask<'a>(
        &mut self,
        now: Instant,
        members: impl Iterator<Item = (&'a str, u32)>,
        links: &mut Links,
        netlink: &mut Netlink,
    ) -> Vec<Notice> {
        let count = self.pace.asked(now);
        let (mut frames, mut notices) = (0, Vec::new());
        for (name, index) in members {
            if count {
                frames = u64::wrapping_add(frames, passed(netlink, name));
            }
            // The short question first: the full answer is needed only when it is another one.
            let told = links.carrier(name);
            if told.is_some() && self.short.has_link(name).ok() == told {
                continue;
            }
            // One that is gone is told by the monitor.
            if let Ok(Some(link)) = netlink.link_without_counters(index) {
                links.present(link, &mut notices);
            }
        }
        if count {
            self.pace.counted(frames);
        }
        notices
    }
}

/// Frames that have passed an interface, as the kernel counts.
fn passed(netlink: &mut Netlink, name: &str) -> u64 {
    let counters = netlink.counters(name).ok().flatten().unwrap_or_default();
    let of = |key| counters.get(key).copied().unwrap_or(0);
    u64::wrapping_add(of("rx_packets"), of("tx_packets"))
}

/// How often is asked.
struct Pace {
    asked: Instant,
    counted: Instant,
    frames: u64,
    busy: bool,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { asked: now, counted: now, frames: 0, busy: true }
    }

    fn due(&self) -> Instant {
        self.asked + if self.busy { BUSY } else { QUIET }
    }

    /// True when frames are to be counted too.
    fn asked(&mut self, now: Instant) -> bool {
        self.asked = now;
        let count = now.saturating_duration_since(self.counted) >= QUIET;
        if count {
            self.counted = now;
        }
        count
    }

    /// `frames` is the sum over all members; a member that goes makes it smaller, which counts as many.
    fn counted(&mut self, frames: u64) {
        self.busy = frames.wrapping_sub(self.frames) >= FEW;
        self.frames = frames;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_asked_often_while_frames_pass_and_seldom_else() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        // Frames a second for each second, and how often is asked in it.
        for (second, (rate, looks)) in
            [(1000, 190..=201), (50, 18..=50), (50, 18..=21), (200, 160..=201)].into_iter().enumerate()
        {
            let second = second as u64;
            let (from, end) = (begun + Duration::from_secs(second), begun + Duration::from_secs(second + 1));
            let base = pace.frames;
            let mut seen = 0;
            while pace.due() < end {
                let now = pace.due();
                seen += 1;
                if pace.asked(now) {
                    pace.counted(base + now.saturating_duration_since(from).as_millis() as u64 * rate / 1000);
                }
            }
            assert!(looks.contains(&seen), "{rate} frames a second: asked {seen} times");
        }
    }
}
