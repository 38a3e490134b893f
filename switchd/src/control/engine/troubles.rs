//! Objects that could not be brought up, or were lost, and when each is tried again.
//!
//! The wait doubles from [`FIRST`] to [`LAST`]; a notice about the interface or namespace that the object
//! waits for makes it due at once. Bound: one entry an object, so it is bounded by the configuration.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use switchd_api::reply::Trouble;

pub const FIRST: Duration = Duration::from_millis(100);
pub const LAST: Duration = Duration::from_secs(5);

/// What is in trouble.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Object {
    Network(String),
    /// By the interface's name.
    Uplink(String),
    /// An interface of a bond.
    Member(String),
    Bond(String),
    Port(String),
    Mirror(String),
    /// A NAT network whose subnet or outside address the host has too.
    Conflict(String),
    /// Forwards of a NAT network through the host that cannot be listened on; and its pings.
    Forwards(String),
}

impl Object {
    /// The kind of event that tells of its trouble.
    pub fn down_event(&self) -> &'static str {
        match self {
            Object::Network(_) => "network.down",
            Object::Uplink(_) => "uplink.down",
            Object::Member(_) => "member.down",
            Object::Bond(_) => "bond.down",
            Object::Port(_) => "port.down",
            Object::Mirror(_) => "mirror.failing",
            Object::Conflict(_) => "network.conflict",
            Object::Forwards(_) => "forward.down",
        }
    }

    pub fn up_event(&self) -> &'static str {
        match self {
            Object::Network(_) => "network.up",
            Object::Uplink(_) => "uplink.up",
            Object::Member(_) => "member.up",
            Object::Bond(_) => "bond.up",
            Object::Port(_) => "port.up",
            Object::Mirror(_) => "mirror.running",
            Object::Conflict(_) => "network.no-conflict",
            Object::Forwards(_) => "forward.up",
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Network(name) | Object::Conflict(name) | Object::Forwards(name) => {
                write!(f, "network {name}")
            }
            Object::Member(name) => write!(f, "member {name}"),
            Object::Bond(name) => write!(f, "bond {name}"),
            Object::Uplink(name) => write!(f, "uplink {name}"),
            Object::Port(name) => write!(f, "port {name}"),
            Object::Mirror(name) => write!(f, "mirror {name}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    reason: String,
    wait: Duration,
    /// `None`: not retried until the user asks (a panic).
    due: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Troubles(BTreeMap<Object, Entry>);

impl Troubles {
    /// A try failed or a loss was noticed. True when the object was not in trouble before, or for another
    /// reason: worth an event.
    pub fn add(&mut self, object: Object, reason: String, now: Instant) -> bool {
        match self.0.get_mut(&object) {
            Some(entry) => {
                entry.wait = (entry.wait * 2).min(LAST);
                entry.due = Some(now + entry.wait);
                let news = entry.reason != reason;
                entry.reason = reason;
                news
            }
            None => {
                self.0.insert(object, Entry { reason, wait: FIRST, due: Some(now + FIRST) });
                true
            }
        }
    }

    /// In trouble until the user does something.
    pub fn hold(&mut self, object: Object, reason: String) {
        self.0.insert(object, Entry { reason, wait: FIRST, due: None });
    }

    /// Due now, with the shortest wait again; not if it is held.
    pub fn hurry(&mut self, object: &Object, now: Instant) {
        if let Some(entry) = self.0.get_mut(object)
            && entry.due.is_some()
        {
            entry.wait = FIRST;
            entry.due = Some(now);
        }
    }

    pub fn clear(&mut self, object: &Object) -> bool {
        self.0.remove(object).is_some()
    }

    pub fn retain(&mut self, keep: impl Fn(&Object) -> bool) {
        self.0.retain(|object, _| keep(object));
    }

    pub fn reason(&self, object: &Object) -> Option<&str> {
        self.0.get(object).map(|entry| entry.reason.as_str())
    }

    pub fn is_held(&self, object: &Object) -> bool {
        self.0.get(object).is_some_and(|entry| entry.due.is_none())
    }

    /// Those that wait for the user, with their reasons.
    pub fn held(&self) -> Vec<(Object, String)> {
        let held = self.0.iter().filter(|(_, entry)| entry.due.is_none());
        held.map(|(object, entry)| (object.clone(), entry.reason.clone())).collect()
    }

    pub fn due(&self, now: Instant) -> Vec<Object> {
        let due = self.0.iter().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        due.map(|(object, _)| object.clone()).collect()
    }

    pub fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|entry| entry.due).min()
    }

    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.0.keys()
    }

    /// For people; `retry_in` is rounded up to whole seconds.
    pub fn list(&self, now: Instant) -> Vec<Trouble> {
        let row = |(object, entry): (&Object, &Entry)| Trouble {
            object: object.to_string(),
            reason: entry.reason.clone(),
            retry_in: entry
                .due
                .map(|due| due.saturating_duration_since(now).as_millis().div_ceil(1000) as u64),
        };
        self.0.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Object {
        Object::Port("vm1".to_owned())
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let mut now = Instant::now();
        let mut troubles = Troubles::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            troubles.add(port(), "no such device".to_owned(), now);
            let next = troubles.next().unwrap();
            waits.push((next - now).as_millis());
            now = next;
            assert_eq!(troubles.due(now), [port()]);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_notice_makes_it_due_at_once_and_resets_the_wait() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        for _ in 0..6 {
            troubles.add(port(), "gone".to_owned(), now);
        }
        assert!(troubles.due(now).is_empty());
        troubles.hurry(&port(), now);
        assert_eq!(troubles.due(now), [port()]);
        troubles.add(port(), "gone".to_owned(), now);
        assert_eq!(troubles.next(), Some(now + 2 * FIRST));
    }

    #[test]
    fn a_held_object_is_never_due() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        troubles.hold(port(), "panicked: index".to_owned());
        troubles.hurry(&port(), now);
        assert!(troubles.due(now + LAST).is_empty());
        assert_eq!(troubles.next(), None);
        let listed = &troubles.list(now)[0];
        assert_eq!((listed.reason.as_str(), listed.retry_in), ("panicked: index", None));
    }

    #[test]
    fn only_a_new_reason_is_news() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        assert!(troubles.add(port(), "gone".to_owned(), now));
        assert!(!troubles.add(port(), "gone".to_owned(), now));
        assert!(troubles.add(port(), "busy".to_owned(), now));
        assert!(troubles.clear(&port()));
        assert!(troubles.add(port(), "busy".to_owned(), now));
    }
}
