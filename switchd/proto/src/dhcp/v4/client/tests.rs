//! RFC 2131 4.4, clause by clause, on a virtual clock.

use super::super::options;
use super::*;

const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn config() -> Config {
    Config { mac: OURS, client_id: vec![255, 0, 0, 0, 1, 9], hostname: Some("switch".into()) }
}

fn lease() -> ClientLease {
    ClientLease {
        address: ADDRESS,
        len: 24,
        gateway: Some(SERVER),
        dns: vec![SERVER],
        domain: None,
        mtu: None,
        server: SERVER,
        server_mac: SERVER_MAC,
        lease_time: 1000,
        t1: 500,
        t2: 875,
    }
}

fn sent(client: &mut Client) -> (Transmit, Message) {
    let transmit = client.poll_transmit().expect("something is sent");
    assert!(client.poll_transmit().is_none(), "one thing only");
    let message = Message::parse(&transmit.bytes).unwrap();
    (transmit, message)
}

fn answer(to: &Message, kind: Kind) -> Message {
    let mut message = Message::reply_to(to);
    message.options.push((code::MESSAGE_TYPE, vec![kind as u8]));
    message.options.push((code::SERVER_ID, SERVER.octets().to_vec()));
    if kind != Kind::Nak {
        message.yiaddr = ADDRESS;
        message.options.push((code::LEASE_TIME, 1000u32.to_be_bytes().to_vec()));
        message.options.push((code::SUBNET_MASK, vec![255, 255, 255, 0]));
        message.options.push((code::ROUTER, SERVER.octets().to_vec()));
        message.options.push((code::DNS, SERVER.octets().to_vec()));
    }
    message
}

fn hear(client: &mut Client, now: u64, message: &Message) {
    client.handle_message(now, SERVER_MAC, &message.encode(1400).0);
}

/// A client that is bound since `now`.
fn bound(now: u64) -> Client {
    let mut client = Client::new(config(), now, 7, None);
    client.handle_timeout(now);
    let (_, discover) = sent(&mut client);
    hear(&mut client, now, &answer(&discover, Kind::Offer));
    let (_, request) = sent(&mut client);
    hear(&mut client, now, &answer(&request, Kind::Ack));
    assert_eq!(client.state(), "BOUND");
    assert!(matches!(client.poll_event(), Some(Event::Bound { changed: true, .. })));
    client
}

/// Lets time pass, timer by timer, and returns when something was sent.
fn run(client: &mut Client, until: u64) -> Vec<(u64, Transmit)> {
    let mut times = Vec::new();
    while let Some(at) = client.poll_timeout().filter(|&at| at <= until) {
        client.handle_timeout(at);
        times.extend(std::iter::from_fn(|| client.poll_transmit()).map(|transmit| (at, transmit)));
    }
    times
}

#[test]
fn rfc_2131_4_4_1_discover_request_bound() {
    let mut client = Client::new(config(), 0, 7, None);
    client.handle_timeout(0);
    let (transmit, discover) = sent(&mut client);
    assert_eq!((*transmit.to.ip(), transmit.to_mac), (Ipv4Addr::BROADCAST, MacAddr::BROADCAST));
    assert_eq!(
        (*transmit.from.ip(), transmit.from.port(), transmit.to.port()),
        (Ipv4Addr::UNSPECIFIED, 68, 67)
    );
    assert_eq!((discover.kind(), discover.mac()), (Some(Kind::Discover), Some(OURS)));
    assert_eq!(discover.option(code::CLIENT_ID), Some(&config().client_id[..]));
    assert_eq!(discover.option(code::HOST_NAME), Some(&b"switch"[..]));
    hear(&mut client, SECOND, &answer(&discover, Kind::Offer));
    let (transmit, request) = sent(&mut client);
    assert_eq!(request.xid, discover.xid, "the same as the offer's");
    assert_eq!(request.secs, 1);
    assert_eq!(request.address_option(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.address_option(code::SERVER_ID), Some(SERVER));
    assert_eq!((request.ciaddr, *transmit.to.ip()), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    hear(&mut client, 2 * SECOND, &answer(&request, Kind::Ack));
    assert_eq!(client.poll_event(), Some(Event::Bound { lease: lease(), began: SECOND, changed: true }));
    assert_eq!(client.poll_timeout(), Some(501 * SECOND), "T1 counts from when the REQUEST was sent");
}

#[test]
fn rfc_2131_4_1_retransmission_doubles_from_4_to_64_seconds_with_a_random_second() {
    let mut all = Vec::new();
    for seed in 1..40 {
        let mut client = Client::new(config(), 0, seed, None);
        let times: Vec<u64> = run(&mut client, 400 * SECOND).into_iter().map(|(at, _)| at).collect();
        for (index, pair) in times.windows(2).enumerate() {
            let wait = (4 * SECOND) << index.min(4);
            let gap = pair[1] - pair[0];
            assert!((wait - SECOND..=wait + SECOND).contains(&gap), "try {index}: {gap}");
        }
        all.push(times);
    }
    all.dedup();
    assert!(all.len() > 30, "not random");
}

#[test]
fn rfc_2131_4_4_1_a_request_that_nobody_answers_starts_again_with_a_new_xid() {
    let mut client = Client::new(config(), 0, 7, None);
    client.handle_timeout(0);
    let (_, discover) = sent(&mut client);
    hear(&mut client, 0, &answer(&discover, Kind::Offer));
    let later = run(&mut client, 300 * SECOND);
    let kinds: Vec<_> = later
        .iter()
        .map(|(_, it)| Message::parse(&it.bytes).unwrap())
        .map(|it| (it.kind(), it.xid))
        .collect();
    let requests = kinds.iter().take_while(|(kind, _)| *kind == Some(Kind::Request)).count();
    assert_eq!(requests, REQUESTS as usize);
    assert_eq!(kinds[requests].0, Some(Kind::Discover));
    assert_ne!(kinds[requests].1, discover.xid);
}

#[test]
fn rfc_2131_4_4_5_renewing_is_unicast_at_t1_rebinding_broadcast_at_t2_and_then_it_is_over() {
    let mut client = bound(0);
    let sent = run(&mut client, 999 * SECOND);
    let (at, first) = &sent[0];
    let request = Message::parse(&first.bytes).unwrap();
    assert_eq!((*at, *first.to.ip(), first.to_mac), (500 * SECOND, SERVER, SERVER_MAC));
    assert_eq!((*first.from.ip(), request.ciaddr), (ADDRESS, ADDRESS));
    assert_eq!((request.option(code::SERVER_ID), request.option(code::REQUESTED_ADDRESS)), (None, None));
    let rebinding: Vec<_> = sent.iter().filter(|(_, it)| *it.to.ip() == Ipv4Addr::BROADCAST).collect();
    assert_eq!(rebinding[0].0, 875 * SECOND);
    let close = |pair: &[&(u64, Transmit)]| pair[1].0 - pair[0].0 < 60 * SECOND;
    assert!(!rebinding.windows(2).any(close), "not closer than a minute");
    // Half of what is left: from 500 s, T2 is 375 s away.
    assert_eq!(sent[1].0, 500 * SECOND + 375 * SECOND / 2);
    assert!(client.poll_event().is_none());
    run(&mut client, 1000 * SECOND);
    assert_eq!(client.poll_event(), Some(Event::Lost { why: "the lease ended" }));
    assert_eq!(client.state(), "SELECTING");
}

#[test]
fn rfc_2131_4_4_5_an_ack_renews_and_a_nak_ends_it_at_once() {
    let mut client = bound(0);
    client.handle_timeout(500 * SECOND);
    let (_, request) = sent(&mut client);
    hear(&mut client, 501 * SECOND, &answer(&request, Kind::Ack));
    assert_eq!(
        client.poll_event(),
        Some(Event::Bound { lease: lease(), began: 500 * SECOND, changed: false })
    );
    client.handle_timeout(1000 * SECOND);
    let (_, request) = sent(&mut client);
    hear(&mut client, 1001 * SECOND, &answer(&request, Kind::Nak));
    assert_eq!(client.poll_event(), Some(Event::Lost { why: "the server refused the address" }));
    assert_eq!(client.state(), "INIT");
    assert!(client.poll_timeout().unwrap() <= 1002 * SECOND);
}

#[test]
fn rfc_2131_3_2_a_kept_lease_is_used_at_once_verified_and_believed_without_an_answer() {
    let mut client = Client::new(config(), 100 * SECOND, 7, Some((lease(), 0)));
    assert_eq!(client.poll_event(), Some(Event::Bound { lease: lease(), began: 0, changed: true }));
    let (_, request) = sent(&mut client);
    assert_eq!((request.kind(), request.ciaddr), (Some(Kind::Request), Ipv4Addr::UNSPECIFIED));
    assert_eq!(request.address_option(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.option(code::SERVER_ID), None, "4.3.2: MUST NOT be filled in");
    let mut silent = Client::new(config(), 100 * SECOND, 7, Some((lease(), 0)));
    run(&mut silent, 200 * SECOND);
    assert_eq!((silent.state(), silent.poll_timeout()), ("BOUND", Some(500 * SECOND)));
    hear(&mut client, 101 * SECOND, &answer(&request, Kind::Nak));
    client.poll_event();
    assert_eq!(client.lease(), None);
    let over = Client::new(config(), 1000 * SECOND, 7, Some((lease(), 0)));
    assert_eq!((over.state(), over.lease()), ("INIT", None));
}

#[test]
fn when_the_link_comes_back_the_lease_is_verified() {
    let mut client = bound(0);
    client.set_link(10 * SECOND, false);
    assert_eq!(client.poll_timeout(), Some(1000 * SECOND), "the lease ends also without a link");
    client.set_link(20 * SECOND, true);
    let (_, request) = sent(&mut client);
    assert_eq!(
        (client.state(), request.address_option(code::REQUESTED_ADDRESS)),
        ("REBOOTING", Some(ADDRESS))
    );
    hear(&mut client, 20 * SECOND, &answer(&request, Kind::Ack));
    assert!(matches!(client.poll_event(), Some(Event::Bound { changed: false, .. })));
    client.set_link(30 * SECOND, false);
    run(&mut client, 2000 * SECOND);
    assert_eq!(client.poll_event(), Some(Event::Lost { why: "the lease ended" }));
    assert_eq!(client.state(), "DOWN");
}

#[test]
fn rfc_2131_4_4_6_the_address_is_given_back_to_its_server() {
    let mut client = bound(0);
    client.release();
    let (transmit, release) = sent(&mut client);
    assert_eq!((release.kind(), release.ciaddr, *transmit.to.ip()), (Some(Kind::Release), ADDRESS, SERVER));
    assert_eq!(release.option(code::REQUESTED_ADDRESS), None);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn rfc_2131_3_1_5_a_conflict_is_declined_and_ten_seconds_pass() {
    let mut client = bound(0);
    client.conflict(SECOND);
    let (transmit, decline) = sent(&mut client);
    assert_eq!((decline.kind(), *transmit.to.ip()), (Some(Kind::Decline), Ipv4Addr::BROADCAST));
    assert_eq!(decline.address_option(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(decline.address_option(code::SERVER_ID), Some(SERVER));
    assert_eq!(client.poll_timeout(), Some(11 * SECOND));
    assert!(matches!(client.poll_event(), Some(Event::Lost { .. })));
}

#[test]
fn what_is_not_for_us_or_makes_no_sense_is_ignored_and_counted() {
    let mut client = Client::new(config(), 0, 7, None);
    client.handle_timeout(0);
    let (_, discover) = sent(&mut client);
    let good = answer(&discover, Kind::Offer);
    let without = |option| {
        let mut message = good.clone();
        message.options.retain(|(known, _)| *known != option);
        message
    };
    let mut mask = without(code::SUBNET_MASK);
    mask.options.push((code::SUBNET_MASK, vec![255, 0, 255, 0]));
    let mut id = good.clone();
    id.options.push((code::CLIENT_ID, vec![1, 2, 3]));
    let bad = [
        Message { xid: good.xid ^ 1, ..good.clone() },
        Message { chaddr: [9; 16], ..good.clone() },
        Message { op: 1, ..good.clone() },
        Message { yiaddr: Ipv4Addr::UNSPECIFIED, ..good.clone() },
        Message { yiaddr: Ipv4Addr::BROADCAST, ..good.clone() },
        Message { yiaddr: Ipv4Addr::new(224, 0, 0, 1), ..good.clone() },
        without(code::SERVER_ID),
        without(code::LEASE_TIME),
        without(code::MESSAGE_TYPE),
        mask,
        id,
        answer(&discover, Kind::Ack),
        answer(&discover, Kind::Nak),
    ];
    for message in &bad {
        hear(&mut client, 0, message);
    }
    assert_eq!((client.counters().ignored, client.state()), (bad.len() as u64, "SELECTING"));
    hear(&mut client, 0, &good);
    let (_, request) = sent(&mut client);
    // An ACK for another address than the one asked for.
    let other = Message { yiaddr: Ipv4Addr::new(192, 0, 2, 10), ..answer(&request, Kind::Ack) };
    hear(&mut client, 0, &other);
    assert_eq!(client.state(), "REQUESTING");
}

#[test]
fn rfc_3442_classless_routes_take_the_place_of_the_router() {
    let mut message = answer(&Message::request(1, OURS), Kind::Offer);
    let router = Ipv4Addr::new(192, 0, 2, 254);
    let routes = [
        options::Route { destination: Ipv4Addr::new(10, 0, 0, 0), len: 8, router: SERVER },
        options::Route { destination: Ipv4Addr::UNSPECIFIED, len: 0, router },
    ];
    message.options.push((code::CLASSLESS_ROUTES, options::routes(&routes)));
    assert_eq!(lease::read(&message, Kind::Offer, SERVER_MAC).unwrap().gateway, Some(router));
}

#[test]
fn rfc_2131_4_4_5_t1_and_t2_of_the_server_hold_if_they_make_sense() {
    let with = |t1: u32, t2: u32| {
        let mut message = answer(&Message::request(1, OURS), Kind::Ack);
        message.options.push((code::RENEWAL_TIME, t1.to_be_bytes().to_vec()));
        message.options.push((code::REBINDING_TIME, t2.to_be_bytes().to_vec()));
        let lease = lease::read(&message, Kind::Ack, SERVER_MAC).unwrap();
        (lease.t1, lease.t2)
    };
    assert_eq!(with(100, 200), (100, 200));
    for (t1, t2) in [(200, 100), (0, 100), (900, 1000), (2000, 3000)] {
        assert_eq!(with(t1, t2), (500, 875));
    }
}

#[test]
fn rfc_2131_4_4_1_an_address_that_is_found_in_use_is_declined_and_later_defended() {
    let mut client = bound(0);
    client.probe_answered(SECOND, Ipv4Addr::new(192, 0, 2, 77));
    assert_eq!(client.state(), "BOUND");
    client.probe_answered(FRESH, ADDRESS);
    assert_eq!(client.state(), "BOUND", "RFC 5227 2.4 (c)");
    client.probe_answered(SECOND, ADDRESS);
    assert_eq!(sent(&mut client).1.kind(), Some(Kind::Decline));
}
