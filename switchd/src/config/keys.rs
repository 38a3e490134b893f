//! What a key is: its type and range, and what is said of its values. The tables of [`super::specs`] are made
//! of it: one for the file, KEY=VALUE and messages.

use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RangeRule {
    pub min: u64,
    pub max: u64,
    what: &'static str,
}

impl RangeRule {
    pub fn sentence(self) -> String {
        format!("{} {} to {}", self.what, self.min, self.max)
    }
}

pub(super) mod range {
    use super::RangeRule;

    pub const VID: RangeRule = RangeRule { min: 1, max: 4094, what: "a VLAN ID is" };
    /// IPv4 asks for 68 (RFC 791); 9216 is what jumbo switches take.
    pub const MTU: RangeRule = RangeRule { min: 68, max: 9216, what: "the MTU is" };
    /// 802.1Q table 8-6.
    pub const AGEING: RangeRule =
        RangeRule { min: 10, max: 1_000_000, what: "the ageing time in seconds is" };
    pub const MAC_LIMIT: RangeRule =
        RangeRule { min: 1, max: 1_048_576, what: "the number of learned addresses is" };
    /// As many as are served; a guest has at most one a processor.
    pub const QUEUES: RangeRule = RangeRule { min: 1, max: 8, what: "the number of queue pairs is" };
    /// RFC 2131 leaves it open; below two minutes clients would only renew.
    pub const LEASE: RangeRule =
        RangeRule { min: 120, max: 31_536_000, what: "the lease time in seconds is" };
    pub const PORT_LIMIT: RangeRule =
        RangeRule { min: 1, max: 65_536, what: "the number of addresses that one port may lease is" };
    pub const FLOWS: RangeRule = RangeRule { min: 1, max: 4_194_304, what: "the number of flows is" };
    /// RFC 4787 REQ-5: at least two minutes.
    pub const UDP: RangeRule = RangeRule { min: 120, max: 86_400, what: "the UDP timeout in seconds is" };
    /// RFC 5382 REQ-5: at least 2 hours 4 minutes.
    pub const TCP: RangeRule = RangeRule { min: 7440, max: 1_000_000, what: "the TCP timeout in seconds is" };
    /// RFC 5382 REQ-5: at least 4 minutes.
    pub const TRANSITORY: RangeRule =
        RangeRule { min: 240, max: 86_400, what: "the TCP transitory timeout in seconds is" };
    /// RFC 5508 REQ-2: at least 60 seconds.
    pub const ICMP: RangeRule = RangeRule { min: 60, max: 86_400, what: "the ICMP timeout in seconds is" };
    pub const MIN_LINKS: RangeRule =
        RangeRule { min: 1, max: super::super::MAX_MEMBERS as u64, what: "the number of members is" };
    /// 802.1AX 6.3.2.
    pub const PRIORITY: RangeRule = RangeRule { min: 0, max: 65_535, what: "the system priority is" };
    /// 802.1AX 6.3.5: a null key takes no part.
    pub const KEY: RangeRule = RangeRule { min: 1, max: 65_535, what: "the key is" };
    pub const HALF: RangeRule = RangeRule { min: 1, max: 2, what: "the half of an MLAG pair is" };
    pub const SNAPLEN: RangeRule = RangeRule { min: 14, max: 262_144, what: "the bytes kept of a frame are" };
    pub const FILES: RangeRule = RangeRule { min: 1, max: 100_000, what: "the number of files kept is" };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    Text,
    Choice(&'static [&'static str]),
    Number(RangeRule),
    /// A number of seconds; KEY=VALUE takes `5m` too.
    Seconds(RangeRule),
    Flag,
    List,
    /// What its entries are, in words, and whether KEY.ENTRY=VALUE sets one.
    Map(&'static Entries),
}

/// Of a map.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Entries {
    /// `MAC = "PORT"`
    pub form: &'static str,
    /// What a value is.
    pub value: &'static str,
    /// KEY.ENTRY=VALUE sets them; else the commands that do, with `{}` for the object's name.
    pub set: Result<&'static [&'static str], &'static str>,
}

pub(super) const FDB: &Entries = &Entries {
    form: "MAC = \"PORT\"",
    value: "the name of a port",
    set: Err("`switchctl fdb add {} MAC PORT`, `switchctl fdb delete {} MAC`"),
};
pub(super) const FORWARDS: &Entries = &Entries {
    form: "\"PROTO/PORT\" = \"IP:PORT\"",
    value: "IP:PORT",
    set: Err("`switchctl forward add {} PROTO/PORT:IP:PORT`, `switchctl forward delete {} PROTO/PORT`"),
};
pub(super) const FLOATING: &Entries = &Entries {
    form: "\"OUTSIDE-IP\" = \"PORT\"",
    value: "the name of a port",
    set: Err("`switchctl floating add {} OUTSIDE-IP PORT`, `switchctl floating delete OUTSIDE-IP`"),
};
/// By name: options 42, 66, 67, 119 and 121.
pub(super) const DHCP_OPTIONS: &[&str] = &["ntp", "tftp", "bootfile", "search", "routes"];
pub(super) const OPTIONS: &Entries =
    &Entries { form: "OPTION = \"VALUE\"", value: "the option's value", set: Ok(DHCP_OPTIONS) };

pub(super) const ON_OFF: Type = Type::Choice(&["on", "off"]);

#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Type,
    /// Without a default.
    pub required: bool,
}

pub(super) const fn key(name: &'static str, kind: Type) -> Key {
    Key { name, kind, required: false }
}

pub(super) const fn must(name: &'static str, kind: Type) -> Key {
    Key { name, kind, required: true }
}

/// A value of the right type and, if it is a number, in its range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Value {
    pub fn text(self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number<T: TryFrom<u64>>(self) -> Option<T> {
        match self {
            Value::Number(number) => T::try_from(number).ok(),
            _ => None,
        }
    }
}

pub(super) trait Spec: Clone {
    const SECTION: &'static str;
    const KEYS: &'static [Key];

    /// Required keys hold placeholders.
    fn blank() -> Self;

    /// `None`: the default. The value has the type of the key. The error is the broken rule.
    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String>;

    /// The entries of a map that KEY.ENTRY=VALUE sets.
    fn entries(&mut self, _key: &str) -> Option<&mut BTreeMap<String, String>> {
        None
    }

    fn key(name: &str) -> Option<&'static Key> {
        Self::KEYS.iter().find(|key| key.name == name)
    }

    fn key_names() -> Vec<&'static str> {
        Self::KEYS.iter().map(|key| key.name).collect()
    }
}
