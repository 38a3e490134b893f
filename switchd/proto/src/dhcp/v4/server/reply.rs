//! What the server says: the options of a reply, in order, and where the reply goes.

use super::super::message::{CLIENT_PORT, Kind, Message, SERVER_PORT};
use super::super::options::{self, Route, code};
use super::config::Config;
use super::{Ingress, Reply};
use std::net::{Ipv4Addr, SocketAddrV4};
use switchd_wire::MacAddr;

/// Sent to clients that ask for nothing in particular (no option 55).
const DEFAULTS: [u8; 6] =
    [code::ROUTER, code::DNS, code::DOMAIN_NAME, code::BROADCAST, code::MTU, code::HOST_NAME];

/// What an OFFER or ACK grants.
#[derive(Clone, Debug)]
pub struct Grant {
    pub address: Ipv4Addr,
    /// Seconds.
    pub lease_time: u32,
    /// Of the port, where it has a label's form.
    pub hostname: Option<String>,
    /// RFC 4039.
    pub rapid: bool,
}

/// The value of an option that the configuration has.
fn configured(config: &Config, option: u8, hostname: Option<&str>) -> Option<Vec<u8>> {
    let list = |addresses: &[Ipv4Addr]| (!addresses.is_empty()).then(|| options::addresses(addresses));
    let text = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
    let mask = options::mask(config.len);
    match option {
        code::ROUTER => list(&[config.address]),
        code::DNS => list(&config.dns),
        code::HOST_NAME => hostname.and_then(text),
        code::DOMAIN_NAME => text(&config.domain),
        code::MTU => Some(config.mtu.to_be_bytes().to_vec()),
        code::BROADCAST => {
            let broadcast = u32::from(config.address) | !u32::from(mask);
            (config.len < 31).then(|| broadcast.to_be_bytes().to_vec())
        }
        code::NTP => list(&config.ntp),
        code::TFTP_SERVER => text(config.tftp.as_deref()?),
        code::BOOTFILE => text(config.bootfile.as_deref()?),
        code::DOMAIN_SEARCH => Some(options::search_list(&config.search)).filter(|value| !value.is_empty()),
        // RFC 3442: a client that takes it ignores the router option, so the default route is in it.
        code::CLASSLESS_ROUTES if !config.routes.is_empty() => {
            let mut routes = config.routes.clone();
            if routes.iter().all(|route| route.len != 0) {
                let destination = Ipv4Addr::UNSPECIFIED;
                routes.push(Route { destination, len: 0, router: config.address });
            }
            Some(options::routes(&routes))
        }
        _ => None,
    }
}

/// RFC 2131 table 3. The most important options come first: those that do not fit are left out from the end.
fn options_of(config: &Config, request: &Message, kind: Kind, grant: Option<&Grant>) -> Vec<(u8, Vec<u8>)> {
    let seconds = |seconds: u32| seconds.to_be_bytes().to_vec();
    let wanted = request.option(code::PARAMETER_LIST);
    let asked = |option: u8| wanted.is_some_and(|list| list.contains(&option));
    let mut list = vec![(code::MESSAGE_TYPE, vec![kind as u8])];
    list.push((code::SERVER_ID, config.address.octets().to_vec()));
    // RFC 3046 2.2: echoed whole; RFC 6842 3: the client's identifier too.
    let echoed = [code::RELAY_AGENT, code::CLIENT_ID];
    for option in echoed {
        list.extend(request.option(option).map(|value| (option, value.to_vec())));
    }
    if let Some(grant) = grant {
        list.push((code::LEASE_TIME, seconds(grant.lease_time)));
        if grant.rapid {
            list.push((code::RAPID_COMMIT, Vec::new()));
        }
        // RFC 2131 4.4.5: half and seven eighths. Who wants them asks; all others have the same defaults.
        if asked(code::RENEWAL_TIME) {
            list.push((code::RENEWAL_TIME, seconds(grant.lease_time / 2)));
        }
        if asked(code::REBINDING_TIME) {
            list.push((code::REBINDING_TIME, seconds((u64::from(grant.lease_time) * 7 / 8) as u32)));
        }
    }
    // RFC 2132 3.3: the mask comes before the router.
    list.push((code::SUBNET_MASK, options::mask(config.len).octets().to_vec()));
    let hostname = grant.and_then(|grant| grant.hostname.as_deref());
    for &option in wanted.unwrap_or(&DEFAULTS) {
        if list.iter().all(|(known, _)| *known != option) {
            list.extend(configured(config, option, hostname).map(|value| (option, value)));
        }
    }
    list
}

/// OFFER, ACK, and with no grant the ACK to an INFORM.
pub fn positive(
    config: &Config,
    from: &Ingress,
    request: &Message,
    kind: Kind,
    grant: Option<&Grant>,
) -> (Reply, usize) {
    let mut message = Message::reply_to(request);
    message.options = options_of(config, request, kind, grant);
    if let Some(address) = config.tftp.as_deref().and_then(|tftp| tftp.parse().ok()) {
        message.siaddr = address;
    }
    // PXE clients that ask for no option 67 look here.
    let asked = message.option(code::BOOTFILE).is_some();
    if let Some(file) = config.bootfile.as_deref().filter(|file| !asked && file.len() < 128) {
        message.file = file.as_bytes().to_vec();
    }
    message.ciaddr = if kind == Kind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
    message.yiaddr = grant.map_or(Ipv4Addr::UNSPECIFIED, |grant| grant.address);
    let (to, to_mac) = destination(from, request, &message);
    // What the client takes, and what the network carries.
    let carried = usize::from(config.mtu).max(576) - 28;
    let (bytes, left_out) = message.encode(request.size_limit().min(carried));
    let from = SocketAddrV4::new(config.address, SERVER_PORT);
    (Reply { to, to_mac, from, bytes }, left_out.len())
}

/// RFC 2131 4.1: to the relay, to the address that the client has, or to the one that it gets.
fn destination(from: &Ingress, request: &Message, reply: &Message) -> (SocketAddrV4, MacAddr) {
    let mac = request.mac().unwrap_or(MacAddr::BROADCAST);
    if !request.giaddr.is_unspecified() {
        (SocketAddrV4::new(request.giaddr, SERVER_PORT), from.mac)
    } else if !request.ciaddr.is_unspecified() {
        (SocketAddrV4::new(request.ciaddr, CLIENT_PORT), mac)
    } else if request.wants_broadcast() || request.mac().is_none() || reply.yiaddr.is_unspecified() {
        (SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT), MacAddr::BROADCAST)
    } else {
        (SocketAddrV4::new(reply.yiaddr, CLIENT_PORT), mac)
    }
}

/// RFC 2131 4.3.2: a NAK is broadcast, by the relay if there is one.
pub fn nak(config: &Config, from: &Ingress, request: &Message, why: &str) -> Reply {
    let mut message = Message::reply_to(request);
    message.options = vec![
        (code::MESSAGE_TYPE, vec![Kind::Nak as u8]),
        (code::SERVER_ID, config.address.octets().to_vec()),
        (code::MESSAGE, why.as_bytes().to_vec()),
    ];
    for option in [code::RELAY_AGENT, code::CLIENT_ID] {
        message.options.extend(request.option(option).map(|value| (option, value.to_vec())));
    }
    let (to, to_mac) = if request.giaddr.is_unspecified() {
        (SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT), MacAddr::BROADCAST)
    } else {
        message.set_broadcast();
        (SocketAddrV4::new(request.giaddr, SERVER_PORT), from.mac)
    };
    let (bytes, _) = message.encode(request.size_limit());
    Reply { to, to_mac, from: SocketAddrV4::new(config.address, SERVER_PORT), bytes }
}

/// The reply, with a lease of at most `seconds`. `None`: nothing would be left of it.
pub fn in_time(reply: Reply, seconds: u64) -> Option<Reply> {
    let mut message = Message::parse(&reply.bytes).ok()?;
    let told = message.seconds_option(code::LEASE_TIME)?;
    if u64::from(told) <= seconds {
        return Some(reply);
    }
    let left = seconds as u32;
    for (option, value) in &mut message.options {
        let shorter = match *option {
            code::LEASE_TIME => left,
            code::RENEWAL_TIME => left / 2,
            code::REBINDING_TIME => left - left / 8,
            _ => continue,
        };
        *value = shorter.to_be_bytes().to_vec();
    }
    let (bytes, _) = message.encode(reply.bytes.len());
    (left > 0).then_some(Reply { bytes, ..reply })
}
