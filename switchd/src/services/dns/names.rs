//! The network's own names: ports, then host names that clients gave to the DHCP server.
//!
//! A port's name leads to the addresses of its guest. A host name is served while no port bears it; when
//! several guests claim the same one, it stays with the one that had it first, so that nobody can take a
//! neighbour's name by asking for a lease. Names stand in the network's domain, and answer without it too.
//! Addresses of the subnets have names back (RFC 1035 3.5, RFC 3596 2.5).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use switchd_nat::{Prefix4, Prefix6};
use switchd_wire::MacAddr;

/// The gateway's own name.
pub const GATEWAY: &str = "gateway";

/// A guest's address, and what it may be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    pub address: IpAddr,
    pub port: String,
    pub mac: Option<MacAddr>,
    pub hostname: Option<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Who has it, where it is a host name.
    holder: Option<(String, Option<MacAddr>)>,
}

#[derive(Clone, Debug)]
pub struct Names {
    /// Lower case, without a dot at the end.
    domain: String,
    v4: Prefix4,
    v6: Option<Prefix6>,
    names: HashMap<String, Entry>,
    reverse: HashMap<IpAddr, String>,
}

/// What is known of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    Addresses(Vec<IpAddr>),
    /// A name of the network's that nobody bears.
    Nobody,
    /// The name is not the network's business.
    Elsewhere,
}

fn usable(hostname: &str) -> Option<String> {
    let label = hostname.split('.').next()?.to_ascii_lowercase();
    let fits = !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-');
    (fits && label != GATEWAY && label != "localhost").then_some(label)
}

impl Names {
    pub fn new(domain: &str, v4: Prefix4, v6: Option<Prefix6>) -> Names {
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        let mut names = Names { domain, v4, v6, names: HashMap::new(), reverse: HashMap::new() };
        names.set_hosts(&[]);
        names
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The guests as they are now. Who had a host name before keeps it.
    pub fn set_hosts(&mut self, hosts: &[Host]) {
        let before = std::mem::take(&mut self.names);
        self.reverse.clear();
        let mut gateway = vec![IpAddr::V4(self.v4.address)];
        gateway.extend(self.v6.map(|prefix| IpAddr::V6(prefix.address)));
        for &address in &gateway {
            self.reverse.insert(address, GATEWAY.to_owned());
        }
        self.names.insert(GATEWAY.to_owned(), Entry { addresses: gateway, holder: None });
        for host in hosts.iter().filter(|host| host.port != GATEWAY) {
            let entry = self.names.entry(host.port.to_ascii_lowercase());
            entry.or_insert(Entry { addresses: Vec::new(), holder: None }).addresses.push(host.address);
            self.reverse.entry(host.address).or_insert_with(|| host.port.to_ascii_lowercase());
        }
        // Who claims which host name, in the order of addresses.
        let mut claims: BTreeMap<String, Vec<&Host>> = BTreeMap::new();
        for host in hosts {
            if let Some(label) = host.hostname.as_deref().and_then(usable)
                && !self.names.contains_key(&label)
            {
                claims.entry(label).or_default().push(host);
            }
        }
        for (label, claimants) in claims {
            let holder_of = |host: &Host| (host.port.clone(), host.mac);
            let kept = before.get(&label).and_then(|entry| entry.holder.clone());
            let kept = kept.filter(|holder| claimants.iter().any(|host| holder_of(host) == *holder));
            let Some(holder) = kept.or_else(|| claimants.first().map(|host| holder_of(host))) else {
                continue;
            };
            let of_holder = claimants.iter().filter(|host| holder_of(host) == holder);
            let addresses = of_holder.map(|host| host.address).collect();
            self.names.insert(label, Entry { addresses, holder: Some(holder) });
        }
    }

    /// `name` is lower case, without a dot at the end.
    pub fn find(&self, name: &str) -> Known {
        let relative = match name.strip_suffix(&self.domain) {
            Some("") => return Known::Nobody,
            Some(rest) if !self.domain.is_empty() => rest.strip_suffix('.'),
            _ => None,
        };
        // Port names may have dots, so a name without the domain may too.
        match self.names.get(relative.unwrap_or(name)) {
            Some(entry) => Known::Addresses(entry.addresses.clone()),
            None if relative.is_some() || !name.contains('.') => Known::Nobody,
            None => Known::Elsewhere,
        }
    }

    /// The whole name of an address of the subnets; `Some(None)`: nobody has it.
    pub fn find_address(&self, address: IpAddr) -> Option<Option<String>> {
        let ours = match address {
            IpAddr::V4(v4) => self.v4.contains(v4),
            IpAddr::V6(v6) => self.v6.is_some_and(|prefix| prefix.contains(v6)),
        };
        ours.then(|| self.reverse.get(&address).map(|name| format!("{name}.{}", self.domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("lab.", Prefix4 { address: "10.7.0.1".parse().unwrap(), len: 24 }, None)
    }

    fn host(address: &str, port: &str, hostname: Option<&str>) -> Host {
        let address: IpAddr = address.parse().unwrap();
        Host { address, port: port.into(), mac: None, hostname: hostname.map(str::to_owned) }
    }

    fn at(address: &str) -> Known {
        Known::Addresses(vec![address.parse().unwrap()])
    }

    #[test]
    fn a_port_is_found_by_its_name_with_and_without_the_domain() {
        let mut names = names();
        names.set_hosts(&[host("10.7.0.20", "vm1.a", None)]);
        assert_eq!(names.find("vm1.a"), at("10.7.0.20"));
        assert_eq!(names.find("vm1.a.lab"), at("10.7.0.20"));
        assert_eq!(names.find("gateway.lab"), at("10.7.0.1"));
        assert_eq!(names.find("vm2.lab"), Known::Nobody);
        assert_eq!(names.find("vm2"), Known::Nobody);
        assert_eq!(names.find("lab"), Known::Nobody);
        assert_eq!(names.find("www.example.org"), Known::Elsewhere);
        assert_eq!(names.find("notlab"), Known::Nobody);
        assert_eq!(names.find("a.notlab"), Known::Elsewhere);
    }

    #[test]
    fn a_port_name_goes_before_a_host_name() {
        let mut names = names();
        names.set_hosts(&[host("10.7.0.20", "db", None), host("10.7.0.21", "evil", Some("db"))]);
        assert_eq!(names.find("db"), at("10.7.0.20"));
    }

    #[test]
    fn a_host_name_stays_with_whoever_had_it_first() {
        let mut names = names();
        names.set_hosts(&[host("10.7.0.30", "p1", Some("DB.example"))]);
        assert_eq!(names.find("db.lab"), at("10.7.0.30"));
        names.set_hosts(&[host("10.7.0.2", "p0", Some("db")), host("10.7.0.30", "p1", Some("db"))]);
        assert_eq!(names.find("db.lab"), at("10.7.0.30"));
        names.set_hosts(&[host("10.7.0.2", "p0", Some("db"))]);
        assert_eq!(names.find("db.lab"), at("10.7.0.2"));
    }

    #[test]
    fn names_that_are_none_are_not_served() {
        for odd in ["", "-a", "a b", "gateway", "localhost", &"x".repeat(64)] {
            assert_eq!(usable(odd), None, "{odd}");
        }
    }

    #[test]
    fn addresses_of_the_subnet_have_names_back() {
        let mut names = names();
        names.set_hosts(&[host("10.7.0.20", "vm1", Some("web"))]);
        assert_eq!(names.find_address("10.7.0.20".parse().unwrap()), Some(Some("vm1.lab".into())));
        assert_eq!(names.find_address("10.7.0.21".parse().unwrap()), Some(None));
        assert_eq!(names.find_address("10.8.0.1".parse().unwrap()), None);
        assert_eq!(names.find_address("fe80::1".parse().unwrap()), None);
    }
}
