//! The keys of each object, and how a value is put under its key.

use super::keys::{FDB, FLOATING, FORWARDS, Key, ON_OFF, OPTIONS, Spec, Type, Value, key, must, range};
use std::collections::BTreeMap;
use switchd_api::model::{
    Admin, BondMode, BondSpec, Kind, MirrorDirection, MirrorSpec, NetworkSpec, PortSpec,
};

fn unknown(key: &str) -> Result<(), String> {
    Err(format!("unknown key {key:?}"))
}

/// The text of a key that is text, or a choice.
fn words(value: Option<Value>) -> Option<String> {
    value.and_then(Value::text)
}

fn map(value: Option<Value>) -> BTreeMap<String, String> {
    match value {
        Some(Value::Map(map)) => map,
        _ => BTreeMap::new(),
    }
}

impl Spec for NetworkSpec {
    const SECTION: &'static str = "network";
    const KEYS: &'static [Key] = &[
        must("kind", Type::Choice(&["bridged", "isolated", "nat"])),
        key("uplink", Type::Text),
        key("vlan", Type::Number(range::VID)),
        key("mtu", Type::Number(range::MTU)),
        key("ageing", Type::Seconds(range::AGEING)),
        key("mac-limit", Type::Number(range::MAC_LIMIT)),
        key("rstp", ON_OFF),
        key("subnet", Type::Text),
        key("subnet6", Type::Text),
        key("egress", Type::Text),
        key("address", Type::Text),
        key("address6", Type::Text),
        key("pool", Type::Text),
        key("gateway", Type::Text),
        key("gateway6", Type::Text),
        key("mac", Type::Text),
        key("dns", Type::Text),
        key("resolver", Type::Text),
        key("mode6", Type::Choice(&["nat", "routed"])),
        key("dhcp6", Type::Choice(&["slaac", "stateful"])),
        key("dhcp", ON_OFF),
        key("dhcp-range", Type::Text),
        key("dhcp-option", Type::Map(OPTIONS)),
        key("lease-time", Type::Seconds(range::LEASE)),
        key("dhcp-port-limit", Type::Number(range::PORT_LIMIT)),
        key("filtering", Type::Choice(&["address-and-port", "endpoint-independent"])),
        key("flow-limit", Type::Number(range::FLOWS)),
        key("flow-quota", Type::Number(range::FLOWS)),
        key("udp-timeout", Type::Seconds(range::UDP)),
        key("tcp-timeout", Type::Seconds(range::TCP)),
        key("tcp-transitory-timeout", Type::Seconds(range::TRANSITORY)),
        key("icmp-timeout", Type::Seconds(range::ICMP)),
        key("forward", Type::Map(FORWARDS)),
        key("floating", Type::Map(FLOATING)),
        key("fdb", Type::Map(FDB)),
    ];

    fn blank() -> NetworkSpec {
        NetworkSpec::default()
    }

    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String> {
        match key {
            "kind" => {
                self.kind = match words(value).as_deref() {
                    Some("isolated") => Kind::Isolated,
                    Some("nat") => Kind::Nat,
                    _ => Kind::Bridged,
                }
            }
            "uplink" => self.uplink = words(value),
            "vlan" => self.vlan = value.and_then(Value::number),
            "mtu" => self.mtu = value.and_then(Value::number),
            "ageing" => self.ageing = value.and_then(Value::number),
            "mac-limit" => self.mac_limit = value.and_then(Value::number),
            "rstp" => self.rstp = words(value),
            "subnet" => self.subnet = words(value),
            "subnet6" => self.subnet6 = words(value),
            "egress" => self.egress = words(value),
            "address" => self.address = words(value),
            "address6" => self.address6 = words(value),
            "pool" => self.pool = words(value),
            "gateway" => self.gateway = words(value),
            "gateway6" => self.gateway6 = words(value),
            "mac" => self.mac = words(value),
            "dns" => self.dns = words(value),
            "resolver" => self.resolver = words(value),
            "mode6" => self.mode6 = words(value),
            "dhcp6" => self.dhcp6 = words(value),
            "dhcp" => self.dhcp = words(value),
            "dhcp-range" => self.dhcp_range = words(value),
            "dhcp-option" => self.dhcp_option = map(value),
            "lease-time" => self.lease_time = value.and_then(Value::number),
            "dhcp-port-limit" => self.dhcp_port_limit = value.and_then(Value::number),
            "filtering" => self.filtering = words(value),
            "flow-limit" => self.flow_limit = value.and_then(Value::number),
            "flow-quota" => self.flow_quota = value.and_then(Value::number),
            "udp-timeout" => self.udp_timeout = value.and_then(Value::number),
            "tcp-timeout" => self.tcp_timeout = value.and_then(Value::number),
            "tcp-transitory-timeout" => self.tcp_transitory_timeout = value.and_then(Value::number),
            "icmp-timeout" => self.icmp_timeout = value.and_then(Value::number),
            "forward" => self.forward = map(value),
            "floating" => self.floating = map(value),
            "fdb" => self.fdb = map(value),
            _ => return unknown(key),
        }
        Ok(())
    }

    fn entries(&mut self, key: &str) -> Option<&mut BTreeMap<String, String>> {
        (key == "dhcp-option").then_some(&mut self.dhcp_option)
    }
}

impl Spec for BondSpec {
    const SECTION: &'static str = "bond";
    const KEYS: &'static [Key] = &[
        must("members", Type::List),
        must("mode", Type::Choice(&["lacp", "active-backup"])),
        key("lacp", Type::Choice(&["active", "passive"])),
        key("rate", Type::Choice(&["fast", "slow"])),
        key("hash", Type::Choice(&["layer2", "layer2+3", "layer3+4"])),
        key("min-links", Type::Number(range::MIN_LINKS)),
        key("prefer", Type::Text),
        key("system-priority", Type::Number(range::PRIORITY)),
        key("system-id", Type::Text),
        key("key", Type::Number(range::KEY)),
        key("fallback", Type::Choice(&["none", "active-backup"])),
        key("peer", Type::Text),
        key("peer-id", Type::Number(range::HALF)),
    ];

    fn blank() -> BondSpec {
        BondSpec {
            members: Vec::new(),
            mode: BondMode::Lacp,
            lacp: None,
            rate: None,
            hash: None,
            min_links: None,
            prefer: None,
            system_priority: None,
            system_id: None,
            key: None,
            fallback: None,
            peer: None,
            peer_id: None,
        }
    }

    fn put(&mut self, key: &str, value: Option<Value>) -> Result<(), String> {
        match key {
            "members" => {
                self.members = match value {
                    Some(Value::List(list)) => list,
                    _ => Vec::new(),
                }
            }
            "mode" => {
                self.mode = match words(value).as_deref() {
                    Some("active-backup") => BondMode::ActiveBackup,
                    _ => BondMode::Lacp,
                }
            }
            "lacp" => self.lacp = words(value),
            "rate" => self.rate = words(value),
            "hash" => self.hash = words(value),
            "min-links" => self.min_links = value.and_then(Value::number),
            "prefer" => self.prefer = words(value),
            "system-priority" => self.system_priority = value.and_then(Value::number),
            "system-id" => self.system_id = words(value),
            "key" => self.key = value.and_then(Value::number),
            "fallback" => self.fallback = words(value),
            "peer" => self.peer = words(value),
            "peer-id" => self.peer_id = value.and_then(Value::number),
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
        key("vhost-user", Type::Text),
        key("server", Type::Flag),
        key("queues", Type::Number(range::QUEUES)),
        key("socket-mode", Type::Text),
        key("socket-owner", Type::Text),
        key("mac", Type::Text),
        key("vlan", Type::Text),
        key("admin", Type::Choice(&["up", "down"])),
        key("mac-limit", Type::Number(range::MAC_LIMIT)),
        key("reserve", Type::Text),
        key("storm-limit", Type::Text),
        key("bpdu-guard", ON_OFF),
        key("loop-guard", ON_OFF),
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
            "vhost-user" => self.vhost_user = words(value),
            "server" => self.server = value == Some(Value::Flag(true)),
            "queues" => self.queues = value.and_then(Value::number),
            "socket-mode" => self.socket_mode = words(value),
            "socket-owner" => self.socket_owner = words(value),
            "mac" => self.mac = value.and_then(Value::text),
            "vlan" => self.vlan = value.and_then(Value::text),
            "admin" => {
                self.admin = match value.and_then(Value::text).as_deref() {
                    Some("down") => Admin::Down,
                    _ => Admin::Up,
                }
            }
            "mac-limit" => self.mac_limit = value.and_then(Value::number),
            "reserve" => self.reserve = words(value),
            "storm-limit" => self.storm_limit = words(value),
            "bpdu-guard" => self.bpdu_guard = words(value),
            "loop-guard" => self.loop_guard = words(value),
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
        let text = || Some("a".to_owned());
        let entries = || BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        every_key_is_known_to_put_and_to_serde(&NetworkSpec {
            kind: Kind::Isolated,
            uplink: text(),
            vlan: Some(1),
            mtu: Some(1),
            ageing: Some(1),
            mac_limit: Some(1),
            subnet: text(),
            subnet6: text(),
            egress: text(),
            address: text(),
            address6: text(),
            pool: text(),
            gateway: text(),
            gateway6: text(),
            mac: text(),
            dns: text(),
            resolver: text(),
            mode6: text(),
            dhcp6: text(),
            dhcp: text(),
            dhcp_range: text(),
            dhcp_option: entries(),
            lease_time: Some(1),
            dhcp_port_limit: Some(1),
            filtering: text(),
            flow_limit: Some(1),
            flow_quota: Some(1),
            udp_timeout: Some(1),
            tcp_timeout: Some(1),
            tcp_transitory_timeout: Some(1),
            icmp_timeout: Some(1),
            forward: entries(),
            floating: entries(),
            rstp: text(),
            fdb: entries(),
        });
        every_key_is_known_to_put_and_to_serde(&BondSpec {
            members: vec!["a".into()],
            mode: BondMode::Lacp,
            lacp: text(),
            rate: text(),
            hash: text(),
            min_links: Some(1),
            prefer: text(),
            system_priority: Some(1),
            system_id: text(),
            key: Some(1),
            fallback: text(),
            peer: text(),
            peer_id: Some(1),
        });
        every_key_is_known_to_put_and_to_serde(&PortSpec {
            network: "n".parse().unwrap(),
            tap: text(),
            netns: text(),
            netdev: text(),
            vhost_user: text(),
            server: true,
            queues: Some(1),
            socket_mode: text(),
            socket_owner: text(),
            mac: text(),
            vlan: text(),
            admin: Admin::Down,
            mac_limit: Some(1),
            reserve: text(),
            storm_limit: text(),
            bpdu_guard: text(),
            loop_guard: text(),
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
