//! The MAC addresses that were chosen for taps: one a port, kept for the port's life.

use crate::StoreError;
use serde::de::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use switchd_api::name::Name;

/// Of 2⁴⁰ addresses: one already taken is bad luck, this many in a row is a broken source.
const TRIES: usize = 256;

/// Bound: ports that are configured or being configured; others are released with the next save.
#[derive(Default)]
pub(crate) struct Identities {
    macs: BTreeMap<Name, [u8; 6]>,
    changed: bool,
}

impl Identities {
    pub fn parse(text: &str) -> Result<Identities, toml::de::Error> {
        let lines: BTreeMap<Name, String> = toml::from_str(text)?;
        let mut macs = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (port, text) in lines {
            let mac = mac(&text).ok_or_else(|| {
                toml::de::Error::custom(format!("port {port}: {text:?} is not the address of a host"))
            })?;
            if !seen.insert(mac) {
                return Err(toml::de::Error::custom(format!(
                    "port {port}: {text} belongs to another port too"
                )));
            }
            macs.insert(port, mac);
        }
        Ok(Identities { macs, changed: false })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (port, [a, b, c, d, e, f]) in &self.macs {
            // A name needs quotes only for its dots; they do no harm.
            let _ = writeln!(text, "\"{port}\" = \"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\"");
        }
        text
    }

    pub fn changed(&self) -> bool {
        self.changed
    }

    pub fn saved(&mut self) {
        self.changed = false;
    }

    pub fn get(&self, port: &Name) -> Option<[u8; 6]> {
        self.macs.get(port).copied()
    }

    pub fn all(&self) -> &BTreeMap<Name, [u8; 6]> {
        &self.macs
    }

    pub fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        let before = self.macs.len();
        self.macs.retain(|port, _| keep(port));
        self.changed |= self.macs.len() != before;
    }

    pub fn assign(
        &mut self,
        port: &Name,
        in_use: impl Fn([u8; 6]) -> bool,
        mut random: impl FnMut() -> [u8; 6],
    ) -> Result<[u8; 6], StoreError> {
        if let Some(mac) = self.get(port) {
            return Ok(mac);
        }
        for _ in 0..TRIES {
            let [_, b, c, d, e, f] = random();
            // Locally administered, unicast.
            let mac = [0x02, b, c, d, e, f];
            if !in_use(mac) && !self.macs.values().any(|&taken| taken == mac) {
                self.macs.insert(port.clone(), mac);
                self.changed = true;
                return Ok(mac);
            }
        }
        Err(StoreError::NoAddress { tries: TRIES })
    }
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
