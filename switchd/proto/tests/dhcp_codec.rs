//! Our DHCP messages against those of another implementation (dhcproto), and against any bytes.

use dhcproto::v4::{DhcpOption, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder, v4, v6};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use switchd_proto::dhcp::v4::message::{MINIMUM_MAX, Message};
use switchd_proto::dhcp::v4::options::{self, Route, code};
use switchd_proto::dhcp::v6::message as ours6;
use switchd_wire::MacAddr;

fn theirs(bytes: &[u8]) -> v4::Message {
    v4::Message::decode(&mut Decoder::new(bytes)).expect("dhcproto reads what we write")
}

#[test]
fn what_we_write_reads_the_same_elsewhere() {
    let mut ours = Message::request(0xdead_beef, MacAddr([2, 0, 0, 0, 0, 5]));
    (ours.secs, ours.hops) = (9, 1);
    ours.set_broadcast();
    (ours.ciaddr, ours.giaddr) = (Ipv4Addr::new(10, 7, 0, 5), Ipv4Addr::new(10, 7, 0, 250));
    let routes =
        [Route { destination: Ipv4Addr::new(10, 8, 0, 0), len: 13, router: Ipv4Addr::new(10, 7, 0, 9) }];
    ours.options = vec![
        (code::MESSAGE_TYPE, vec![3]),
        (code::REQUESTED_ADDRESS, vec![10, 7, 0, 5]),
        (code::CLIENT_ID, vec![255, 1, 2, 3]),
        (code::PARAMETER_LIST, vec![1, 3, 6]),
        (code::LEASE_TIME, 3600u32.to_be_bytes().to_vec()),
        (code::CLASSLESS_ROUTES, options::routes(&routes)),
        (code::DOMAIN_SEARCH, options::search_list(&["a.example".into(), "b.example".into()])),
    ];
    let read = theirs(&ours.encode(1472).0);
    assert_eq!((read.xid(), read.secs(), read.hops()), (0xdead_beef, 9, 1));
    assert!(read.flags().broadcast());
    assert_eq!((read.ciaddr(), read.giaddr()), (ours.ciaddr, ours.giaddr));
    assert_eq!(read.chaddr(), [2, 0, 0, 0, 0, 5]);
    let option = |code| read.opts().get(code).unwrap_or_else(|| panic!("no {code:?}"));
    assert_eq!(option(OptionCode::MessageType), &DhcpOption::MessageType(v4::MessageType::Request));
    assert_eq!(option(OptionCode::RequestedIpAddress), &DhcpOption::RequestedIpAddress(ours.ciaddr));
    assert_eq!(option(OptionCode::ClientIdentifier), &DhcpOption::ClientIdentifier(vec![255, 1, 2, 3]));
    assert_eq!(option(OptionCode::AddressLeaseTime), &DhcpOption::AddressLeaseTime(3600));
    let DhcpOption::ClasslessStaticRoute(list) = option(OptionCode::ClasslessStaticRoute) else {
        panic!("not routes")
    };
    let told: Vec<_> = list.iter().map(|(net, router)| (net.to_string(), *router)).collect();
    assert_eq!(told, [("10.8.0.0/13".to_owned(), Ipv4Addr::new(10, 7, 0, 9))]);
    let DhcpOption::DomainSearch(names) = option(OptionCode::DomainSearch) else { panic!("not names") };
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["a.example.", "b.example."]);
}

#[test]
fn what_others_write_reads_the_same_here() {
    let mut theirs = v4::Message::default();
    theirs.set_xid(77).set_chaddr(&[2, 0, 0, 0, 0, 7]).set_yiaddr(Ipv4Addr::new(10, 7, 0, 9));
    theirs.set_opcode(v4::Opcode::BootReply).set_flags(v4::Flags::default().set_broadcast());
    theirs.opts_mut().insert(DhcpOption::MessageType(v4::MessageType::Offer));
    theirs.opts_mut().insert(DhcpOption::Router(vec![Ipv4Addr::new(10, 7, 0, 1)]));
    theirs.opts_mut().insert(DhcpOption::Hostname("guest".into()));
    let mut bytes = Vec::new();
    theirs.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let ours = Message::parse(&bytes).unwrap();
    assert_eq!((ours.op, ours.xid, ours.yiaddr), (2, 77, Ipv4Addr::new(10, 7, 0, 9)));
    assert_eq!(ours.mac(), Some(MacAddr([2, 0, 0, 0, 0, 7])));
    assert!(ours.wants_broadcast());
    assert_eq!(ours.option(code::ROUTER), Some(&[10, 7, 0, 1][..]));
    assert_eq!(ours.option(code::HOST_NAME), Some(&b"guest"[..]));
}

#[test]
fn dhcpv6_in_both_directions() {
    let mut message = v6::Message::new_with_id(v6::MessageType::Solicit, [1, 2, 3]);
    message.opts_mut().insert(v6::DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 9]));
    let mut inner = v6::DhcpOptions::new();
    let address = "fd00::9".parse().unwrap();
    let granted =
        v6::IAAddr { addr: address, preferred_life: 3, valid_life: 4, opts: v6::DhcpOptions::new() };
    inner.insert(v6::DhcpOption::IAAddr(granted));
    message.opts_mut().insert(v6::DhcpOption::IANA(v6::IANA { id: 7, t1: 1, t2: 2, opts: inner }));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let ours = ours6::Message::parse(&bytes).unwrap();
    assert_eq!((ours.kind, ours.transaction), (1, [1, 2, 3]));
    assert_eq!(ours.client_id(), Some(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 9][..]));
    let associations: Vec<_> = ours.options.associations(ours6::code::IA_NA).collect();
    assert_eq!((associations[0].id, &associations[0].addresses[..]), ([0, 0, 0, 7], &[address][..]));
    assert_eq!(v6::Message::decode(&mut Decoder::new(&ours.to_bytes())).unwrap(), message);
}

proptest! {
    /// What is written in any room reads back as it was, but for what is said to be left out; and an option
    /// of more than 255 octets goes in pieces (RFC 3396).
    #[test]
    fn options_come_back_whole_whatever_the_room(
        lens in proptest::collection::vec(0..700usize, 0..12),
        limit in MINIMUM_MAX..1500usize,
    ) {
        let mut message = Message::request(1, MacAddr([2; 6]));
        for (index, len) in lens.iter().enumerate() {
            message.options.push((100 + index as u8, vec![index as u8; *len]));
        }
        let (bytes, left_out) = message.encode(limit);
        prop_assert!(bytes.len() <= limit);
        let read = Message::parse(&bytes).unwrap();
        for (option, value) in &message.options {
            let expected = (!left_out.contains(option)).then_some(&value[..]);
            prop_assert_eq!(read.option(*option), expected);
        }
        prop_assert_eq!(read.options.len() + left_out.len(), message.options.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        cookie in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if cookie && bytes.len() > 240 {
            (bytes[0], bytes[2]) = (1, 6);
            bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        }
        if let Ok(message) = Message::parse(&bytes) {
            let again = Message::parse(&message.encode(70_000).0).unwrap();
            prop_assert_eq!(again.options, message.options);
        }
        let _ = ours6::Message::parse(&bytes).map(|message| message.to_bytes());
    }
}
