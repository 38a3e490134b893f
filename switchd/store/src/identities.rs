//! The MAC addresses that were chosen: one for each tap that is given none, under its port's name; and of
//! our own stations, `gateway:NET` and `egress:NET` of a NAT network, `bond:BOND` (its system identifier).
//! Each is kept for the life of what it was chosen for, and no two are the same.

use crate::StoreError;
use serde::de::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use switchd_api::model::{Desired, Kind};
use switchd_api::name::Name;

/// Of 2⁴⁰ addresses: one already taken is bad luck, this many in a row is a broken source.
const TRIES: usize = 256;

/// Of what is not a port.
const KINDS: [&str; 3] = ["gateway", "egress", "bond"];

/// Bound: what is configured or being configured; the rest is released with the next save.
#[derive(Default)]
pub(crate) struct Identities {
    macs: BTreeMap<String, [u8; 6]>,
    changed: bool,
}

impl Identities {
    pub fn parse(text: &str) -> Result<Identities, toml::de::Error> {
        let lines: BTreeMap<String, String> = toml::from_str(text)?;
        let mut macs = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, text) in lines {
            let (_, name) = parts(&key);
            name.parse::<Name>().map_err(|error| toml::de::Error::custom(format!("{key:?}: {error}")))?;
            let mac = mac(&text).ok_or_else(|| {
                toml::de::Error::custom(format!("{key}: {text:?} is not the address of a host"))
            })?;
            if !seen.insert(mac) {
                return Err(toml::de::Error::custom(format!("{key}: {text} belongs to another one too")));
            }
            macs.insert(key, mac);
        }
        Ok(Identities { macs, changed: false })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (key, [a, b, c, d, e, f]) in &self.macs {
            let _ = writeln!(text, "\"{key}\" = \"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\"");
        }
        text
    }

    pub fn changed(&self) -> bool {
        self.changed
    }

    pub fn saved(&mut self) {
        self.changed = false;
    }

    pub fn get(&self, key: &str) -> Option<[u8; 6]> {
        self.macs.get(key).copied()
    }

    pub fn all(&self) -> &BTreeMap<String, [u8; 6]> {
        &self.macs
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let before = self.macs.len();
        self.macs.retain(|key, _| keep(key));
        self.changed |= self.macs.len() != before;
    }

    pub fn assign(
        &mut self,
        key: &str,
        in_use: impl Fn([u8; 6]) -> bool,
        mut random: impl FnMut() -> [u8; 6],
    ) -> Result<[u8; 6], StoreError> {
        if let Some(mac) = self.get(key) {
            return Ok(mac);
        }
        for _ in 0..TRIES {
            let [_, b, c, d, e, f] = random();
            // Locally administered, unicast.
            let mac = [0x02, b, c, d, e, f];
            if !in_use(mac) && !self.macs.values().any(|&taken| taken == mac) {
                self.macs.insert(key.to_owned(), mac);
                self.changed = true;
                return Ok(mac);
            }
        }
        Err(StoreError::NoAddress { tries: TRIES })
    }
}

/// Whether what the key stands for is configured.
pub(crate) fn is_configured(desired: &Desired, key: &str) -> bool {
    match parts(key) {
        (None, port) => desired.port.contains_key(port),
        (Some("bond"), bond) => desired.bond.contains_key(bond),
        (Some(_), network) => desired.network.get(network).is_some_and(|spec| spec.kind == Kind::Nat),
    }
}

/// Its kind, none for a port, and its name.
fn parts(key: &str) -> (Option<&'static str>, &str) {
    let kind = KINDS.into_iter().find_map(|kind| Some((kind, key.strip_prefix(kind)?.strip_prefix(':')?)));
    kind.map_or((None, key), |(kind, name)| (Some(kind), name))
}

/// Unicast, not zero, as [`Identities::text`] writes it.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && octets[0] & 1 == 0 && octets != [0; 6]).then_some(octets)
}
