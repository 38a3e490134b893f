//! RFC 8415 18.3, clause by clause, on a virtual clock. The disk is the test: it settles tickets.

use super::super::message::{Options, Status, address, association};
use super::*;

const OURS: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];

fn config() -> Config {
    Config {
        duid: OURS.to_vec(),
        address: "fd00:7::1".parse().unwrap(),
        len: 64,
        stateful: true,
        lease_time: 4000,
        dns: vec!["fd00:7::1".parse().unwrap()],
        domains: vec!["lab".into()],
        ports: vec!["vm1".into(), "vm2".into()],
    }
}

struct World {
    server: Server,
    now: u64,
    disk: bool,
    durable: HashMap<Ipv6Addr, Lease>,
}

impl World {
    fn new(config: Config) -> World {
        let now = 1000 * SECOND;
        World { server: Server::new(config, [], now), now, disk: true, durable: HashMap::new() }
    }

    fn from(port: &str) -> From6 {
        let ingress = Ingress { port: port.into(), mac: MacAddr([2, 0, 0, 0, 0, 9]) };
        From6 { ingress, source: "fe80::9".parse().unwrap(), multicast: true }
    }

    fn send(&mut self, port: &str, message: &Message) -> Option<Message> {
        self.server.handle_message(self.now, &World::from(port), &message.to_bytes());
        while let Some(change) = self.server.poll_change() {
            if self.disk {
                self.durable.insert(change.lease.address, change.lease);
            }
            self.server.settled(self.now, change.ticket, self.disk);
        }
        let reply = self.server.poll_transmit()?;
        assert_eq!((*reply.to.ip(), reply.to.port()), ("fe80::9".parse().unwrap(), 546));
        let answer = Message::parse(&reply.bytes).unwrap();
        assert_eq!(answer.transaction, message.transaction);
        assert_eq!(answer.options.get(code::SERVER_ID), Some(&OURS[..]));
        assert_eq!(answer.options.get(code::CLIENT_ID), message.options.get(code::CLIENT_ID));
        Some(answer)
    }

    fn lease(&mut self, port: &str, duid: &[u8]) -> Option<Ipv6Addr> {
        let advertise = self.send(port, &message(Kind::Solicit, duid, &[]))?;
        assert_eq!(advertise.kind, Kind::Advertise as u8);
        let (offered, _) = only(&advertise)?;
        let reply = self.send(port, &message(Kind::Request, duid, &[offered]))?;
        let (granted, lifetimes) = only(&reply)?;
        assert_eq!((reply.kind, granted), (Kind::Reply as u8, offered));
        assert_eq!(lifetimes, [3000, 4000]);
        Some(granted)
    }
}

fn ia(id: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut inner = Options::default();
    addresses.iter().for_each(|&it| inner.push(code::IA_ADDRESS, address(it, 0, 0)));
    association([0, 0, 0, id], 0, 0, &inner)
}

fn message(kind: Kind, duid: &[u8], addresses: &[Ipv6Addr]) -> Message {
    let mut options = Options::default();
    options.push(code::CLIENT_ID, duid);
    if matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline) {
        options.push(code::SERVER_ID, OURS);
    }
    options.push(code::IA_NA, ia(1, addresses));
    Message { kind: kind as u8, transaction: [1, 2, 3], options }
}

/// The one address of the one association, with preferred and valid lifetime.
fn only(message: &Message) -> Option<(Ipv6Addr, [u32; 2])> {
    let value = message.options.get(code::IA_NA)?;
    let inner = Options::parse(&value[12..]).unwrap();
    let value = inner.get(code::IA_ADDRESS)?;
    let number = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
    let octets: [u8; 16] = value[..16].try_into().unwrap();
    Some((octets.into(), [number(16), number(20)]))
}

fn status(options: &Options) -> Option<u16> {
    Some(u16::from_be_bytes(options.get(code::STATUS)?[..2].try_into().unwrap()))
}

fn inner_status(message: &Message) -> Option<u16> {
    status(&Options::parse(&message.options.get(code::IA_NA)?[12..]).unwrap())
}

#[test]
fn rfc_8415_18_3_1_solicit_advertise_request_reply() {
    let mut world = World::new(config());
    let mine = world.lease("vm1", &DUID).unwrap();
    assert_eq!(world.durable[&mine].state, State::Bound);
    assert_eq!(world.lease("vm1", &DUID), Some(mine));
    let other = [&DUID[..9], &[8]].concat();
    assert_ne!(world.lease("vm1", &other), Some(mine));
    assert_ne!(world.lease("vm2", &DUID), Some(mine), "a clone at another port has an address of its own");
    // From a server that forgot it: the same.
    assert_eq!(World::new(config()).lease("vm1", &DUID), Some(mine));
}

#[test]
fn no_reply_before_the_lease_is_on_the_disk() {
    let mut world = World::new(config());
    let advertise = world.send("vm1", &message(Kind::Solicit, &DUID, &[])).unwrap();
    world.disk = false;
    let (offered, _) = only(&advertise).unwrap();
    assert!(world.send("vm1", &message(Kind::Request, &DUID, &[offered])).is_none());
    assert_eq!(world.server.counters().store_failed, 1);
    world.disk = true;
    assert!(world.send("vm1", &message(Kind::Request, &DUID, &[offered])).is_some());
}

#[test]
fn rfc_8415_18_3_1_rapid_commit_takes_two_messages() {
    let mut world = World::new(config());
    let mut solicit = message(Kind::Solicit, &DUID, &[]);
    solicit.options.push(code::RAPID_COMMIT, []);
    let reply = world.send("vm1", &solicit).unwrap();
    assert_eq!(reply.kind, Kind::Reply as u8);
    assert!(reply.options.has(code::RAPID_COMMIT));
    assert!(world.durable.contains_key(&only(&reply).unwrap().0));
}

#[test]
fn stateless_says_no_addrs_avail_and_answers_information_requests() {
    let mut world = World::new(Config { stateful: false, ..config() });
    let advertise = world.send("vm1", &message(Kind::Solicit, &DUID, &[])).unwrap();
    assert_eq!(status(&advertise.options), Some(Status::NoAddrsAvail as u16));
    let mut inform = message(Kind::InformationRequest, &DUID, &[]);
    inform.options.0.retain(|(code, _)| *code != code::IA_NA);
    inform.options.push(code::OPTION_REQUEST, [0, 23, 0, 24]);
    let reply = world.send("vm1", &inform).unwrap();
    let dns: Ipv6Addr = "fd00:7::1".parse().unwrap();
    assert_eq!(reply.options.get(code::DNS), Some(&dns.octets()[..]), "RFC 3646 3");
    assert_eq!(reply.options.get(code::DOMAIN_LIST), Some(&b"\x03lab\0"[..]), "RFC 3646 4");
    inform.options.push(code::IA_NA, ia(1, &[]));
    assert!(world.send("vm1", &inform).is_none(), "16.12: with an IA it is discarded");
}

#[test]
fn rfc_8415_18_3_3_confirm_judges_the_link() {
    let mut world = World::new(config());
    let on = message(Kind::Confirm, &DUID, &["fd00:7::99".parse().unwrap()]);
    assert_eq!(status(&world.send("vm1", &on).unwrap().options), Some(Status::Success as u16));
    let off = message(Kind::Confirm, &DUID, &["fd00:8::99".parse().unwrap()]);
    assert_eq!(status(&world.send("vm1", &off).unwrap().options), Some(Status::NotOnLink as u16));
    assert!(world.send("vm1", &message(Kind::Confirm, &DUID, &[])).is_none());
}

#[test]
fn rfc_8415_18_3_4_and_5_renew_and_rebind_extend_or_say_no_binding() {
    let mut world = World::new(config());
    let mine = world.lease("vm1", &DUID).unwrap();
    for kind in [Kind::Renew, Kind::Rebind] {
        world.now += 1500 * SECOND;
        let reply = world.send("vm1", &message(kind, &DUID, &[mine])).unwrap();
        assert_eq!(only(&reply), Some((mine, [3000, 4000])));
        assert!(world.durable[&mine].expires >= world.now + 4000 * SECOND);
        let stranger = [&DUID[..9], &[7]].concat();
        let reply = world.send("vm1", &message(kind, &stranger, &[mine])).unwrap();
        assert_eq!(inner_status(&reply), Some(Status::NoBinding as u16));
        let elsewhere: Ipv6Addr = "fd00:8::1".parse().unwrap();
        let reply = world.send("vm1", &message(kind, &stranger, &[elsewhere])).unwrap();
        assert_eq!(only(&reply), Some((elsewhere, [0, 0])), "not for this link: lifetimes of 0");
    }
}

#[test]
fn rfc_8415_18_3_7_and_8_release_frees_and_decline_sets_apart() {
    let mut world = World::new(config());
    let mine = world.lease("vm1", &DUID).unwrap();
    let reply = world.send("vm2", &message(Kind::Release, &DUID, &[mine])).unwrap();
    assert_eq!(inner_status(&reply), Some(Status::NoBinding as u16), "another port's word");
    let reply = world.send("vm1", &message(Kind::Release, &DUID, &[mine])).unwrap();
    assert_eq!(status(&reply.options), Some(Status::Success as u16));
    assert_eq!(world.durable[&mine].state, State::Over);
    assert_eq!(world.lease("vm1", &DUID), Some(mine));
    world.send("vm1", &message(Kind::Decline, &DUID, &[mine])).unwrap();
    let next = world.lease("vm1", &DUID).unwrap();
    assert_ne!(next, mine);
    assert_eq!(world.durable[&mine].state, State::Declined);
}

#[test]
fn rfc_8415_18_3_2_what_is_not_given_here_is_refused_by_status() {
    let mut world = World::new(config());
    let mut solicit = message(Kind::Solicit, &DUID, &[]);
    solicit.options.push(code::IA_PD, ia(5, &[]));
    let advertise = world.send("vm1", &solicit).unwrap();
    let inner = Options::parse(&advertise.options.get(code::IA_PD).unwrap()[12..]).unwrap();
    assert_eq!(status(&inner), Some(Status::NoPrefixAvail as u16));
    let off = message(Kind::Request, &DUID, &["fd00:8::99".parse().unwrap()]);
    assert_eq!(inner_status(&world.send("vm1", &off).unwrap()), Some(Status::NotOnLink as u16));
}

#[test]
fn rfc_8415_16_messages_without_what_they_must_have_are_discarded() {
    let mut world = World::new(config());
    let drop = |kind: Kind, code: u16| {
        let mut message = message(kind, &DUID, &[]);
        message.options.0.retain(|(known, _)| *known != code);
        message
    };
    let mut named = message(Kind::Solicit, &DUID, &[]);
    named.options.push(code::SERVER_ID, OURS);
    let mut other = drop(Kind::Request, code::SERVER_ID);
    other.options.push(code::SERVER_ID, [0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    let long = message(Kind::Solicit, &[0; 131], &[]);
    for bad in [
        drop(Kind::Solicit, code::CLIENT_ID),
        drop(Kind::Request, code::SERVER_ID),
        drop(Kind::Renew, code::CLIENT_ID),
        named,
        other,
        long,
        message(Kind::Advertise, &DUID, &[]),
        Message { kind: 12, ..message(Kind::Solicit, &DUID, &[]) },
    ] {
        assert!(world.send("vm1", &bad).is_none(), "{bad:?}");
    }
    let good = message(Kind::Solicit, &DUID, &[]).to_bytes();
    for len in 0..good.len() {
        world.server.handle_message(world.now, &World::from("vm1"), &good[..len]);
    }
    assert!(world.server.leases().next().is_none());
    let unicast = From6 { multicast: false, ..World::from("vm1") };
    world.server.handle_message(world.now, &unicast, &message(Kind::Request, &DUID, &[]).to_bytes());
    let answer = Message::parse(&world.server.replies.pop_back().unwrap().bytes).unwrap();
    assert_eq!(status(&answer.options), Some(Status::UseMulticast as u16));
}

#[test]
fn a_port_has_a_bounded_number_of_addresses() {
    let mut world = World::new(config());
    let mut duid = DUID;
    let got = (0..=255).filter(|&last| {
        duid[9] = last;
        world.lease("vm1", &duid).is_some()
    });
    assert_eq!(got.count(), PORT_MAX as usize);
    assert!(world.server.counters().full > 0);
    assert!(world.lease("vm2", &DUID).is_some());
}
