//! Link notices for the names that the dataplane has asked about, and no others.

use super::messages::Notice;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use switchd_port::netlink::{Link, LinkEvent, LinkMonitor, Netlink};

/// Names that are followed; further ones are not, and come back by the engine's own retries.
const WANTED_MAX: usize = 8192;

pub struct Links {
    monitor: LinkMonitor,
    /// What was told last of each name; none: there is no such interface.
    wanted: BTreeMap<String, Option<Link>>,
}

impl Links {
    pub fn new() -> io::Result<Links> {
        Ok(Links { monitor: LinkMonitor::new()?, wanted: BTreeMap::new() })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.monitor.descriptor()
    }

    /// From now on changes of `name` are told.
    pub fn want(&mut self, name: &str, netlink: &mut Netlink) {
        if !self.wanted.contains_key(name) && self.wanted.len() < WANTED_MAX {
            self.wanted.insert(name.to_owned(), netlink.link(name).ok().flatten());
        }
    }

    /// What was told last.
    pub fn carrier(&self, name: &str) -> Option<bool> {
        Some(self.wanted.get(name)?.as_ref()?.carrier)
    }

    pub fn changes(&mut self) -> io::Result<Vec<Notice>> {
        let mut notices = Vec::new();
        for event in self.monitor.read()? {
            match event {
                LinkEvent::Present(link) => self.present(link, &mut notices),
                LinkEvent::Gone { index, .. } => self.gone(|known| known.index == index, &mut notices),
                LinkEvent::Resync(links) => {
                    let there = |known: &Link| links.iter().any(|link| link.index == known.index);
                    self.gone(|known| !there(known), &mut notices);
                    for link in links {
                        self.present(link, &mut notices);
                    }
                }
            }
        }
        Ok(notices)
    }

    /// Tells what has changed.
    pub fn present(&mut self, link: Link, notices: &mut Vec<Notice>) {
        // Renamed: under its old name it is gone.
        self.gone(|known| known.index == link.index && known.name != link.name, notices);
        let Some(known) = self.wanted.get_mut(&link.name) else { return };
        // The kernel also tells of changes that concern nobody here.
        let same = known.as_ref().is_some_and(|known| {
            (known.index, known.up, known.carrier, known.mac, known.mtu)
                == (link.index, link.up, link.carrier, link.mac, link.mtu)
        });
        if same {
            return;
        }
        if known.as_ref().is_some_and(|known| known.index != link.index) {
            let old = known.take();
            notices.extend(old.map(|old| notice(&old, true)));
        }
        notices.push(notice(&link, false));
        *known = Some(link);
    }

    fn gone(&mut self, which: impl Fn(&Link) -> bool, notices: &mut Vec<Notice>) {
        for known in self.wanted.values_mut() {
            if let Some(link) = known.take_if(|link| which(link)) {
                notices.push(notice(&link, true));
            }
        }
    }
}

fn notice(link: &Link, gone: bool) -> Notice {
    Notice::Link {
        name: link.name.clone(),
        index: link.index,
        up: link.up && !gone,
        carrier: link.carrier && !gone,
        mac: link.mac.map(|mac| mac.0),
        mtu: link.mtu,
        gone,
    }
}
