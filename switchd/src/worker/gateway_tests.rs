//! NAT networks on a worker, with ports in memory: both kinds of egress, services, the move.

use super::command::{
    Command, Gateway, Key, LinkFacts, NetworkConfig, Notice, PortConfig, ServiceFrame, Side,
};
use super::{Handle, Options, spawn_with};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use switchd_dataplane::{Egress, GatewayConfig, NetworkId, OutsideConfig, TrapKind};
use switchd_nat::{NatConfig, Prefix4};
use switchd_port::memory::MemoryPort;
use switchd_port::{Offloads, Port};
use switchd_wire::checksum::{Sum, pseudo_v4};
use switchd_wire::datagram::{Link, udp4};
use switchd_wire::{Gso, MacAddr, VnetHeader};

const ALL: Offloads = Offloads { csum: true, tso4: true, tso6: true, uso: true };
const GUEST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0xaa, 0, 0, 0, 1]);
const OUTSIDE_MAC: MacAddr = MacAddr([2, 0xbb, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 20);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

struct Bench {
    worker: Handle,
    services: Receiver<ServiceFrame>,
    _notices: Receiver<Notice>,
}

fn bench() -> Bench {
    let (tell, notices) = unbounded();
    let (offer, services) = bounded(2);
    let notice = Box::new(move |notice| drop(tell.send(notice)));
    let service = Box::new(move |frame| offer.try_send(frame).is_ok());
    let (worker, _) = spawn_with(Options::default(), notice, service).unwrap();
    Bench { worker, services, _notices: notices }
}

impl Bench {
    fn network(&self, name: &str) {
        self.worker.run(Command::AddNetwork { name: name.into(), config: NetworkConfig::default() }).unwrap();
    }

    fn guest(&self) -> MemoryPort {
        let port = MemoryPort::new(ALL);
        let device: Option<Box<dyn Port>> = Some(Box::new(port.clone()));
        let config = PortConfig::default();
        let (name, network) = ("vm1".into(), "lab".into());
        self.worker.run(Command::AddPort { name, network, config, device }).unwrap();
        port
    }

    fn uplink(&self) -> MemoryPort {
        let port = MemoryPort::new(ALL);
        let device: Option<Box<dyn Port>> = Some(Box::new(port.clone()));
        let name = Key::from("uplink:eth0");
        self.worker
            .run(Command::AddUplink {
                name: name.clone(),
                own: Vec::new(),
                facts: LinkFacts::default(),
                device,
            })
            .unwrap();
        let network = "egress:eth0".into();
        self.worker.run(Command::JoinUplink { network, uplink: name, vid: None }).unwrap();
        port
    }

    fn gateway(&self, egress: Egress) {
        let segment = matches!(egress, Egress::Outside(_)).then(|| "egress:eth0".into());
        let config =
            GatewayConfig { mac: GATEWAY_MAC, v4: Prefix4 { address: GATEWAY, len: 24 }, v6: None, egress };
        let gateway = Some(Box::new(Gateway { config, segment }));
        self.worker.run(Command::SetGateway { network: "lab".into(), gateway }).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.worker.run(Command::Stop);
    }
}

fn outside() -> Egress {
    let nat = NatConfig {
        inside: Prefix4 { address: GATEWAY, len: 24 },
        inside6: None,
        outside: vec![OUTSIDE],
        outside6: None,
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: Default::default(),
        timeouts: Default::default(),
        flows: 1000,
        quota: 500,
        mtu_outside: 1500,
        mtu_inside: 1500,
    };
    Egress::Outside(Box::new(OutsideConfig {
        // Named beside it.
        segment: NetworkId(u32::MAX),
        mac: OUTSIDE_MAC,
        v4: Some(Prefix4 { address: OUTSIDE, len: 24 }),
        gateway: Some(ROUTER),
        v6: None,
        gateway6: None,
        nat,
    }))
}

fn out(payload: &[u8]) -> Vec<u8> {
    let link = Link { destination: GATEWAY_MAC, source: GUEST_MAC };
    udp4(link, "10.7.0.20:4000".parse().unwrap(), "198.51.100.9:9".parse().unwrap(), payload).unwrap()
}

fn arp(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], mac.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

/// The next frame of a type that arrives within two seconds, with its offload header.
fn next(port: &MemoryPort, ethertype: u16) -> (VnetHeader, Vec<u8>) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        let taken = port.taken();
        if let Some(found) = taken.into_iter().find(|(_, bytes)| bytes[12..14] == ethertype.to_be_bytes()) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no frame of type {ethertype:04x}");
}

fn none() -> VnetHeader {
    VnetHeader::default()
}

/// A worker with `lab` behind an address of its own, the router known.
fn with_outside() -> (Bench, MemoryPort, MemoryPort) {
    let bench = bench();
    bench.network("egress:eth0");
    bench.network("lab");
    let (guest, uplink) = (bench.guest(), bench.uplink());
    bench.gateway(outside());
    assert!(uplink.inject(&arp(ROUTER_MAC, ROUTER, OUTSIDE), none()));
    next(&uplink, 0x0806);
    (bench, guest, uplink)
}

/// Where the reply goes to that the wire sends to what just left.
fn answer(left: &[u8], payload: &[u8]) -> Vec<u8> {
    let port = u16::from_be_bytes([left[34], left[35]]);
    let link = Link { destination: OUTSIDE_MAC, source: ROUTER_MAC };
    udp4(link, "198.51.100.9:9".parse().unwrap(), SocketAddrV4::new(OUTSIDE, port), payload).unwrap()
}

#[test]
fn a_guest_goes_out_with_an_outside_address_and_is_answered() {
    let (bench, guest, uplink) = with_outside();
    assert!(guest.inject(&out(&[7; 1200]), none()));
    let (_, left) = next(&uplink, 0x0800);
    assert_eq!((&left[..6], &left[26..30]), (&ROUTER_MAC.0[..], &OUTSIDE.octets()[..]));
    assert_eq!(left[42..], [7; 1200]);
    assert!(uplink.inject(&answer(&left, b"back"), none()));
    let (_, back) = next(&guest, 0x0800);
    assert_eq!((&back[..6], &back[30..34]), (&GUEST_MAC.0[..], &GUEST.octets()[..]));

    let (reply, flows) = bounded(1);
    bench.worker.run(Command::Flows { network: "lab".into(), limit: 10, reply }).unwrap();
    let flows = flows.recv().unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].protocol, flows[0].port.as_deref()), ("udp", Some("vm1")));
    assert_eq!((&*flows[0].inside, &*flows[0].remote), ("10.7.0.20:4000", "198.51.100.9:9"));
    let snapshot = bench.worker.snapshot().unwrap();
    assert_eq!(snapshot.gateways[0].nat.map(|nat| (nat.flows, nat.outbound)), Some((1, 1)));
    let port = |name: &str| snapshot.ports.iter().find(|port| &*port.name == name).unwrap();
    assert_eq!((port("gateway:lab").counters.rx_frames, port("gateway:lab").link), (1, true));
    assert!(port("egress:lab").counters.tx_frames >= 1);
}

#[test]
fn a_superframe_goes_out_whole_and_a_packet_that_waits_keeps_its_offload() {
    let bench = bench();
    bench.network("egress:eth0");
    bench.network("lab");
    let (guest, uplink) = (bench.guest(), bench.uplink());
    bench.gateway(outside());
    let mut frame = out(&[9; 20_000]);
    let pseudo = pseudo_v4(GUEST.octets(), [198, 51, 100, 9], 17, 20_008).uncomplemented();
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::UdpL4,
        gso_size: 1400,
        hdr_len: 42,
        csum_start: 34,
        csum_offset: 6,
        ..VnetHeader::default()
    };
    assert!(guest.inject(&frame, vnet));
    // Nobody knows the router yet.
    let (_, question) = next(&uplink, 0x0806);
    assert_eq!(question[12..14], [8, 6]);
    assert!(uplink.inject(&arp(ROUTER_MAC, ROUTER, OUTSIDE), none()));
    let (vnet, mut left) = next(&uplink, 0x0800);
    assert_eq!((vnet.gso, vnet.gso_size, left.len()), (Gso::UdpL4, 1400, 42 + 20_000));
    let checksum = Sum::new().over(&left[34..]).checksum();
    left[40..42].copy_from_slice(&checksum.to_be_bytes());
    let sum = pseudo_v4(OUTSIDE.octets(), [198, 51, 100, 9], 17, 20_008).over(&left[34..]);
    assert_eq!(sum.uncomplemented(), 0xffff);
}

#[test]
fn egress_host_gives_the_device_what_is_to_be_routed_and_the_guest_what_it_answers() {
    let bench = bench();
    bench.network("lab");
    let guest = bench.guest();
    bench.gateway(Egress::Host);
    assert!(guest.inject(&arp(GUEST_MAC, GUEST, GATEWAY), none()));
    assert_eq!(next(&guest, 0x0806).1[28..32], GATEWAY.octets(), "answers before it has a device");
    let host = MemoryPort::new(ALL);
    let device: Option<Box<dyn Port>> = Some(Box::new(host.clone()));
    bench.worker.run(Command::SetHostEgress { network: "lab".into(), device }).unwrap();
    assert!(guest.inject(&out(&[7; 1200]), none()));
    assert_eq!(next(&host, 0x0800).1, out(&[7; 1200]));
    let link = Link { destination: GUEST_MAC, source: GATEWAY_MAC };
    let to = "10.7.0.20:4000".parse().unwrap();
    let back = udp4(link, "198.51.100.9:9".parse().unwrap(), to, &[8; 1300]).unwrap();
    assert!(host.inject(&back, none()));
    assert_eq!(next(&guest, 0x0800).1, back);
    // Without a destination MAC the gateway knows where to.
    let mut unknown = back.clone();
    unknown[..6].fill(0);
    assert!(host.inject(&unknown, none()));
    assert_eq!(next(&guest, 0x0800).1, back);
    bench.worker.run(Command::SetHostEgress { network: "lab".into(), device: None }).unwrap();
    bench.worker.run(Command::SetGateway { network: "lab".into(), gateway: None }).unwrap();
    assert!(bench.worker.snapshot().unwrap().ports.iter().all(|port| &*port.name == "vm1"));
}

#[test]
fn services_get_their_frames_and_send_from_the_gateway() {
    let (bench, guest, _uplink) = with_outside();
    let link = Link { destination: GATEWAY_MAC, source: GUEST_MAC };
    let (from, to) = ("10.7.0.20:4000".parse().unwrap(), "10.7.0.1:53".parse().unwrap());
    let query = udp4(link, from, to, b"name?").unwrap();
    assert!(guest.inject(&query, none()));
    let frame = bench.services.recv_timeout(Duration::from_secs(2)).unwrap();
    assert_eq!((frame.kind, &*frame.network, &*frame.port), (TrapKind::Dns, "lab", "vm1"));
    assert_eq!(frame.bytes, query);
    let link = Link { destination: GUEST_MAC, source: GATEWAY_MAC };
    let answer = udp4(link, to, from, &[1; 1400]).unwrap();
    let (network, frames) = (Key::from("lab"), vec![answer.clone(), answer.clone()]);
    bench.worker.post(Command::Originate { network, side: Side::Inside, frames }).unwrap();
    assert_eq!(next(&guest, 0x0800).1, answer);
    // The services have room for two; what is beyond is counted, and nothing waits.
    for _ in 0..5 {
        assert!(guest.inject(&query, none()));
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while bench.worker.snapshot().unwrap().service_frames_lost < 3 {
        assert!(Instant::now() < deadline, "lost frames are counted");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_nat_network_moves_to_another_worker_with_its_flows() {
    let (here, guest, uplink) = with_outside();
    assert!(guest.inject(&out(b"out"), none()));
    let (_, left) = next(&uplink, 0x0800);
    let there = bench();
    there.network("other");
    for name in ["a", "b", "c"] {
        let (name, network, config) = (name.into(), "other".into(), PortConfig::default());
        there.worker.run(Command::AddPort { name, network, config, device: None }).unwrap();
    }
    let alone = here.worker.hand_over(vec!["lab".into()], &there.worker);
    assert!(alone.unwrap_err().to_string().contains("egress of network lab"));
    here.worker.hand_over(vec!["lab".into(), "egress:eth0".into()], &there.worker).unwrap();
    assert!(here.worker.snapshot().unwrap().ports.is_empty());
    assert!(uplink.inject(&answer(&left, b"back"), none()));
    assert_eq!(next(&guest, 0x0800).1[42..46], *b"back");
    let (reply, flows) = bounded(1);
    there.worker.run(Command::Flows { network: "lab".into(), limit: 10, reply }).unwrap();
    assert_eq!(flows.recv().unwrap()[0].port.as_deref(), Some("vm1"), "its index is another one here");
    let snapshot = there.worker.snapshot().unwrap();
    assert_eq!(snapshot.gateways[0].nat.map(|nat| (nat.outbound, nat.inbound)), Some((1, 1)));
    let mut names: Vec<&str> = snapshot.ports.iter().map(|port| &*port.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c", "egress:lab", "gateway:lab", "uplink:eth0", "vm1"]);
}

#[test]
fn a_gateway_goes_with_its_network_and_not_by_itself() {
    let (bench, _guest, _uplink) = with_outside();
    let refused = bench.worker.run(Command::RemovePort { name: "gateway:lab".into() });
    assert!(refused.unwrap_err().to_string().contains("goes with the gateway"));
    let refused = bench.worker.run(Command::RemoveNetwork { name: "egress:eth0".into() });
    assert!(refused.is_err(), "a gateway's outside stands on it");
    bench.worker.run(Command::RemovePort { name: "vm1".into() }).unwrap();
    bench.worker.run(Command::RemoveNetwork { name: "lab".into() }).unwrap();
    let snapshot = bench.worker.snapshot().unwrap();
    assert_eq!(snapshot.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(), ["uplink:eth0"]);
    assert!(snapshot.gateways.is_empty());
}
