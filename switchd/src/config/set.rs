//! KEY=VALUE as users type it: `mtu=9000 ageing=5m admin=down`. An empty value is the default.

use super::keys::{Entries, Key, Spec, Type, Value};
use super::problem::{Problem, nearest, one_of};
use std::collections::BTreeMap;
use switchd_api::model::{BondSpec, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::name::Name;

/// The new spec. Nothing is checked but that each key exists and its value has the right type and range;
/// [`super::validate`] does the rest.
pub fn set_network(
    name: &Name,
    spec: &NetworkSpec,
    keys: &BTreeMap<String, String>,
) -> Result<NetworkSpec, Problem> {
    set(name, spec, keys)
}

/// As [`set_network`].
pub fn set_port(name: &Name, spec: &PortSpec, keys: &BTreeMap<String, String>) -> Result<PortSpec, Problem> {
    set(name, spec, keys)
}

/// As [`set_network`].
pub fn set_bond(name: &Name, spec: &BondSpec, keys: &BTreeMap<String, String>) -> Result<BondSpec, Problem> {
    set(name, spec, keys)
}

/// As [`set_network`].
pub fn set_mirror(
    name: &Name,
    spec: &MirrorSpec,
    keys: &BTreeMap<String, String>,
) -> Result<MirrorSpec, Problem> {
    set(name, spec, keys)
}

fn set<T: Spec>(name: &Name, spec: &T, keys: &BTreeMap<String, String>) -> Result<T, Problem> {
    let object = [T::SECTION, name.as_str()];
    let settable: Vec<&str> =
        T::KEYS.iter().filter(|key| !matches!(key.kind, Type::Map(_))).map(|key| key.name).collect();
    if keys.is_empty() {
        return Err(Problem::new(&object, "nothing to set")
            .help(format!("write KEY=VALUE; the keys are {}", one_of(&settable))));
    }
    let mut spec = spec.clone();
    for (word, text) in keys {
        let path = [T::SECTION, name.as_str(), word.as_str()];
        if let Some((map, entry)) = word.split_once('.')
            && let Some(entries) = spec.entries(map)
        {
            let path = [T::SECTION, name.as_str(), map, entry];
            set_entry::<T>(entries, &path, text)?;
            continue;
        }
        let Some(key) = T::key(word) else {
            let meant = nearest(word, settable.iter().copied());
            let meant = meant.map_or_else(String::new, |key| format!("did you mean {key}? "));
            return Err(Problem::new(&path, "there is no such key")
                .help(format!("{meant}the keys are {}", one_of(&settable))));
        };
        let value = match text.as_str() {
            "" if key.required => return Err(Problem::new(&path, "this key has no default").text(text)),
            "" => None,
            text => Some(read(key, text).map_err(|rule| match key.kind {
                Type::Map(Entries { set: Err(commands), .. }) => {
                    Problem::new(&path, rule).help(commands.replace("{}", name.as_str()))
                }
                Type::Map(Entries { set: Ok(entries), .. }) => {
                    Problem::new(&path, rule).help(format!("as in {word}.{}=VALUE", entries[0]))
                }
                _ => Problem::new(&path, rule).text(text),
            })?),
        };
        spec.put(word, value).map_err(|rule| Problem::new(&path, rule).text(text))?;
    }
    Ok(spec)
}

/// `dhcp-option.ntp=10.7.0.5`. `path` ends with the map's key and the entry.
fn set_entry<T: Spec>(
    entries: &mut BTreeMap<String, String>,
    path: &[&str; 4],
    text: &str,
) -> Result<(), Problem> {
    let [.., map, entry] = path;
    if let Some(Key { kind: Type::Map(Entries { set: Ok(known), .. }), .. }) = T::key(map)
        && !known.contains(entry)
    {
        return Err(Problem::new(path, "there is no such entry").help(format!("it is {}", one_of(known))));
    }
    match text {
        "" => entries.remove(*entry),
        text => entries.insert((*entry).to_owned(), text.to_owned()),
    };
    Ok(())
}

fn read(key: &Key, text: &str) -> Result<Value, String> {
    match key.kind {
        Type::Text => Ok(Value::Text(text.to_owned())),
        Type::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Type::Choice(words) => Err(format!("expected {}", one_of(words))),
        Type::Number(rule) => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number
                .filter(|number| (rule.min..=rule.max).contains(number))
                .map(Value::Number)
                .ok_or_else(|| rule.sentence())
        }
        Type::Seconds(rule) => super::value::time(text)
            .ok()
            .filter(|seconds| (rule.min..=rule.max).contains(seconds))
            .map(Value::Number)
            .ok_or_else(|| rule.sentence()),
        Type::Flag => match text {
            "true" | "yes" | "on" => Ok(Value::Flag(true)),
            "false" | "no" | "off" => Ok(Value::Flag(false)),
            _ => Err("expected true or false".into()),
        },
        Type::List => Ok(Value::List(text.split(',').map(str::to_owned).collect())),
        Type::Map(_) => Err("this key is set entry by entry".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_api::model::Admin;

    fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn network(pairs: &[(&str, &str)]) -> Result<NetworkSpec, String> {
        set_network(&name("lab"), &NetworkSpec::blank(), &keys(pairs))
            .map_err(|problem| format!("{problem} | {}", problem.help.as_deref().unwrap_or_default()))
    }

    #[test]
    fn keys_are_set_as_users_type_them() {
        let spec =
            network(&[("mtu", "9000"), ("ageing", "5m"), ("mac-limit", "100"), ("uplink", "eth0")]).unwrap();
        assert_eq!((spec.mtu, spec.ageing, spec.mac_limit), (Some(9000), Some(300), Some(100)));
        assert_eq!(spec.uplink.as_deref(), Some("eth0"));
        let port = set_port(
            &name("vm1"),
            &PortSpec::blank(),
            &keys(&[("admin", "down"), ("vlan", "access=10"), ("network", "lab")]),
        )
        .unwrap();
        assert_eq!(
            (port.admin, port.vlan.as_deref(), port.network.as_str()),
            (Admin::Down, Some("access=10"), "lab")
        );
        let mirror = set_mirror(
            &name("m"),
            &MirrorSpec::blank(),
            &keys(&[("source", "port:a,port:b"), ("segment", "yes"), ("to", "pcap:x")]),
        )
        .unwrap();
        assert_eq!((mirror.source.len(), mirror.segment, mirror.to.as_str()), (2, true, "pcap:x"));
    }

    #[test]
    fn an_empty_value_is_the_default() {
        let mut spec = NetworkSpec::blank();
        spec.mtu = Some(9000);
        assert_eq!(set_network(&name("lab"), &spec, &keys(&[("mtu", "")])).unwrap().mtu, None);
        let mut port = PortSpec::blank();
        port.admin = Admin::Down;
        assert_eq!(set_port(&name("p"), &port, &keys(&[("admin", "")])).unwrap().admin, Admin::Up);
    }

    #[test]
    fn entries_of_a_map_and_members_of_a_bond_are_set_too() {
        let spec =
            network(&[("kind", "nat"), ("dhcp-option.ntp", "10.7.0.5"), ("lease-time", "2h")]).unwrap();
        assert_eq!(spec.dhcp_option["ntp"], "10.7.0.5");
        assert_eq!((spec.kind, spec.lease_time), (switchd_api::Kind::Nat, Some(7200)));
        let gone = set_network(&name("lab"), &spec, &keys(&[("dhcp-option.ntp", "")])).unwrap();
        assert!(gone.dhcp_option.is_empty());
        let bond = set_bond(&name("b"), &BondSpec::blank(), &keys(&[("members", "eth0,eth1"), ("key", "7")]));
        let bond = bond.unwrap();
        assert_eq!((bond.members, bond.key), (vec!["eth0".to_owned(), "eth1".to_owned()], Some(7)));
        let error = set_bond(&name("b"), &BondSpec::blank(), &keys(&[("key", "0")])).unwrap_err();
        assert_eq!(error.to_string(), "bond b: key \"0\": the key is 1 to 65535");
    }

    #[test]
    fn refusals_name_key_value_and_rule() {
        for (key, value, message) in [
            ("mtu", "67", "network lab: mtu \"67\": the MTU is 68 to 9216"),
            ("mtu", "9217", "network lab: mtu \"9217\": the MTU is 68 to 9216"),
            ("mtu", "-1", "network lab: mtu \"-1\": the MTU is 68 to 9216"),
            ("mtu", "99999999999999999999", "network lab: mtu \"99999999999999999999\": the MTU is"),
            ("ageing", "5", "network lab: ageing \"5\": the ageing time in seconds is 10 to 1000000"),
            ("ageing", "soon", "network lab: ageing \"soon\": the ageing time in seconds is"),
            ("kind", "vpn", "network lab: kind \"vpn\": expected bridged, isolated or nat"),
            ("rstp", "yes", "network lab: rstp \"yes\": expected on or off"),
            (
                "dhcp-option.npt",
                "x",
                "network lab: dhcp-option.npt: there is no such entry | it is ntp, tftp,",
            ),
            (
                "dhcp-option",
                "x",
                "network lab: dhcp-option: this key is set entry by entry | as in dhcp-option.ntp=",
            ),
            (
                "forward",
                "x",
                "network lab: forward: this key is set entry by entry | `switchctl forward add lab ",
            ),
            ("kind", "", "network lab: kind \"\": this key has no default"),
            (
                "fdb",
                "x",
                "network lab: fdb: this key is set entry by entry | `switchctl fdb add lab MAC PORT`",
            ),
        ] {
            let error = network(&[(key, value)]).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
        let error = set_port(&name("vm1"), &PortSpec::blank(), &keys(&[("network", "../x")])).unwrap_err();
        assert!(error.to_string().starts_with("port vm1: network \"../x\": a name has 1 to 32"), "{error}");
        let error = set_mirror(&name("m"), &MirrorSpec::blank(), &keys(&[("segment", "maybe")])).unwrap_err();
        assert_eq!(error.to_string(), "mirror m: segment \"maybe\": expected true or false");
    }

    #[test]
    fn an_unknown_key_lists_those_that_exist() {
        let error = network(&[("mtuu", "1")]).unwrap_err();
        let begin =
            "network lab: mtuu: there is no such key | did you mean mtu? the keys are kind, uplink, vlan, ";
        assert!(
            error.starts_with(begin) && error.ends_with(", tcp-transitory-timeout or icmp-timeout"),
            "{error}"
        );
        let error = network(&[("name", "x")]).unwrap_err();
        assert!(
            error.starts_with("network lab: name: there is no such key | the keys are kind, "),
            "{error}"
        );
        assert!(network(&[]).unwrap_err().starts_with("network lab: nothing to set | write KEY=VALUE"));
    }
}
