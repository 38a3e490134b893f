//! The thread as workers and engine see it: frames in, frames out, leases on a real disk.

use super::*;
use crate::worker::command::{Key, ServiceFrame, Side};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use switchd_dataplane::TrapKind;
use switchd_nat::{Prefix4, Prefix6};
use switchd_proto::dhcp::v4::message::{Kind, Message};
use switchd_proto::dhcp::v4::options::code;
use switchd_proto::dhcp::v4::server as v4;
use switchd_wire::MacAddr;
use switchd_wire::datagram::{self, Link};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OUTSIDE: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x10]);
const WAIT: Duration = Duration::from_secs(10);

struct Wire(Mutex<Sender<(Side, Vec<u8>)>>);

impl Exit for Wire {
    fn send(&self, _: &Key, side: Side, frames: Vec<Vec<u8>>) -> bool {
        let sender = self.0.lock().unwrap();
        frames.into_iter().all(|frame| sender.send((side, frame)).is_ok())
    }
}

struct Lab {
    services: Services,
    thread: JoinHandle<()>,
    wire: Arc<Wire>,
    frames: Receiver<(Side, Vec<u8>)>,
    notices: Receiver<ServiceNotice>,
}

fn lab(dir: &std::path::Path) -> Lab {
    let (sender, frames) = channel();
    let (tell, notices) = channel();
    let tell = Box::new(move |notice| drop(tell.send(notice)));
    let (services, thread) =
        spawn(ServiceOptions { state_dir: dir.to_owned(), state_name: dir.to_owned() }, tell).unwrap();
    Lab { services, thread, wire: Arc::new(Wire(Mutex::new(sender))), frames, notices }
}

fn network(lab: &Lab) -> NetworkServices {
    NetworkServices {
        network: "lab".into(),
        exit: lab.wire.clone(),
        gateway_mac: GATEWAY,
        v4: Prefix4 { address: Ipv4Addr::new(10, 7, 0, 1), len: 24 },
        v6: None,
        mtu: 1500,
        domain: "lab".into(),
        ports: vec![ServicePort { name: "vm1".into(), reserve: None }],
        dhcp: Some(Dhcp::default()),
        dhcp6: Dhcp6::Slaac,
        outside: None,
        excluded: vec![],
        resolvers: vec![],
    }
}

impl Lab {
    fn offer(&self, kind: TrapKind, bytes: Vec<u8>) {
        assert!(self.services.intake().offer(ServiceFrame {
            kind,
            network: "lab".into(),
            port: "vm1".into(),
            bytes
        }));
    }

    fn ask(&self, message: &Message) -> Message {
        let link = Link { destination: MacAddr::BROADCAST, source: GUEST };
        let (from, to) = ("0.0.0.0:68".parse().unwrap(), "255.255.255.255:67".parse().unwrap());
        self.offer(TrapKind::Dhcp, datagram::udp4(link, from, to, &message.encode(1472).0).unwrap());
        let (mut side, mut frame) = self.frames.recv_timeout(WAIT).expect("an answer");
        if frame[12..14] == [0x08, 0x06] {
            // The probe for the address; nobody answers.
            (side, frame) = self.frames.recv_timeout(WAIT).expect("an answer");
        }
        assert_eq!(side, Side::Inside);
        let udp = datagram::read_udp4(&frame).expect("a good frame");
        assert_eq!((udp.link.source, udp.source.port()), (GATEWAY, 67));
        Message::parse(udp.payload).unwrap()
    }

    fn lease(&self) -> Ipv4Addr {
        let mut discover = Message::request(7, GUEST);
        discover.options.push((code::MESSAGE_TYPE, vec![Kind::Discover as u8]));
        discover.options.push((code::HOST_NAME, b"guest".to_vec()));
        let offer = self.ask(&discover);
        assert_eq!(offer.kind(), Some(Kind::Offer));
        let mut request = discover.clone();
        request.options[0].1 = vec![Kind::Request as u8];
        request.options.push((code::REQUESTED_ADDRESS, offer.yiaddr.octets().to_vec()));
        request.options.push((code::SERVER_ID, vec![10, 7, 0, 1]));
        let ack = self.ask(&request);
        assert_eq!((ack.kind(), ack.yiaddr), (Some(Kind::Ack), offer.yiaddr));
        ack.yiaddr
    }

    fn end(self) {
        self.services.stop();
        self.thread.join().unwrap();
    }

    fn outside(&self) -> Option<OutsideLease> {
        let until = Instant::now() + WAIT;
        while let Ok(notice) = self.notices.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let ServiceNotice::Outside { lease, .. } = notice {
                return lease;
            }
        }
        panic!("nothing was told of the outside");
    }
}

#[test]
fn a_lease_is_acknowledged_shown_and_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = lab(dir.path());
    first.services.set_network(network(&first)).unwrap();
    let address = first.lease();
    let rows = first.services.leases(Some("lab"));
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].address, rows[0].mac), (address.into(), Some(GUEST)));
    assert_eq!((rows[0].hostname.as_deref(), rows[0].state), (Some("guest"), LeaseState::Bound));
    assert!(rows[0].remaining > Duration::from_secs(3590));
    assert!(first.services.leases(Some("other")).is_empty());
    let counters = first.services.counters();
    let (_, counted) = &counters.networks[0];
    assert!(counted.contains(&("dhcp-ack", 1)) && counted.contains(&("dhcp-offer", 1)));
    // Killed: nothing is told, nothing is flushed; the thread is only stopped so that the file is let go.
    first.end();
    let second = lab(dir.path());
    second.services.set_network(network(&second)).unwrap();
    let rows = second.services.leases(None);
    assert_eq!((rows[0].address, rows[0].state), (address.into(), LeaseState::Bound));
    assert!(rows[0].remaining > Duration::from_secs(3500));
    assert_eq!(second.lease(), address);
    second.services.forget("lab").unwrap();
    second.services.set_network(network(&second)).unwrap();
    assert!(second.services.leases(None).is_empty());
    second.end();
}

#[test]
fn what_stays_the_same_goes_on_when_a_network_is_set_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.services.set_network(network(&lab)).unwrap();
    let address = lab.lease();
    let mut changed = network(&lab);
    changed.dhcp = None;
    lab.services.set_network(changed).unwrap();
    assert!(lab.services.leases(None).is_empty());
    lab.services.set_network(network(&lab)).unwrap();
    assert_eq!(lab.lease(), address);
    lab.services.remove_network("lab").unwrap();
    let frame =
        ServiceFrame { kind: TrapKind::Dhcp, network: "lab".into(), port: "vm1".into(), bytes: vec![] };
    assert!(lab.services.intake().offer(frame));
    let until = Instant::now() + WAIT;
    while lab.services.counters().unknown_network == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    lab.services.set_network(network(&lab)).unwrap();
    assert_eq!(lab.lease(), address, "removed, not forgotten");
    assert_eq!(lab.services.counters().unknown_network, 1);
    lab.end();
}

#[test]
fn a_router_is_advertised_and_its_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    let v6 = Some(Prefix6 { address: "fd00:7::1".parse().unwrap(), len: 64 });
    lab.services.set_network(NetworkServices { v6, ..network(&lab) }).unwrap();
    let (_, frame) = lab.frames.recv_timeout(WAIT).unwrap();
    let sent = datagram::read_icmp6(&frame).unwrap();
    assert_eq!((sent.body[0], sent.body[6..8].to_vec()), (134, 1800u16.to_be_bytes().to_vec()));
    assert_eq!((sent.source.to_string().as_str(), sent.hop_limit), ("fe80::ff:fe00:1", 255));
    lab.services.remove_network("lab").unwrap();
    let (_, frame) = lab.frames.recv_timeout(WAIT).unwrap();
    assert_eq!(datagram::read_icmp6(&frame).unwrap().body[6..8], [0, 0]);
    lab.end();
}

/// A server on the outside, of the same make as ours.
struct Upstream(v4::Server, u64);

impl Upstream {
    fn new() -> Upstream {
        let config = v4::Config {
            address: Ipv4Addr::new(192, 0, 2, 1),
            len: 24,
            range: None,
            lease_time: 600,
            mtu: 1500,
            domain: String::new(),
            dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
            ntp: vec![],
            tftp: None,
            bootfile: None,
            search: vec![],
            routes: vec![],
            ports: vec![],
            by_mac: vec![],
            excluded: vec![],
            port_limit: None,
            probe: false,
        };
        Upstream(v4::Server::new(config, [], 1), 1)
    }

    /// Answers one frame; what kind it was.
    fn serve(&mut self, lab: &Lab) -> Option<Kind> {
        let (side, frame) = lab.frames.recv_timeout(WAIT).expect("the client speaks");
        assert_eq!(side, Side::Outside);
        let udp = datagram::read_udp4(&frame).unwrap();
        assert_eq!(udp.link.source, OUTSIDE);
        let from = v4::Ingress { port: "wire".into(), mac: udp.link.source };
        self.0.handle_message(self.1, &from, udp.payload);
        while let Some(change) = self.0.poll_change() {
            self.0.settled(self.1, change.ticket, true);
        }
        if let Some(reply) = self.0.poll_transmit() {
            let link = Link { destination: reply.to_mac, source: MacAddr([2, 0, 0, 0, 9, 9]) };
            let frame = datagram::udp4(link, reply.from, reply.to, &reply.bytes).unwrap();
            lab.offer(TrapKind::DhcpClient, frame);
        }
        Message::parse(udp.payload).unwrap().kind()
    }
}

#[test]
fn the_outside_gets_its_address_keeps_it_over_a_restart_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::new();
    let outside = Some(OutsideClient { mac: OUTSIDE, hostname: Some("switch".into()) });
    let first = lab(dir.path());
    first.services.set_network(NetworkServices { outside: outside.clone(), ..network(&first) }).unwrap();
    assert_eq!(upstream.serve(&first), Some(Kind::Discover));
    assert_eq!(upstream.serve(&first), Some(Kind::Request));
    let lease = first.outside().unwrap();
    assert_eq!((lease.address.len, lease.gateway), (24, Some(Ipv4Addr::new(192, 0, 2, 1))));
    assert_eq!(lease.resolvers, [IpAddr::from([192, 0, 2, 53])]);
    first.end();
    let second = lab(dir.path());
    second.services.set_network(NetworkServices { outside: outside.clone(), ..network(&second) }).unwrap();
    assert_eq!(second.outside().unwrap().address, lease.address, "used at once");
    assert_eq!(upstream.serve(&second), Some(Kind::Request), "and verified");
    second.services.set_network(network(&second)).unwrap();
    assert_eq!(upstream.serve(&second), Some(Kind::Release));
    second.end();
}

#[test]
fn frames_that_are_not_what_they_were_trapped_as_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.services.set_network(network(&lab)).unwrap();
    let link = Link { destination: GATEWAY, source: GUEST };
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let mut cut = datagram::udp4(link, "0.0.0.0:68".parse().unwrap(), to, &[1; 300]).unwrap();
    cut.truncate(200);
    for kind in [TrapKind::Dhcp, TrapKind::Dhcp6, TrapKind::RouterSolicit, TrapKind::DhcpClient] {
        lab.offer(kind, cut.clone());
        lab.offer(kind, Vec::new());
    }
    // Commands and frames are handled in turns: the lease comes after the frames.
    lab.lease();
    let counters = lab.services.counters();
    assert!(counters.networks[0].1.contains(&("service-unreadable", 8)), "{counters:?}");
    lab.end();
}
