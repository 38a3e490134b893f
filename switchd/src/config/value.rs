//! The small grammars: VLAN specs, interface and namespace names, sizes, times, keys of static entries.
//!
//! Each returns the rule that was broken, as a sentence without the value.

use switchd_dataplane::VlanMode;
use switchd_wire::MacAddr;

/// VLAN IDs: 0 is the priority tag, 4095 is reserved (802.1Q table 9-2).
pub(super) const VID_RULE: &str = "a VLAN ID is 1 to 4094";

fn vid(text: &str) -> Result<u16, String> {
    number(text)
        .and_then(|vid| u16::try_from(vid).ok())
        .filter(|vid| (1..=4094).contains(vid))
        .ok_or_else(|| VID_RULE.to_owned())
}

/// Decimal digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `access=10` | `trunk=10,20,30-39,native=1`
pub fn vlan(text: &str) -> Result<VlanMode, String> {
    match text.split_once('=') {
        Some(("access", value)) => vid(value).map(VlanMode::Access),
        Some(("trunk", list)) => trunk(list),
        _ => Err("expected access=VID or trunk=VID,VID-VID,native=VID".into()),
    }
}

fn trunk(list: &str) -> Result<VlanMode, String> {
    let mut allowed = std::collections::BTreeSet::new();
    let mut native = None;
    for item in list.split(',') {
        if let Some(value) = item.strip_prefix("native=") {
            if native.replace(vid(value)?).is_some() {
                return Err("a trunk has one native VLAN".into());
            }
            continue;
        }
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (vid(first)?, vid(last)?),
            None => (vid(item)?, vid(item)?),
        };
        if first > last {
            return Err(format!("the range {first}-{last} goes backwards"));
        }
        if let Some(twice) = (first..=last).find(|&vid| !allowed.insert(vid)) {
            return Err(format!("VLAN {twice} is named twice"));
        }
    }
    if allowed.is_empty() {
        return Err("a trunk names at least one tagged VLAN, as in trunk=10,native=1".into());
    }
    Ok(VlanMode::Trunk { allowed: allowed.into_iter().collect(), native })
}

/// What the kernel takes as an interface's name (dev_valid_name), and nothing that breaks a line or a table.
pub fn ifname(text: &str) -> Result<(), String> {
    let rule = if text.is_empty() || text.len() > 15 {
        "an interface name has 1 to 15 bytes"
    } else if text == "." || text == ".." {
        "an interface cannot be named . or .."
    } else if text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace()) {
        "an interface name has no slash, colon or white space"
    } else if text.chars().any(char::is_control) {
        "an interface name has no control characters"
    } else if text.contains('%') {
        "an interface name has no %: the kernel would number it"
    } else {
        return Ok(());
    };
    Err(rule.into())
}

/// Of the host's, to attach to: the loopback carries no Ethernet frames.
pub(super) fn host_interface(text: &str) -> Result<(), String> {
    match text {
        "lo" => Err(
            "the loopback is no Ethernet interface: a tap of your own reaches the host (tap = \"IFNAME\" \
                     without netns)"
                .to_owned(),
        ),
        text => ifname(text),
    }
}

/// Path of a unix socket: what fits into its address.
pub(super) fn socket(text: &str) -> Result<(), String> {
    let rule = if !text.starts_with('/') {
        "the path of a socket is absolute"
    } else if text.len() > 107 {
        "the path of a socket has at most 107 bytes"
    } else if text.split('/').any(|part| part == "..") || text.ends_with('/') {
        "the path of a socket has no .. and ends with its name"
    } else if text.chars().any(char::is_control) {
        "the path of a socket has no control characters"
    } else {
        return Ok(());
    };
    Err(rule.into())
}

/// Access rights in octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("access rights are three octal digits".into()),
    }
}

/// `USER`, `USER:GROUP` or `:GROUP`; that they exist is seen when the socket is made.
pub(super) fn owner(text: &str) -> Result<(), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_graphic() && !b":/".contains(&byte));
    match plain(user) && plain(group) && user.len() + group.len() > 0 && text.len() <= 80 {
        true => Ok(()),
        false => Err("an owner is USER, USER:GROUP or :GROUP".into()),
    }
}

/// A file beneath /run/netns.
pub fn netns(text: &str) -> Result<(), String> {
    let rule = if text.is_empty() || text.len() > 255 {
        "a namespace's name has 1 to 255 bytes"
    } else if text == "." || text == ".." || text.contains('/') {
        "a namespace is one name beneath /run/netns, not a path"
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "a namespace's name has no white space or control characters"
    } else {
        return Ok(());
    };
    Err(rule.into())
}

/// Frames a second, or `off`.
pub fn storm(text: &str) -> Result<Option<u32>, String> {
    if text == "off" {
        return Ok(None);
    }
    number(text)
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|limit| (100..=10_000_000).contains(limit))
        .map(Some)
        .ok_or_else(|| "the storm limit is 100 to 10000000 frames a second, or off".to_owned())
}

/// Of a host: unicast, not zero.
pub(super) fn host_mac(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = text.parse().map_err(|error: switchd_wire::mac::BadMac| error.to_string())?;
    if mac.is_zero() {
        return Err("the all-zero address belongs to nobody".into());
    }
    if mac.is_group() {
        return Err("a group address (odd first octet) belongs to no single host".into());
    }
    Ok(mac)
}

/// `MAC` or `MAC@VID`
pub fn fdb_key(text: &str) -> Result<(MacAddr, Option<u16>), String> {
    match text.split_once('@') {
        None => Ok((host_mac(text)?, None)),
        Some((mac, tag)) => Ok((host_mac(mac)?, Some(vid(tag)?))),
    }
}

/// Bytes: `65536`, `64K`, `10M`, `1G` (1024).
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|bytes| (1024..=1 << 40).contains(bytes))
        .ok_or_else(|| "expected 1K to 1024G: bytes, or with K, M or G, as in 10M".into())
}

/// Seconds: `90`, `90s`, `5m`, `12h`, `7d`.
pub fn time(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86400),
        _ => (text, 1),
    };
    number(digits)
        .and_then(|count| count.checked_mul(factor))
        .filter(|seconds| (1..=366 * 86400).contains(seconds))
        .ok_or_else(|| "expected 1s to 366d: seconds, or with s, m, h or d, as in 5m".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(text: &str) -> (Vec<u16>, Option<u16>) {
        match vlan(text).unwrap() {
            VlanMode::Trunk { allowed, native } => (allowed.iter().collect(), native),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn vlan_specs() {
        assert_eq!(vlan("access=10"), Ok(VlanMode::Access(10)));
        assert_eq!(vlan("access=4094"), Ok(VlanMode::Access(4094)));
        assert_eq!(tagged("trunk=10,20,native=1"), (vec![10, 20], Some(1)));
        assert_eq!(tagged("trunk=native=1,10-13"), (vec![10, 11, 12, 13], Some(1)));
        assert_eq!(tagged("trunk=20,10,native=10"), (vec![10, 20], Some(10)));
        assert_eq!(tagged("trunk=1-4094").0.len(), 4094);
    }

    #[test]
    fn vlan_refusals_name_the_rule() {
        let grammar = "expected access=VID or trunk=VID,VID-VID,native=VID";
        for (text, rule) in [
            ("access=0", VID_RULE),
            ("access=4095", VID_RULE),
            ("access=70000", VID_RULE),
            ("access=", VID_RULE),
            ("access=10,20", VID_RULE),
            ("access=+1", VID_RULE),
            ("access= 1", VID_RULE),
            ("trunk=0", VID_RULE),
            ("trunk=10,4095", VID_RULE),
            ("trunk=10,native=0", VID_RULE),
            ("trunk=10-", VID_RULE),
            ("trunk=", VID_RULE),
            ("trunk=10,", VID_RULE),
            ("trunk=1-2-3", VID_RULE),
            ("trunk=20-10", "the range 20-10 goes backwards"),
            ("trunk=10,20,10", "VLAN 10 is named twice"),
            ("trunk=10-19,15", "VLAN 15 is named twice"),
            ("trunk=10,native=1,native=2", "a trunk has one native VLAN"),
            ("trunk=native=1", "a trunk names at least one tagged VLAN, as in trunk=10,native=1"),
            ("", grammar),
            ("10", grammar),
            ("Access=10", grammar),
            ("hybrid=10", grammar),
        ] {
            assert_eq!(vlan(text).unwrap_err(), rule, "{text:?}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "vm1.0", "tap-é", "a", "fifteen-bytes-x"] {
            assert_eq!(ifname(good), Ok(()), "{good:?}");
        }
        for (bad, rule) in [
            ("", "1 to 15 bytes"),
            ("sixteen-bytes-xx", "1 to 15 bytes"),
            ("ééééééééé", "1 to 15 bytes"),
            (".", ". or .."),
            ("..", ". or .."),
            ("a/b", "slash"),
            ("a b", "white space"),
            ("a\n", "white space"),
            ("a:1", "colon"),
            ("a\u{1b}", "control"),
            ("tap%d", "%"),
        ] {
            assert!(ifname(bad).unwrap_err().contains(rule), "{bad:?}");
        }
    }

    #[test]
    fn the_loopback_is_nothing_to_attach_to() {
        assert!(host_interface("lo").unwrap_err().starts_with("the loopback is no Ethernet interface"));
        assert_eq!(host_interface("lo0"), Ok(()));
        assert!(host_interface("a/b").is_err());
        assert_eq!(ifname("lo"), Ok(()), "in a namespace of its own the name is the kernel's to refuse");
    }

    #[test]
    fn namespace_names() {
        assert_eq!(netns("guest-1"), Ok(()));
        assert_eq!(netns(&"a".repeat(255)), Ok(()));
        let long = "a".repeat(256);
        for (bad, rule) in [
            ("", "1 to 255 bytes"),
            (long.as_str(), "1 to 255 bytes"),
            ("..", "not a path"),
            ("../etc/passwd", "not a path"),
            ("/proc/1/ns/net", "not a path"),
            ("a\nb", "control"),
            ("a\u{7f}", "control"),
        ] {
            assert!(netns(bad).unwrap_err().contains(rule), "{bad:?}");
        }
    }

    #[test]
    fn static_entry_keys() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        assert_eq!(fdb_key("02:00:00:00:00:01"), Ok((mac, None)));
        assert_eq!(fdb_key("02:00:00:00:00:01@10"), Ok((mac, Some(10))));
        assert_eq!(fdb_key("02:00:00:00:00:01@4095").unwrap_err(), VID_RULE);
        assert!(fdb_key("01:00:5e:00:00:01").unwrap_err().contains("group address"));
        assert!(fdb_key("00:00:00:00:00:00").unwrap_err().contains("all-zero"));
        assert!(fdb_key("junk").unwrap_err().contains("not a MAC address"));
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("10M"), Ok(10 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        assert_eq!(time("90"), Ok(90));
        assert_eq!(time("5m"), Ok(300));
        assert_eq!(time("12h"), Ok(43200));
        assert_eq!(time("7d"), Ok(604_800));
        for bad in ["", "M", "-1M", "1.5M", "10T", "0", "99999999999999999999", "18446744073709551615G", "é"]
        {
            assert!(size(bad).unwrap_err().starts_with("expected 1K to 1024G"), "{bad:?}");
        }
        for bad in ["", "s", "-1", "1w", "0", "0s", "99999d", "18446744073709551615d", "é"] {
            assert!(time(bad).unwrap_err().starts_with("expected 1s to 366d"), "{bad:?}");
        }
    }
}
