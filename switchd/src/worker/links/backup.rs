//! Active-backup: one member carries the bond.
//!
//! The preferred member is used whenever its link is up; else the one in use stays while it is up; else the
//! lowest number. There are no timers: carrier alone decides. Fewer links than `min_links`: none is used.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Backup {
    /// Link of each member, by number.
    links: BTreeMap<u16, bool>,
    pub prefer: Option<u16>,
    pub min_links: u32,
    active: Option<u16>,
}

impl Backup {
    pub fn set_link(&mut self, number: u16, up: bool) {
        self.links.insert(number, up);
    }

    pub fn remove(&mut self, number: u16) {
        self.links.remove(&number);
    }

    pub fn active(&self) -> Option<u16> {
        self.active
    }

    /// Decides anew; true when the active member is another one.
    pub fn decide(&mut self) -> bool {
        let is_up = |number: &u16| self.links.get(number).is_some_and(|up| *up);
        let up = self.links.keys().filter(|number| is_up(number)).count();
        let choice = [self.prefer, self.active].into_iter().flatten().find(is_up);
        let choice = choice.or_else(|| self.links.keys().copied().find(|number| is_up(number)));
        let choice = choice.filter(|_| up >= self.min_links as usize);
        std::mem::replace(&mut self.active, choice) != choice
    }

    /// Why a member is not the active one.
    pub fn reason(&self, number: u16) -> Option<String> {
        if self.active == Some(number) {
            return None;
        }
        let up = self.links.values().filter(|up| **up).count();
        Some(match self.links.get(&number) {
            Some(true) if self.active.is_some() => "standby: another member is active".to_owned(),
            Some(true) => format!("{up} of at least {} links are usable", self.min_links),
            Some(false) | None => "link down".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_member_wins_and_otherwise_nothing_moves_without_need() {
        let mut backup = Backup { min_links: 1, ..Backup::default() };
        backup.set_link(1, false);
        backup.set_link(2, true);
        backup.set_link(3, true);
        assert!(backup.decide());
        assert_eq!(backup.active(), Some(2));
        backup.set_link(1, true);
        assert!(!backup.decide(), "a lower number is no reason to move");
        backup.prefer = Some(3);
        assert!(backup.decide());
        backup.set_link(3, false);
        assert!(backup.decide());
        assert_eq!(backup.active(), Some(1));
        assert_eq!(backup.reason(2).as_deref(), Some("standby: another member is active"));
        assert_eq!(backup.reason(3).as_deref(), Some("link down"));
        backup.set_link(3, true);
        assert!(backup.decide());
        assert_eq!((backup.active(), backup.reason(3)), (Some(3), None));
    }

    #[test]
    fn fewer_links_than_asked_for_carry_nothing() {
        let mut backup = Backup { min_links: 2, ..Backup::default() };
        backup.set_link(1, true);
        backup.set_link(2, false);
        backup.decide();
        assert_eq!(backup.active(), None);
        assert_eq!(backup.reason(1).as_deref(), Some("1 of at least 2 links are usable"));
        backup.set_link(2, true);
        assert!(backup.decide());
        assert_eq!(backup.active(), Some(1));
        backup.remove(2);
        assert!(backup.decide());
        assert_eq!(backup.active(), None);
    }
}
