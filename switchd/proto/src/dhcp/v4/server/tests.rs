//! RFC 2131 4.3, clause by clause, on a virtual clock. The disk is the test: it settles tickets.

use super::super::super::SECOND;
use super::super::message::{CLIENT_PORT, Kind, MINIMUM_MAX, Message, SERVER_PORT};
use super::super::options::{self, Route, code};
use super::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 250);

fn port(name: &str) -> PortName {
    name.into()
}

pub fn config() -> Config {
    Config {
        address: ROUTER,
        len: 24,
        range: None,
        lease_time: 3600,
        mtu: 1500,
        domain: "lab".into(),
        dns: vec![ROUTER],
        ntp: vec![],
        tftp: None,
        bootfile: None,
        search: vec![],
        routes: vec![],
        ports: vec![(port("vm1"), None), (port("vm2"), Some(ip("10.7.0.20"))), (port("vm3"), None)],
        by_mac: vec![],
        excluded: vec![],
        port_limit: None,
        probe: false,
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, last])
}

pub struct World {
    pub server: Server,
    pub now: u64,
    /// The disk takes changes; without it they wait here.
    pub disk: bool,
    pub pending: Vec<Change>,
    pub durable: HashMap<Ipv4Addr, Lease>,
}

impl World {
    pub fn new(config: Config) -> World {
        let server = Server::new(config, [], 1000 * SECOND);
        World { server, now: 1000 * SECOND, disk: true, pending: Vec::new(), durable: HashMap::new() }
    }

    pub fn settle(&mut self) {
        self.pending.extend(std::iter::from_fn(|| self.server.poll_change()));
        if self.disk {
            for change in std::mem::take(&mut self.pending) {
                self.durable.insert(change.lease.address, change.lease);
                self.server.settled(self.now, change.ticket, true);
            }
        }
    }

    pub fn send(&mut self, at: &str, message: &Message) -> Option<(Reply, Message)> {
        let from = Ingress { port: port(at), mac: message.mac().unwrap_or(mac(99)) };
        let (bytes, left) = message.encode(4000);
        assert!(left.is_empty());
        self.server.handle_message(self.now, &from, &bytes);
        self.settle();
        self.reply()
    }

    pub fn reply(&mut self) -> Option<(Reply, Message)> {
        let reply = self.server.poll_transmit()?;
        let message = Message::parse(&reply.bytes).unwrap();
        Some((reply, message))
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    pub fn lease(&mut self, at: &str, mac: MacAddr) -> Option<Ipv4Addr> {
        let (_, offer) = self.send(at, &message(Kind::Discover, mac))?;
        assert_eq!(offer.kind(), Some(Kind::Offer));
        let (_, ack) = self.send(at, &selecting(mac, offer.yiaddr))?;
        assert_eq!((ack.kind(), ack.yiaddr), (Some(Kind::Ack), offer.yiaddr));
        Some(ack.yiaddr)
    }

    fn after_a_crash(&mut self, config: Config) {
        let leases = self.durable.values().cloned().map(|mut lease| {
            lease.durable = (lease.state == State::Bound).then_some(lease.expires);
            lease
        });
        self.server = Server::new(config, leases.collect::<Vec<_>>(), self.now);
        self.pending.clear();
    }
}

pub fn message(kind: Kind, mac: MacAddr) -> Message {
    let mut message = Message::request(0x1234_5678, mac);
    message.options.push((code::MESSAGE_TYPE, vec![kind as u8]));
    message
}

fn with(mut message: Message, option: u8, value: &[u8]) -> Message {
    message.options.push((option, value.to_vec()));
    message
}

pub fn selecting(mac: MacAddr, address: Ipv4Addr) -> Message {
    let request = with(message(Kind::Request, mac), code::REQUESTED_ADDRESS, &address.octets());
    with(request, code::SERVER_ID, &ROUTER.octets())
}

fn rebooting(mac: MacAddr, address: Ipv4Addr) -> Message {
    with(message(Kind::Request, mac), code::REQUESTED_ADDRESS, &address.octets())
}

fn renewing(mac: MacAddr, address: Ipv4Addr) -> Message {
    Message { ciaddr: address, ..message(Kind::Request, mac) }
}

fn kind(answer: Option<(Reply, Message)>) -> Option<Kind> {
    answer.and_then(|(_, message)| message.kind())
}

#[test]
fn rfc_2131_3_1_a_client_gets_an_address_in_four_messages_and_keeps_it() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    assert!(options::mask(24).to_bits() & address.to_bits() == ip("10.7.0.0").to_bits());
    assert_eq!(world.lease("vm1", mac(1)), Some(address));
    assert_ne!(world.lease("vm1", mac(2)), Some(address));
    assert!(
        matches!(world.server.poll_event(), Some(Event::Leased { address: told, .. }) if told == address)
    );
}

#[test]
fn no_ack_before_the_lease_is_on_the_disk_and_none_at_all_when_the_disk_refuses() {
    let mut world = World::new(config());
    let (_, offer) = world.send("vm1", &message(Kind::Discover, mac(1))).unwrap();
    world.disk = false;
    assert!(world.send("vm1", &selecting(mac(1), offer.yiaddr)).is_none());
    let change = world.pending.remove(0);
    assert_eq!((change.lease.address, change.lease.state), (offer.yiaddr, State::Bound));
    world.server.settled(world.now, change.ticket, false);
    assert!(world.reply().is_none());
    assert_eq!(world.server.counters().store_failed, 1);
    world.disk = true;
    let (_, ack) = world.send("vm1", &selecting(mac(1), offer.yiaddr)).unwrap();
    assert_eq!((ack.kind(), ack.yiaddr), (Some(Kind::Ack), offer.yiaddr));
}

#[test]
fn the_same_address_after_a_crash_and_nobody_elses() {
    let mut world = World::new(config());
    let leased: Vec<_> = (0..20).map(|last| world.lease("vm1", mac(last)).unwrap()).collect();
    world.after_a_crash(config());
    assert_eq!(world.lease("vm1", mac(200)).map(|address| leased.contains(&address)), Some(false));
    for (last, address) in leased.iter().enumerate() {
        assert_eq!(world.lease("vm1", mac(last as u8)), Some(*address));
    }
}

#[test]
fn rfc_2131_4_3_1_the_address_asked_for_is_given_if_it_is_free() {
    let mut world = World::new(config());
    let asked = with(message(Kind::Discover, mac(1)), code::REQUESTED_ADDRESS, &[10, 7, 0, 77]);
    assert_eq!(world.send("vm1", &asked).unwrap().1.yiaddr, ip("10.7.0.77"));
    let also = with(message(Kind::Discover, mac(2)), code::REQUESTED_ADDRESS, &[10, 7, 0, 77]);
    assert_ne!(world.send("vm1", &also).unwrap().1.yiaddr, ip("10.7.0.77"));
    for taken in [[10, 7, 0, 1], [10, 7, 0, 0], [10, 7, 0, 255], [10, 7, 0, 20], [10, 8, 0, 9]] {
        let asked = with(message(Kind::Discover, mac(3)), code::REQUESTED_ADDRESS, &taken);
        assert_ne!(world.send("vm1", &asked).unwrap().1.yiaddr.octets(), taken);
    }
}

#[test]
fn rfc_2131_table_3_the_fields_of_offer_and_ack() {
    let mut world = World::new(config());
    let mut discover = message(Kind::Discover, mac(1));
    (discover.secs, discover.hops) = (7, 0);
    let (reply, offer) = world.send("vm1", &discover).unwrap();
    assert_eq!((offer.op, offer.htype, offer.hlen, offer.hops), (2, 1, 6, 0));
    assert_eq!((offer.xid, offer.secs, offer.ciaddr), (0x1234_5678, 0, Ipv4Addr::UNSPECIFIED));
    assert_eq!((offer.mac(), reply.from), (Some(mac(1)), SocketAddrV4::new(ROUTER, SERVER_PORT)));
    assert_eq!(offer.address_option(code::SERVER_ID), Some(ROUTER));
    assert_eq!(offer.seconds_option(code::LEASE_TIME), Some(3600));
    assert_eq!(offer.address_option(code::SUBNET_MASK), Some(ip("255.255.255.0")));
    assert_eq!(offer.address_option(code::ROUTER), Some(ROUTER));
    for absent in [code::REQUESTED_ADDRESS, code::PARAMETER_LIST, code::MAX_MESSAGE_SIZE] {
        assert_eq!(offer.option(absent), None);
    }
    world.send("vm1", &selecting(mac(1), offer.yiaddr));
    let (_, ack) = world.send("vm1", &renewing(mac(1), offer.yiaddr)).unwrap();
    assert_eq!(ack.ciaddr, offer.yiaddr);
}

#[test]
fn rfc_2131_4_1_where_replies_go() {
    let mut world = World::new(config());
    let (reply, offer) = world.send("vm1", &message(Kind::Discover, mac(1))).unwrap();
    assert_eq!((reply.to, reply.to_mac), (SocketAddrV4::new(offer.yiaddr, CLIENT_PORT), mac(1)));
    let mut broadcast = message(Kind::Discover, mac(1));
    broadcast.set_broadcast();
    let (reply, _) = world.send("vm1", &broadcast).unwrap();
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
    assert_eq!((reply.to, reply.to_mac), (everybody, MacAddr::BROADCAST));
    world.send("vm1", &selecting(mac(1), offer.yiaddr));
    let (reply, _) = world.send("vm1", &renewing(mac(1), offer.yiaddr)).unwrap();
    assert_eq!((reply.to, reply.to_mac), (SocketAddrV4::new(offer.yiaddr, CLIENT_PORT), mac(1)));
}

#[test]
fn rfc_2131_4_1_a_relay_gets_the_reply_at_port_67_and_rfc_3046_its_option_back() {
    let mut world = World::new(config());
    let relayed = Message { giaddr: RELAY, hops: 1, ..message(Kind::Discover, mac(1)) };
    let relayed = with(relayed, code::RELAY_AGENT, &[1, 2, 0xaa, 0xbb]);
    let from = Ingress { port: port("vm3"), mac: mac(50) };
    world.server.handle_message(world.now, &from, &relayed.encode(1000).0);
    let (reply, offer) = world.reply().unwrap();
    assert_eq!((reply.to, reply.to_mac), (SocketAddrV4::new(RELAY, SERVER_PORT), mac(50)));
    assert_eq!(offer.giaddr, RELAY);
    assert_eq!(offer.option(code::RELAY_AGENT), Some(&[1, 2, 0xaa, 0xbb][..]));
    let foreign = Message { giaddr: ip("192.0.2.1"), ..message(Kind::Discover, mac(1)) };
    assert!(world.send("vm3", &foreign).is_none());
    assert_eq!(world.server.counters().foreign_relay, 1);
    let wrong = Message { giaddr: RELAY, ..selecting(mac(1), ip("10.9.0.1")) };
    let (reply, nak) = world.send("vm3", &wrong).unwrap();
    assert_eq!((nak.kind(), reply.to.ip()), (Some(Kind::Nak), &RELAY));
    assert!(nak.wants_broadcast(), "4.3.2: the relay is to broadcast it");
}

#[test]
fn rfc_2131_4_3_2_selecting_another_server_takes_the_offer_back() {
    let mut world = World::new(config());
    let (_, offer) = world.send("vm1", &message(Kind::Discover, mac(1))).unwrap();
    let other = with(rebooting(mac(1), offer.yiaddr), code::SERVER_ID, &[10, 7, 0, 2]);
    assert!(world.send("vm1", &other).is_none());
    assert_eq!(world.server.table.len(), 0);
}

#[test]
fn rfc_2131_4_3_2_init_reboot_ack_nak_and_silence() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    assert_eq!(kind(world.send("vm1", &rebooting(mac(1), address))), Some(Kind::Ack));
    assert_eq!(kind(world.send("vm1", &rebooting(mac(1), ip("10.7.0.99")))), Some(Kind::Nak));
    let (reply, nak) = world.send("vm1", &rebooting(mac(7), ip("192.168.1.5"))).unwrap();
    assert_eq!((nak.kind(), nak.yiaddr), (Some(Kind::Nak), Ipv4Addr::UNSPECIFIED));
    assert_eq!((*reply.to.ip(), reply.to_mac), (Ipv4Addr::BROADCAST, MacAddr::BROADCAST));
    assert!(world.send("vm1", &rebooting(mac(7), ip("10.7.0.99"))).is_none(), "no record: silence");
    assert_eq!(world.server.counters().unknown_client, 1);
}

#[test]
fn rfc_2131_4_3_2_renewing_extends_and_a_wrong_address_is_refused() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    world.now += 1800 * SECOND;
    let (_, ack) = world.send("vm1", &renewing(mac(1), address)).unwrap();
    assert_eq!((ack.kind(), ack.yiaddr), (Some(Kind::Ack), address));
    assert!(world.durable[&address].expires >= world.now + 3600 * SECOND);
    assert_eq!(kind(world.send("vm1", &renewing(mac(1), ip("10.7.0.99")))), Some(Kind::Nak));
    assert_eq!(kind(world.send("vm1", &renewing(mac(2), address))), Some(Kind::Nak), "it is another's");
    // A server that lost its state lets a client go on.
    assert_eq!(kind(world.send("vm1", &renewing(mac(3), ip("10.7.0.99")))), Some(Kind::Ack));
}

#[test]
fn rfc_2131_4_3_3_a_declined_address_is_not_given_out_for_a_while() {
    let small = || Config {
        range: Some((ip("10.7.0.50"), ip("10.7.0.51"))),
        ports: vec![(port("vm1"), None)],
        ..config()
    };
    let mut world = World::new(small());
    let first = world.lease("vm1", mac(1)).unwrap();
    let decline = with(message(Kind::Decline, mac(1)), code::REQUESTED_ADDRESS, &first.octets());
    assert!(world.send("vm1", &with(decline.clone(), code::SERVER_ID, &ROUTER.octets())).is_none());
    let second = world.lease("vm1", mac(1)).unwrap();
    assert_ne!(first, second);
    assert!(world.send("vm1", &message(Kind::Discover, mac(2))).is_none(), "nothing is left");
    assert_eq!(world.server.counters().pool_full + world.server.counters().port_full, 1);
    // Held through a crash too.
    world.after_a_crash(small());
    assert!(world.send("vm1", &message(Kind::Discover, mac(2))).is_none());
    world.now += DECLINE_HOLD;
    assert_eq!(world.lease("vm1", mac(2)), Some(first));
    // Nobody can decline what a guest at another port has.
    let decline = with(message(Kind::Decline, mac(2)), code::REQUESTED_ADDRESS, &first.octets());
    world.send("vm3", &decline);
    assert_eq!(world.server.counters().not_the_holder, 1);
}

#[test]
fn rfc_2131_4_3_4_a_released_address_is_free_and_its_client_remembered() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    let release = Message { ciaddr: address, ..message(Kind::Release, mac(1)) };
    world.send("vm3", &release);
    assert_eq!(world.server.table.get(address).unwrap().state, State::Bound, "another port's word");
    world.send("vm1", &release);
    assert_eq!(world.durable[&address].state, State::Over);
    assert_eq!(world.lease("vm1", mac(1)), Some(address));
}

#[test]
fn rfc_2131_4_3_5_inform_gets_options_and_no_lease() {
    let mut world = World::new(config());
    let inform = Message { ciaddr: ip("10.7.0.200"), ..message(Kind::Inform, mac(1)) };
    let (reply, ack) = world.send("vm1", &inform).unwrap();
    assert_eq!((ack.kind(), ack.yiaddr), (Some(Kind::Ack), Ipv4Addr::UNSPECIFIED));
    assert_eq!(reply.to, SocketAddrV4::new(ip("10.7.0.200"), CLIENT_PORT));
    assert_eq!(ack.option(code::LEASE_TIME), None);
    assert_eq!(ack.address_option(code::DNS), Some(ROUTER));
    assert_eq!(world.server.table.len(), 0);
}

#[test]
fn every_option_that_is_configured_comes_when_it_is_asked_for() {
    let mut world = World::new(Config {
        ntp: vec![ip("10.7.0.5")],
        tftp: Some("10.7.0.6".into()),
        bootfile: Some("pxelinux.0".into()),
        search: vec!["a.example".into(), "b.example".into()],
        routes: vec![Route { destination: ip("10.8.0.0"), len: 16, router: ip("10.7.0.9") }],
        ..config()
    });
    let list = [1, 3, 6, 12, 15, 26, 28, 42, 58, 59, 66, 67, 119, 121];
    let (_, offer) = world.send("vm1", &with(message(Kind::Discover, mac(1)), 55, &list)).unwrap();
    let got = |option| offer.option(option).unwrap_or_else(|| panic!("no option {option}"));
    assert_eq!(got(26), 1500u16.to_be_bytes());
    assert_eq!((got(12), got(15), got(28)), (&b"vm1"[..], &b"lab"[..], &[10, 7, 0, 255][..]));
    assert_eq!((got(42), got(66), got(67)), (&[10, 7, 0, 5][..], &b"10.7.0.6"[..], &b"pxelinux.0"[..]));
    assert_eq!((got(58), got(59)), (&1800u32.to_be_bytes()[..], &3150u32.to_be_bytes()[..]));
    assert_eq!(got(119), b"\x01a\x07example\0\x01b\xc0\x02");
    // RFC 3442: the default route is in it, because the router option is then ignored.
    assert_eq!(got(121), [16, 10, 8, 10, 7, 0, 9, 0, 10, 7, 0, 1]);
    assert_eq!(offer.siaddr, ip("10.7.0.6"));
    let order: Vec<u8> = offer.options.iter().map(|(option, _)| *option).collect();
    let place = |option| order.iter().position(|&known| known == option);
    assert!(place(1) < place(3), "RFC 2132 3.3");
    let (_, few) = world.send("vm1", &with(message(Kind::Discover, mac(1)), 55, &[3])).unwrap();
    assert_eq!((few.option(6), few.option(121)), (None, None), "only what was asked for");
    assert_eq!(few.file, b"pxelinux.0", "who does not ask for 67 finds it in the field");
}

#[test]
fn rfc_2131_4_1_options_that_do_not_fit_go_into_file_and_sname() {
    let search: Vec<String> = (0..30).map(|number| format!("a-rather-long-name-{number}.example")).collect();
    let mut world = World::new(Config { search, tftp: Some("t".repeat(100)), ..config() });
    let asked = with(message(Kind::Discover, mac(1)), 55, &[66, 119, 15, 6, 3]);
    let (reply, offer) = world.send("vm1", &asked).unwrap();
    assert!(reply.bytes.len() <= MINIMUM_MAX);
    assert_eq!(offer.option(119), None, "too long for a client that takes 576 bytes");
    assert_eq!(offer.address_option(3), Some(ROUTER));
    let large = with(asked, code::MAX_MESSAGE_SIZE, &1500u16.to_be_bytes());
    let (reply, offer) = world.send("vm1", &large).unwrap();
    assert!(reply.bytes.len() > MINIMUM_MAX && offer.option(119).is_some());
}

#[test]
fn a_port_with_a_reservation_gets_it_and_nobody_else_does() {
    let mut world = World::new(config());
    assert_eq!(world.lease("vm2", mac(1)), Some(ip("10.7.0.20")));
    assert_eq!(world.send("vm1", &selecting(mac(2), ip("10.7.0.20"))).unwrap().1.kind(), Some(Kind::Nak));
    // The same interface under another identifier (a boot loader, then the system) takes it over.
    let other = with(message(Kind::Discover, mac(1)), code::CLIENT_ID, &[0, 1, 2, 3]);
    assert_eq!(world.send("vm2", &other).unwrap().1.yiaddr, ip("10.7.0.20"));
    // Another interface behind the same port does not, while the lease lasts.
    assert_ne!(world.send("vm2", &message(Kind::Discover, mac(9))).unwrap().1.yiaddr, ip("10.7.0.20"));
}

#[test]
fn a_new_reservation_moves_its_client_at_the_next_renewal() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    let by_mac = vec![(mac(1), ip("10.7.0.30"))];
    world.server.configure(Config { by_mac, ..config() });
    assert_eq!(kind(world.send("vm1", &renewing(mac(1), address))), Some(Kind::Nak));
    assert_eq!(world.lease("vm1", mac(1)), Some(ip("10.7.0.30")));
}

#[test]
fn a_lease_whose_address_is_now_kept_for_another_port_ends_at_its_renewal_and_has_one_holder_throughout() {
    for rediscovers in [false, true] {
        let mut world = World::new(config());
        let address = world.lease("vm1", mac(1)).unwrap();
        let ports = vec![(port("vm1"), None), (port("vm2"), None), (port("vm3"), Some(address))];
        world.server.configure(Config { ports, ..config() });
        // Its holder was not told yet.
        let meanwhile = world.lease("vm3", mac(3)).unwrap();
        assert_ne!(meanwhile, address);
        if rediscovers {
            assert_ne!(world.lease("vm1", mac(1)), Some(address));
        } else {
            assert_eq!(kind(world.send("vm1", &renewing(mac(1), address))), Some(Kind::Nak));
        }
        assert_eq!(world.durable[&address].state, State::Over, "on the disk too");
        assert_eq!(kind(world.send("vm3", &renewing(mac(3), meanwhile))), Some(Kind::Nak));
        assert_eq!(world.lease("vm3", mac(3)), Some(address));
        // RFC 2131 4.3.2: silence towards a client that has nothing.
        let refusal = rediscovers.then_some(Kind::Nak);
        assert_eq!(kind(world.send("vm1", &rebooting(mac(1), address))), refusal);
        assert_ne!(world.lease("vm1", mac(1)), Some(address));
    }
}

#[test]
fn clones_with_one_identifier_at_two_ports_have_two_addresses() {
    let mut world = World::new(config());
    let discover = |mac| with(message(Kind::Discover, mac), code::CLIENT_ID, &[255, 1, 2, 3, 4]);
    let request = |mac, address| with(selecting(mac, address), code::CLIENT_ID, &[255, 1, 2, 3, 4]);
    let (_, one) = world.send("vm1", &discover(mac(1))).unwrap();
    world.send("vm1", &request(mac(1), one.yiaddr)).unwrap();
    let (_, two) = world.send("vm3", &discover(mac(2))).unwrap();
    assert_ne!(one.yiaddr, two.yiaddr);
    assert_eq!(two.option(code::CLIENT_ID), Some(&[255, 1, 2, 3, 4][..]), "RFC 6842");
    // When the port is gone, the client is known elsewhere.
    let ports = config().ports.into_iter().filter(|(name, _)| **name != *"vm1").collect();
    world.server.configure(Config { ports, ..config() });
    let (_, moved) = world.send("vm2", &with(discover(mac(1)), 50, &[10, 7, 0, 9])).unwrap();
    assert_eq!(moved.yiaddr, ip("10.7.0.20"), "the port's reservation comes first");
    let (_, moved) = world.send("vm3", &discover(mac(2))).unwrap();
    assert_eq!(moved.yiaddr, two.yiaddr);
}

#[test]
fn a_port_that_asks_for_everything_leaves_the_others_their_share() {
    let mut world = World::new(config());
    let got = (0..=255).filter(|&last| world.lease("vm1", mac(last)).is_some()).count();
    assert!((200..245).contains(&got), "{got}");
    assert!(world.server.counters().port_full > 0);
    assert!(matches!(
        std::iter::from_fn(|| world.server.poll_event()).last(),
        Some(Event::PoolFull { of_port: true, .. })
    ));
    for last in 0..8 {
        assert!(world.lease("vm3", MacAddr([2, 0, 0, 0, 3, last])).is_some());
    }
    let mut limited = World::new(Config { port_limit: Some(4), ..config() });
    assert_eq!((0..50).filter(|&last| limited.lease("vm1", mac(last)).is_some()).count(), 4);
}

#[test]
fn offers_that_nobody_takes_are_forgotten() {
    let mut world = World::new(Config { range: Some((ip("10.7.0.50"), ip("10.7.0.50"))), ..config() });
    assert!(world.send("vm1", &message(Kind::Discover, mac(1))).is_some());
    assert!(world.send("vm1", &message(Kind::Discover, mac(2))).is_none());
    world.now += OFFER_HOLD;
    assert!(world.send("vm1", &message(Kind::Discover, mac(2))).is_some());
}

#[test]
fn rfc_4039_rapid_commit_takes_two_messages() {
    let mut world = World::new(config());
    let (_, ack) =
        world.send("vm1", &with(message(Kind::Discover, mac(1)), code::RAPID_COMMIT, &[])).unwrap();
    assert_eq!((ack.kind(), ack.option(code::RAPID_COMMIT)), (Some(Kind::Ack), Some(&[][..])));
    assert_eq!(world.durable[&ack.yiaddr].state, State::Bound);
}

#[test]
fn a_lease_that_is_over_is_the_last_to_be_given_to_another() {
    let range = Some((ip("10.7.0.50"), ip("10.7.0.53")));
    let mut world = World::new(Config { range, ports: vec![(port("vm1"), None)], ..config() });
    let mine = world.lease("vm1", mac(1)).unwrap();
    world.now += 4000 * SECOND;
    world.server.handle_timeout(world.now);
    for last in 2..5 {
        assert_ne!(world.lease("vm1", mac(last)), Some(mine));
    }
    assert_eq!(world.lease("vm1", mac(1)), Some(mine));
}

#[test]
fn a_shorter_lease_does_not_give_away_what_a_client_was_told_before() {
    let mut world = World::new(config());
    let address = world.lease("vm1", mac(1)).unwrap();
    let first = world.durable[&address].expires;
    world.server.configure(Config { lease_time: 120, ..config() });
    world.now += 10 * SECOND;
    let (_, ack) = world.send("vm1", &renewing(mac(1), address)).unwrap();
    assert_eq!(ack.seconds_option(code::LEASE_TIME), Some(120));
    assert!(world.server.table.get(address).unwrap().expires >= first);
}

#[test]
fn malformed_messages_are_counted_and_nothing_else() {
    let mut world = World::new(config());
    let from = Ingress { port: port("vm1"), mac: mac(1) };
    let (good, _) = message(Kind::Discover, mac(1)).encode(1000);
    for len in 0..240 {
        world.server.handle_message(world.now, &from, &good[..len]);
    }
    assert_eq!(world.server.counters().malformed, 240);
    for (at, value) in [(0, 2), (0, 9), (2, 17), (2, 0), (236, 0), (28, 0xff)] {
        let mut bad = good.clone();
        bad[at] = value;
        world.server.handle_message(world.now, &from, &bad);
    }
    assert_eq!(world.server.counters().malformed, 246);
    let bootp = Message { options: vec![], ..message(Kind::Discover, mac(1)) };
    assert!(world.send("vm1", &bootp).is_none());
    assert_eq!(world.server.counters().unknown_kind, 1);
    assert_eq!(world.server.table.len(), 0);
}

fn probing() -> Config {
    Config { probe: true, ..config() }
}

#[test]
fn rfc_2131_2_2_an_address_is_asked_for_before_a_new_client_gets_it_and_only_then() {
    let mut world = World::new(probing());
    assert!(world.send("vm1", &message(Kind::Discover, mac(1))).is_none());
    let asked = world.server.poll_probe().unwrap();
    assert!(world.send("vm1", &message(Kind::Discover, mac(1))).is_none(), "it waits, and asks once");
    assert_eq!(
        (world.server.poll_probe(), world.server.poll_timeout()),
        (None, Some(world.now + PROBE_WAIT))
    );
    world.now += PROBE_WAIT;
    world.server.handle_timeout(world.now);
    let (_, offer) = world.reply().unwrap();
    assert_eq!((offer.kind(), offer.yiaddr), (Some(Kind::Offer), asked));
    assert_eq!(world.lease("vm1", mac(1)), Some(asked), "at once, from now on");
}

#[test]
fn an_address_that_a_station_answers_for_is_set_aside_and_the_next_one_is_asked_for() {
    let mut world = World::new(probing());
    world.send("vm1", &message(Kind::Discover, mac(1)));
    let first = world.server.poll_probe().unwrap();
    world.server.probe_answered(world.now, first, mac(1));
    assert_eq!(world.server.counters().in_use, 0, "the client itself has it still");
    world.server.probe_answered(world.now, first, mac(9));
    let second = world.server.poll_probe().unwrap();
    assert_ne!(first, second);
    assert_eq!(world.server.table.get(first).unwrap().state, State::Declined);
    world.server.probe_answered(world.now, second, mac(9));
    // Two are enough: whoever answers for everything starves nobody.
    let (_, offer) = world.reply().unwrap();
    assert_eq!((offer.kind(), world.server.poll_probe()), (Some(Kind::Offer), None));
    assert!(offer.yiaddr != first && offer.yiaddr != second);
    world.server.probe_answered(world.now, offer.yiaddr, mac(9));
    assert_eq!(world.lease("vm1", mac(1)), Some(offer.yiaddr));
}

#[test]
fn a_station_that_answers_for_everything_sets_no_more_than_an_eighth_aside() {
    let mut world = World::new(probing());
    for last in 0..60 {
        world.send("vm1", &message(Kind::Discover, mac(last)));
        while let Some(address) = world.server.poll_probe() {
            world.server.probe_answered(world.now, address, MacAddr([2, 0, 0, 0, 9, 9]));
        }
    }
    let aside = world.server.leases().filter(|lease| lease.state == State::Declined).count() as u32;
    assert_eq!(aside, world.server.plan.size() / 8);
}

#[test]
fn rfc_4039_rapid_commit_waits_for_the_probe_too() {
    let mut world = World::new(probing());
    assert!(world.send("vm1", &with(message(Kind::Discover, mac(1)), code::RAPID_COMMIT, &[])).is_none());
    world.now += PROBE_WAIT;
    world.server.handle_timeout(world.now);
    world.settle();
    assert_eq!(kind(world.reply()), Some(Kind::Ack));
}
