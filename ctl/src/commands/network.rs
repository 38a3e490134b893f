//! `network create`: flags and further settings become the body of one request.

use super::{Asker, body};
use crate::args::{Nat, NetworkCreate};
use crate::failure::{Exit, Failure};
use hyper::Method;
use serde_json::{Map, Value, json};
use switchd_api::model::NetworkSpec;

/// Keys whose values are numbers in JSON. Times take a unit.
const NUMBERS: &[&str] = &["vlan", "mtu", "mac-limit", "dhcp-port-limit", "flow-limit", "flow-quota"];
const SECONDS: &[&str] =
    &["ageing", "lease-time", "udp-timeout", "tcp-timeout", "tcp-transitory-timeout", "icmp-timeout"];

impl Asker {
    pub(super) async fn create_network(&self, network: NetworkCreate) -> Result<(), Failure> {
        let NetworkCreate { name, kind, uplink, vlan, mtu, ageing, mac_limit, nat, settings } = network;
        let Nat { subnet, subnet6, egress, address, address6, pool, gateway, gateway6, mac, dns, resolver } =
            nat;
        let done = format!("network {name} created");
        let mut body = body([
            ("name", json!(name)),
            ("kind", json!(kind)),
            ("uplink", json!(uplink)),
            ("vlan", json!(vlan)),
            ("mtu", json!(mtu)),
            ("ageing", json!(ageing)),
            ("mac-limit", json!(mac_limit)),
            ("subnet", json!(subnet)),
            ("subnet6", json!(subnet6)),
            ("egress", json!(egress)),
            ("address", json!(address)),
            ("address6", json!(address6)),
            ("pool", json!(pool)),
            ("gateway", json!(gateway)),
            ("gateway6", json!(gateway6)),
            ("mac", json!(mac)),
            ("dns", json!(dns)),
            ("resolver", json!(resolver)),
        ]);
        if let Value::Object(keys) = &mut body {
            for (key, value) in settings {
                if !is_key(&key) {
                    let message = format!("network {name}: --set {key}={value}: there is no such key");
                    return Err(Failure::new(Exit::Usage, message).hint(
                        "switchctl network create --help has the keys; the file of `apply` has the same",
                    ));
                }
                put(keys, &key, &value).map_err(|why| {
                    Failure::new(Exit::Usage, format!("network {name}: --set {key}={value}: {why}"))
                })?;
            }
        }
        self.change(Method::POST, "/v1/networks", Some(body), &done).await.map(drop)
    }
}

/// Whether a network has such a key, that of a map among them.
fn is_key(key: &str) -> bool {
    let key = key.split_once('.').map_or(key, |(map, _)| map);
    // A value of the wrong type names its key no worse than the daemon does: here only the name is judged.
    let known = serde_json::from_value::<NetworkSpec>(json!({ "kind": "nat", key: null }));
    key == "name" || !matches!(known, Err(error) if error.to_string().starts_with("unknown field"))
}

/// `MAP.ENTRY=VALUE` is an entry of a map.
fn put(keys: &mut Map<String, Value>, key: &str, text: &str) -> Result<(), &'static str> {
    let twice = "the key is given twice";
    if key == "name" {
        return Err("the name stands behind `create`");
    }
    if let Some((map, entry)) = key.split_once('.') {
        let map = keys.entry(map).or_insert_with(|| json!({}));
        let map = map.as_object_mut().ok_or(twice)?;
        return if map.insert(entry.to_owned(), json!(text)).is_none() { Ok(()) } else { Err(twice) };
    }
    let value = if NUMBERS.contains(&key) {
        json!(text.parse::<u32>().map_err(|_| "expected a whole number")?)
    } else if SECONDS.contains(&key) {
        json!(seconds(text).ok_or("expected seconds, or a number with s, m, h or d")?)
    } else {
        json!(text)
    };
    // What stays out of the body has its default.
    if text.is_empty() {
        return Ok(());
    }
    if keys.insert(key.to_owned(), value).is_none() { Ok(()) } else { Err(twice) }
}

fn seconds(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_get_the_types_of_the_api() {
        let mut keys = Map::new();
        for (key, text) in [
            ("mtu", "9000"),
            ("lease-time", "2h"),
            ("udp-timeout", "300"),
            ("dhcp", "off"),
            ("dhcp-option.ntp", "10.7.0.5"),
            ("dhcp-option.search", "a.example,b.example"),
        ] {
            assert_eq!(put(&mut keys, key, text), Ok(()), "{key}");
        }
        let body = json!({ "mtu": 9000, "lease-time": 7200, "udp-timeout": 300, "dhcp": "off",
            "dhcp-option": { "ntp": "10.7.0.5", "search": "a.example,b.example" } });
        assert_eq!(Value::Object(keys.clone()), body);
        for (key, text) in [("mtu", "1500"), ("dhcp-option.ntp", "10.7.0.6"), ("name", "x"), ("vlan", "ten")]
        {
            assert!(put(&mut keys, key, text).is_err(), "{key}");
        }
        for known in ["mtu", "rstp", "lease-time", "flow-limit", "dhcp-option.ntp", "forward.tcp/80", "dhcp6"]
        {
            assert!(is_key(known), "{known}");
        }
        for unknown in ["foo", "lease_time", "leasetime", "foo.ntp", ""] {
            assert!(!is_key(unknown), "{unknown}");
        }
        for bad in ["", "h", "1w", "1hm", "-1", "99999999d"] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }
}
