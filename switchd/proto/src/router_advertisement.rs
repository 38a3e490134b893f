//! A router that advertises itself to its link: RFC 4861 6.2 (routers), RFC 4862 5.5.3 (the prefix), RFC 8106
//! (name servers and domains).
//!
//! ```text
//! start ─► 3 within 16 s each ─► every 200–600 s ─► stop: 1 with lifetime 0
//!              ▲ solicited: after 0–0.5 s, to all not more often than every 3 s, else to the asker (RFC 7772)
//! ```
//! Left out: router preferences, route information, being one of several routers (6.2.7 only tells a log).
//! Bounds: [`ASKERS`] askers wait; more are answered by one to all.

use crate::dhcp::{SECOND, domain};
use std::collections::VecDeque;
use std::net::Ipv6Addr;
use switchd_wire::MacAddr;
use switchd_wire::datagram::Icmp6;

pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// MaxRtrAdvInterval and MinRtrAdvInterval (6.2.1: 600 s and a third of it).
const MAX_INTERVAL: u64 = 600 * SECOND;
const MIN_INTERVAL: u64 = 200 * SECOND;
/// AdvDefaultLifetime: three times MaxRtrAdvInterval. RFC 8106 5.1 wants the same of name servers.
const ROUTER_LIFETIME: u16 = 1800;
/// AdvValidLifetime and AdvPreferredLifetime: a day and four hours, so that hosts forget in time (a choice).
const VALID: u32 = 86_400;
const PREFERRED: u32 = 14_400;
/// Constants of RFC 4861 10.
const MAX_INITIAL_INTERVAL: u64 = 16 * SECOND;
const MAX_INITIAL: u32 = 3;
const MIN_DELAY_BETWEEN: u64 = 3 * SECOND;
const MAX_DELAY: u64 = SECOND / 2;
pub const ASKERS: usize = 64;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOURCE_LINK: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub mac: MacAddr,
    pub prefix: Ipv6Addr,
    pub len: u8,
    pub mtu: u16,
    /// M: addresses by DHCPv6. Then hosts make none of their own from the prefix.
    pub managed: bool,
    /// O: the rest by DHCPv6.
    pub other: bool,
    /// There is a way out: hosts may use this router as their default.
    pub is_default: bool,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
}

/// An ICMPv6 message for the gateway to send from its link-local address, hop limit 255.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertisement {
    pub to: Ipv6Addr,
    pub to_mac: MacAddr,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub solicited: u64,
    pub sent: u64,
    /// Not valid by 6.1.1.
    pub malformed: u64,
}

pub struct Advertiser {
    config: Config,
    initial: u32,
    next: u64,
    last_to_all: Option<u64>,
    askers: Vec<(u64, Ipv6Addr, MacAddr)>,
    out: VecDeque<Advertisement>,
    random: u64,
    counters: Counters,
}

/// The link-local address that follows from a MAC (RFC 4291 appendix A, RFC 2464 4).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The Ethernet address of an IPv6 group (RFC 2464 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Options of a neighbor discovery message: type and value. `None`: 4.6, one has the length 0 or is cut.
fn options(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut list = Vec::new();
    while let [kind, len, ..] = *bytes {
        let len = usize::from(len) * 8;
        if len == 0 || len > bytes.len() {
            return None;
        }
        list.push((kind, &bytes[2..len]));
        bytes = &bytes[len..];
    }
    bytes.is_empty().then_some(list)
}

impl Advertiser {
    pub fn new(config: Config, now: u64, seed: u64) -> Advertiser {
        Advertiser {
            config,
            initial: MAX_INITIAL,
            next: now,
            last_to_all: None,
            askers: Vec::new(),
            out: VecDeque::new(),
            random: seed.max(1),
            counters: Counters::default(),
        }
    }

    /// What is new is advertised soon, as at the start (6.2.4). A prefix that went is withdrawn.
    pub fn configure(&mut self, now: u64, config: Config) {
        if self.config == config {
            return;
        }
        if (self.config.prefix, self.config.len) != (config.prefix, config.len) {
            self.say(ALL_NODES, group_mac(ALL_NODES), true);
        }
        self.config = config;
        self.initial = MAX_INITIAL;
        self.next = now;
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// 6.2.6.
    pub fn handle_solicitation(&mut self, now: u64, message: &Icmp6<'_>) {
        let [ROUTER_SOLICITATION, 0, _, _, _, _, _, _, rest @ ..] = message.body else {
            self.counters.malformed += 1;
            return;
        };
        // 6.1.1: hop limit 255, whole options, no link-layer address with the unspecified source.
        let unspecified = message.source.is_unspecified();
        let valid = options(rest).filter(|list| {
            message.hop_limit == 255 && !(unspecified && list.iter().any(|(kind, _)| *kind == SOURCE_LINK))
        });
        if valid.is_none() || message.source.is_multicast() || message.link.source.is_group() {
            self.counters.malformed += 1;
            return;
        }
        self.counters.solicited += 1;
        let at = now + self.next_random() % MAX_DELAY;
        if unspecified || self.askers.len() >= ASKERS {
            let earliest = self.last_to_all.map_or(0, |last| last + MIN_DELAY_BETWEEN);
            self.next = self.next.min(at.max(earliest));
        } else if self.askers.iter().all(|(_, asker, _)| *asker != message.source) {
            self.askers.push((at, message.source, message.link.source));
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.askers.iter().map(|&(at, ..)| at).chain([self.next]).min()
    }

    pub fn handle_timeout(&mut self, now: u64) {
        let (due, later) = self.askers.drain(..).partition(|&(at, ..)| at <= now);
        self.askers = later;
        let due: Vec<(u64, Ipv6Addr, MacAddr)> = due;
        if self.next <= now {
            self.last_to_all = Some(now);
            let interval = MIN_INTERVAL + self.next_random() % (MAX_INTERVAL - MIN_INTERVAL);
            let initial = self.initial > 0;
            self.initial = self.initial.saturating_sub(1);
            self.next = now + if initial { interval.min(MAX_INITIAL_INTERVAL) } else { interval };
            self.say(ALL_NODES, group_mac(ALL_NODES), false);
            return; // The askers have heard it too.
        }
        for (_, asker, mac) in due {
            self.say(asker, mac, false);
        }
    }

    /// 6.2.5: hosts are told that this is no router any more, and to forget the prefix soon.
    pub fn stop(&mut self) {
        self.say(ALL_NODES, group_mac(ALL_NODES), true);
    }

    pub fn poll_transmit(&mut self) -> Option<Advertisement> {
        self.out.pop_front()
    }

    fn say(&mut self, to: Ipv6Addr, to_mac: MacAddr, last: bool) {
        self.counters.sent += 1;
        let body = body(&self.config, last);
        self.out.push_back(Advertisement { to, to_mac, body });
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// 4.2, with the options of 4.6 and RFC 8106.
fn body(config: &Config, last: bool) -> Vec<u8> {
    let flags = u8::from(config.managed) << 7 | u8::from(config.other) << 6;
    let lifetime = if last || !config.is_default { 0 } else { ROUTER_LIFETIME };
    let mut body = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, flags];
    body.extend_from_slice(&lifetime.to_be_bytes());
    // Reachable time and retransmission timer: not said.
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&[SOURCE_LINK, 1]);
    body.extend_from_slice(&config.mac.0);
    body.extend_from_slice(&[MTU, 1, 0, 0]);
    body.extend_from_slice(&u32::from(config.mtu).to_be_bytes());
    // L always; A only where a host can make its own (RFC 4862 5.5.3 (d): 64 bits).
    let autonomous = !config.managed && config.len == 64;
    body.extend_from_slice(&[PREFIX, 4, config.len, 0x80 | u8::from(autonomous) << 6]);
    // RFC 4862 5.5.3 (e): a host keeps the prefix for two hours whatever we say; it is not preferred at once.
    for lifetime in if last { [7200, 0] } else { [VALID, PREFERRED] } {
        body.extend_from_slice(&u32::to_be_bytes(lifetime));
    }
    body.extend_from_slice(&[0; 4]);
    let mask = switchd_wire::prefix::mask6(config.len);
    body.extend_from_slice(&(config.prefix.to_bits() & mask).to_be_bytes());
    let names_lifetime = if last { 0 } else { u32::from(ROUTER_LIFETIME) };
    // At most 127 addresses fit the length field.
    let dns = &config.dns[..config.dns.len().min(127)];
    if !dns.is_empty() {
        body.extend_from_slice(&[RDNSS, 1 + 2 * dns.len() as u8, 0, 0]);
        body.extend_from_slice(&names_lifetime.to_be_bytes());
        dns.iter().for_each(|server| body.extend_from_slice(&server.octets()));
    }
    let mut list = Vec::new();
    for name in &config.search {
        let mut name_bytes = Vec::new();
        if domain::push(name, &mut name_bytes) && list.len() + name_bytes.len() <= 1024 {
            list.extend_from_slice(&name_bytes);
        }
    }
    if !list.is_empty() {
        list.resize(list.len().next_multiple_of(8), 0);
        body.extend_from_slice(&[DNSSL, 1 + (list.len() / 8) as u8, 0, 0]);
        body.extend_from_slice(&names_lifetime.to_be_bytes());
        body.extend_from_slice(&list);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_wire::datagram::Link;

    const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn config() -> Config {
        Config {
            mac: ROUTER,
            prefix: "fd00:7::1".parse().unwrap(),
            len: 64,
            mtu: 1400,
            managed: false,
            other: true,
            is_default: true,
            dns: vec!["fd00:7::1".parse().unwrap()],
            search: vec!["lab".into()],
        }
    }

    fn solicitation(source: &str, body: &'static [u8]) -> Icmp6<'static> {
        let link = Link { destination: group_mac("ff02::2".parse().unwrap()), source: HOST };
        let (source, destination) = (source.parse().unwrap(), "ff02::2".parse().unwrap());
        Icmp6 { link, source, destination, hop_limit: 255, body }
    }

    fn all(advertiser: &mut Advertiser) -> Vec<Advertisement> {
        std::iter::from_fn(|| advertiser.poll_transmit()).collect()
    }

    /// Runs to `until`, and returns when something was sent to all.
    fn run(advertiser: &mut Advertiser, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(at) = advertiser.poll_timeout().filter(|&at| at <= until) {
            advertiser.handle_timeout(at);
            times.extend(all(advertiser).iter().filter(|sent| sent.to == ALL_NODES).map(|_| at));
        }
        times
    }

    #[test]
    fn rfc_4861_4_2_and_4_6_the_message_and_its_options() {
        let mut advertiser = Advertiser::new(config(), 0, 7);
        advertiser.handle_timeout(0);
        let sent = all(&mut advertiser).remove(0);
        assert_eq!((sent.to, sent.to_mac), (ALL_NODES, MacAddr([0x33, 0x33, 0, 0, 0, 1])));
        assert_eq!(sent.body[..8], [134, 0, 0, 0, 64, 0x40, 0x07, 0x08]);
        let list = options(&sent.body[16..]).unwrap();
        let kinds: Vec<u8> = list.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SOURCE_LINK, MTU, PREFIX, RDNSS, DNSSL]);
        assert_eq!(list[0].1, ROUTER.0);
        assert_eq!(list[1].1[2..], 1400u32.to_be_bytes());
        assert_eq!(list[2].1[..2], [64, 0xc0], "on-link, autonomous");
        let prefix: Ipv6Addr = "fd00:7::".parse().unwrap();
        assert_eq!(list[2].1[14..30], prefix.octets());
        let dns: Ipv6Addr = "fd00:7::1".parse().unwrap();
        assert_eq!(list[3].1[6..22], dns.octets(), "RFC 8106 5.1");
        assert_eq!(&list[4].1[6..], b"\x03lab\0\0\0\0", "RFC 8106 5.2");
    }

    #[test]
    fn stateful_sets_m_and_takes_the_a_flag_from_the_prefix() {
        let mut advertiser = Advertiser::new(Config { managed: true, ..config() }, 0, 7);
        advertiser.handle_timeout(0);
        let sent = all(&mut advertiser).remove(0);
        assert_eq!(sent.body[5], 0xc0);
        assert_eq!(options(&sent.body[16..]).unwrap()[2].1[1], 0x80);
    }

    #[test]
    fn rfc_4861_6_2_4_three_come_quickly_then_every_200_to_600_seconds() {
        for seed in 1..50 {
            let mut advertiser = Advertiser::new(config(), 0, seed);
            let times = run(&mut advertiser, 10_000 * SECOND);
            let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps[..3].iter().all(|&gap| gap <= MAX_INITIAL_INTERVAL), "{gaps:?}");
            assert!(gaps[3..].iter().all(|gap| (MIN_INTERVAL..=MAX_INTERVAL).contains(gap)), "{gaps:?}");
        }
    }

    #[test]
    fn rfc_4861_6_2_6_a_solicitation_is_answered_within_half_a_second_and_to_all_every_3_seconds_at_most() {
        let mut advertiser = Advertiser::new(config(), 0, 3);
        run(&mut advertiser, 100 * SECOND);
        let now = 100 * SECOND;
        advertiser.handle_solicitation(now, &solicitation("fe80::9", &[133, 0, 0, 0, 0, 0, 0, 0]));
        let at = advertiser.poll_timeout().unwrap();
        assert!(at <= now + MAX_DELAY);
        advertiser.handle_timeout(at);
        let sent = all(&mut advertiser);
        assert_eq!((sent[0].to.to_string().as_str(), sent[0].to_mac), ("fe80::9", HOST));
        let mut times = Vec::new();
        for tenth in 0..100 {
            let now = now + SECOND + tenth * SECOND / 10;
            times.extend(run(&mut advertiser, now));
            advertiser.handle_solicitation(now, &solicitation("::", &[133, 0, 0, 0, 0, 0, 0, 0]));
        }
        assert!(times.len() >= 3 && times.windows(2).all(|pair| pair[1] - pair[0] >= MIN_DELAY_BETWEEN));
    }

    #[test]
    fn rfc_4861_6_1_1_invalid_solicitations_are_counted_only() {
        let good: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0];
        let with_link: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9];
        let zero_length: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 9];
        let far = Icmp6 { hop_limit: 254, ..solicitation("fe80::9", good) };
        let bad = [
            far,
            solicitation("::", with_link),
            solicitation("fe80::9", zero_length),
            solicitation("fe80::9", &good[..7]),
            solicitation("fe80::9", &[133, 1, 0, 0, 0, 0, 0, 0]),
        ];
        let mut advertiser = Advertiser::new(config(), 0, 3);
        advertiser.handle_timeout(0);
        let next = advertiser.poll_timeout();
        for message in &bad {
            advertiser.handle_solicitation(1, message);
        }
        assert_eq!(advertiser.counters().malformed, bad.len() as u64);
        assert_eq!(advertiser.poll_timeout(), next);
        advertiser.handle_solicitation(1, &solicitation("fe80::9", with_link));
        assert_ne!(advertiser.poll_timeout(), next);
    }

    #[test]
    fn rfc_4861_6_2_5_the_last_words_have_lifetime_zero() {
        let mut advertiser = Advertiser::new(config(), 0, 3);
        advertiser.stop();
        let sent = all(&mut advertiser);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].body[6..8], [0, 0]);
        let list = options(&sent[0].body[16..]).unwrap();
        assert_eq!(list[2].1[6..10], [0; 4], "the prefix is not preferred any more");
    }

    #[test]
    fn more_askers_than_can_wait_are_answered_by_one_to_all() {
        let mut advertiser = Advertiser::new(config(), 0, 3);
        run(&mut advertiser, 100 * SECOND);
        for host in 0..200u16 {
            let source = format!("fe80::{:x}", host + 1);
            advertiser.handle_solicitation(100 * SECOND, &solicitation(&source, &[133, 0, 0, 0, 0, 0, 0, 0]));
        }
        assert!(advertiser.askers.len() <= ASKERS);
        assert_eq!(run(&mut advertiser, 101 * SECOND).len(), 1);
    }
}
