//! The keys that each object has, with their types and ranges: one table for the file, KEY=VALUE and
//! messages.

use std::collections::BTreeMap;
use switchd_api::model::{Admin, Kind, MirrorDirection, MirrorSpec, NetworkSpec, PortSpec};

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
    Map,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Type,
    /// Without a default.
    pub required: bool,
}

const fn key(name: &'static str, kind: Type) -> Key {
    Key { name, kind, required: false }
}

const fn must(name: &'static str, kind: Type) -> Key {
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
    fn text(self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number<T: TryFrom<u64>>(self) -> Option<T> {
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

    fn key(name: &str) -> Option<&'static Key> {
        Self::KEYS.iter().find(|key| key.name == name)
    }

    fn key_names() -> Vec<&'static str> {
        Self::KEYS.iter().map(|key| key.name).collect()
    }
}

fn unknown(key: &str) -> Result<(), String> {
    Err(format!("unknown key {key:?}"))
}

impl Spec for NetworkSpec {
    const SECTION: &'static str = "network";
    const KEYS: &'static [Key] = &[
        must("kind", Type::Choice(&["bridged", "isolated"])),
        key("uplink", Type::Text),
        key("vlan", Type::Number(range::VID)),
        key("mtu", Type::Number(range::MTU)),
        key("ageing", Type::Seconds(range::AGEING)),
        key("mac-limit", Type::Number(range::MAC_LIMIT)),
        key("fdb", Type::Map),
    ];

    fn blank() -> NetworkSpec {
        NetworkSpec::default()
    }

    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String> {
        match key {
            "kind" => {
                self.kind = match value.and_then(Value::text).as_deref() {
                    Some("isolated") => Kind::Isolated,
                    _ => Kind::Bridged,
                }
            }
            "uplink" => self.uplink = value.and_then(Value::text),
            "vlan" => self.vlan = value.and_then(Value::number),
            "mtu" => self.mtu = value.and_then(Value::number),
            "ageing" => self.ageing = value.and_then(Value::number),
            "mac-limit" => self.mac_limit = value.and_then(Value::number),
            "fdb" => {
                self.fdb = match value {
                    Some(Value::Map(map)) => map,
                    _ => BTreeMap::new(),
                }
            }
            _ => return unknown(key),
        }
        Ok(())
    }
}

impl Spec for PortSpec {
    const SECTION: &'static str = "port";
    const KEYS: &'static [Key] = &[
        must("network", Type::Text),
        key("tap", Type::Text),
        key("netns", Type::Text),
        key("netdev", Type::Text),
        key("mac", Type::Text),
        key("vlan", Type::Text),
        key("admin", Type::Choice(&["up", "down"])),
        key("mac-limit", Type::Number(range::MAC_LIMIT)),
    ];

    fn blank() -> PortSpec {
        // A valid name, as the compiler cannot know.
        PortSpec::on("x".parse().expect("a valid name"))
    }

    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String> {
        match key {
            "network" => {
                let text = value.and_then(Value::text).unwrap_or_default();
                self.network = text.parse().map_err(|_| {
                    "a name has 1 to 32 characters of a-z 0-9 . _ -, a letter or digit first".to_owned()
                })?;
            }
            "tap" => self.tap = value.and_then(Value::text),
            "netns" => self.netns = value.and_then(Value::text),
            "netdev" => self.netdev = value.and_then(Value::text),
            "mac" => self.mac = value.and_then(Value::text),
            "vlan" => self.vlan = value.and_then(Value::text),
            "admin" => {
                self.admin = match value.and_then(Value::text).as_deref() {
                    Some("down") => Admin::Down,
                    _ => Admin::Up,
                }
            }
            "mac-limit" => self.mac_limit = value.and_then(Value::number),
            _ => return unknown(key),
        }
        Ok(())
    }
}

impl Spec for MirrorSpec {
    const SECTION: &'static str = "mirror";
    const KEYS: &'static [Key] = &[
        must("source", Type::List),
        key("direction", Type::Choice(&["rx", "tx", "both"])),
        must("to", Type::Text),
        key("filter", Type::Text),
        key("snaplen", Type::Number(range::SNAPLEN)),
        key("segment", Type::Flag),
        key("rotate-size", Type::Text),
        key("rotate-time", Type::Text),
        key("rotate-count", Type::Number(range::FILES)),
    ];

    fn blank() -> MirrorSpec {
        MirrorSpec {
            source: Vec::new(),
            direction: None,
            to: String::new(),
            filter: None,
            snaplen: None,
            segment: false,
            rotate_size: None,
            rotate_time: None,
            rotate_count: None,
        }
    }

    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String> {
        match key {
            "source" => {
                self.source = match value {
                    Some(Value::List(list)) => list,
                    _ => Vec::new(),
                }
            }
            "direction" => {
                self.direction = value.and_then(Value::text).map(|text| match text.as_str() {
                    "rx" => MirrorDirection::Rx,
                    "tx" => MirrorDirection::Tx,
                    _ => MirrorDirection::Both,
                })
            }
            "to" => self.to = value.and_then(Value::text).unwrap_or_default(),
            "filter" => self.filter = value.and_then(Value::text),
            "snaplen" => self.snaplen = value.and_then(Value::number),
            "segment" => self.segment = value == Some(Value::Flag(true)),
            "rotate-size" => self.rotate_size = value.and_then(Value::text),
            "rotate-time" => self.rotate_time = value.and_then(Value::text),
            "rotate-count" => self.rotate_count = value.and_then(Value::number),
            _ => return unknown(key),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_key_is_known_to_put_and_to_serde<T: Spec + serde::Serialize>(full: &T) {
        let json = serde_json::to_value(full).unwrap();
        let mut known: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = T::key_names();
        known.sort();
        keys.sort();
        assert_eq!(known, keys);
        for key in T::KEYS.iter().filter(|key| key.name != "network") {
            assert_eq!(T::blank().put(key.name, None), Ok(()), "{}", key.name);
        }
        assert!(T::blank().put("nonsense", None).is_err());
    }

    #[test]
    fn the_tables_and_the_model_have_the_same_keys() {
        every_key_is_known_to_put_and_to_serde(&NetworkSpec {
            kind: Kind::Isolated,
            uplink: Some("a".into()),
            vlan: Some(1),
            mtu: Some(1),
            ageing: Some(1),
            mac_limit: Some(1),
            fdb: BTreeMap::from([("a".into(), "b".into())]),
            ..NetworkSpec::default()
        });
        every_key_is_known_to_put_and_to_serde(&PortSpec {
            network: "n".parse().unwrap(),
            tap: Some("a".into()),
            netns: Some("a".into()),
            netdev: Some("a".into()),
            mac: Some("a".into()),
            vlan: Some("a".into()),
            admin: Admin::Down,
            mac_limit: Some(1),
            ..PortSpec::on("n".parse().unwrap())
        });
        every_key_is_known_to_put_and_to_serde(&MirrorSpec {
            source: vec!["a".into()],
            direction: Some(MirrorDirection::Rx),
            to: "a".into(),
            filter: Some("a".into()),
            snaplen: Some(1),
            segment: true,
            rotate_size: Some("a".into()),
            rotate_time: Some("a".into()),
            rotate_count: Some(1),
        });
    }
}
