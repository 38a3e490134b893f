//! A dataplane with gateways, and a rim that keeps whole frames. What the dataplane makes itself is sent as
//! a worker does it, and the accounting is held against its invariants after every step.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;
use switchd_dataplane::gateway::Born;
use switchd_dataplane::{
    Cleared, Dataplane, DataplaneNotice, Direction, DropReason, Egress, GatewayConfig, MirrorId,
    NetworkConfig, NetworkId, Origin, OutsideConfig, PortConfig, PortId, Rim, Transmit, TrapKind, Trapped,
};
use switchd_nat::{NatConfig, Prefix4, Prefix6};
use switchd_wire::frame::{HEAD_MAX, StaleTail};
use switchd_wire::{Frame, MacAddr, Tail, TailSource, VnetHeader};

pub const SECOND: u64 = 1_000_000_000;
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0xaa, 0, 0, 0, 1]);
pub const OUTSIDE_MAC: MacAddr = MacAddr([0x02, 0xbb, 0, 0, 0, 1]);
/// The router on the wire, and a server on its link.
pub const ROUTER_MAC: MacAddr = MacAddr([0x02, 0xcc, 0, 0, 0, 1]);
pub const SERVER_MAC: MacAddr = MacAddr([0x02, 0xcc, 0, 0, 0, 2]);

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// Far away.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 1);
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

pub fn guest_mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

pub fn guest(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 7, 0, 100 + number)
}

pub fn guest6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 1, number.into())
}

/// Tails of a burst.
#[derive(Default, Clone)]
struct Store(Rc<RefCell<Vec<Vec<u8>>>>);

impl TailSource for Store {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let store = self.0.borrow();
        let bytes = store.get(usize::from(tail.slot)).ok_or(StaleTail)?;
        dst.copy_from_slice(bytes.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    pub port: PortId,
    pub bytes: Vec<u8>,
    pub vnet: VnetHeader,
    /// As a device sees it.
    pub guest: u32,
}

#[derive(Default)]
struct Recorder {
    tails: Store,
    sent: Vec<Sent>,
}

impl Rim for Recorder {
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let frame = cleared.frame();
        let mut bytes = vec![0; frame.len()];
        frame.copy_out(&self.tails, 0, &mut bytes).expect("the tail is of this burst");
        self.sent.push(Sent { port, bytes, vnet: frame.vnet, guest: frame.guest });
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

pub struct World {
    pub dataplane: Dataplane,
    rim: Recorder,
    pub now: u64,
    pub ports: Vec<PortId>,
    pub networks: Vec<NetworkId>,
}

/// The NAT configuration of an outside.
pub fn nat() -> NatConfig {
    NatConfig {
        inside: Prefix4 { address: GATEWAY, len: 24 },
        inside6: Some(Prefix6 { address: GATEWAY6, len: 64 }),
        outside: vec![OUTSIDE],
        outside6: Some(OUTSIDE6),
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: Default::default(),
        timeouts: Default::default(),
        flows: 1000,
        quota: 500,
        mtu_outside: 1500,
        mtu_inside: 1500,
    }
}

pub fn outside(segment: NetworkId) -> OutsideConfig {
    OutsideConfig {
        segment,
        mac: OUTSIDE_MAC,
        v4: Some(Prefix4 { address: OUTSIDE, len: 24 }),
        gateway: Some(ROUTER),
        v6: Some(Prefix6 { address: OUTSIDE6, len: 64 }),
        gateway6: Some(ROUTER6),
        nat: nat(),
    }
}

pub fn config(egress: Egress) -> GatewayConfig {
    GatewayConfig {
        mac: GATEWAY_MAC,
        v4: Prefix4 { address: GATEWAY, len: 24 },
        v6: Some(Prefix6 { address: GATEWAY6, len: 64 }),
        egress,
    }
}

/// A NAT network with guests 1 and 2, and its segment with an uplink.
pub struct Lab {
    pub world: World,
    pub network: NetworkId,
    pub segment: NetworkId,
    pub guests: [PortId; 2],
    pub uplink: PortId,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(|_| {})
    }

    /// The neighbours are known: the router and the server have asked for us, and so have the guests.
    pub fn with(change: impl FnOnce(&mut OutsideConfig)) -> Lab {
        let mut lab = Lab::bare(change);
        for (address, mac) in [(ROUTER, ROUTER_MAC), (SERVER, SERVER_MAC)] {
            lab.world.send(lab.uplink, &arp(true, mac, address, OUTSIDE, MacAddr::BROADCAST));
        }
        lab.world.send(lab.uplink, &solicit(ROUTER_MAC, ROUTER6, OUTSIDE6));
        for (number, port) in [(1, lab.guests[0]), (2, lab.guests[1])] {
            lab.world.send(port, &arp(true, guest_mac(number), guest(number), GATEWAY, MacAddr::BROADCAST));
            lab.world.send(port, &solicit(guest_mac(number), guest6(number), GATEWAY6));
        }
        lab
    }

    /// Nobody is known yet.
    pub fn bare(change: impl FnOnce(&mut OutsideConfig)) -> Lab {
        let mut world = World::new();
        let segment = world.network(NetworkConfig::default());
        let network = world.network(NetworkConfig::default());
        let uplink = world.dataplane.add_uplink(Vec::new());
        world.dataplane.set_link(uplink, true);
        world.ports.push(uplink);
        world.dataplane.join_uplink(segment, uplink, None).unwrap();
        let guests = [world.port(network), world.port(network)];
        let mut outside = outside(segment);
        change(&mut outside);
        world.gateway(network, config(Egress::Outside(Box::new(outside))));
        Lab { world, network, segment, guests, uplink }
    }

    pub fn host() -> Lab {
        let mut world = World::new();
        let segment = world.network(NetworkConfig::default());
        let network = world.network(NetworkConfig::default());
        let guests = [world.port(network), world.port(network)];
        world.gateway(network, config(Egress::Host));
        Lab { world, network, segment, guests, uplink: PortId(u32::MAX) }
    }

    /// From guest 1; what left.
    pub fn out(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.world.send(self.guests[0], bytes)
    }

    /// From the wire.
    pub fn wire(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.world.send(self.uplink, bytes)
    }

    pub fn gateway_port(&self) -> PortId {
        self.world.dataplane.gateway_port(self.network).unwrap()
    }

    pub fn outside_port(&self) -> PortId {
        self.world.dataplane.outside_port(self.network).unwrap()
    }

    /// Guest 1's frame must be dropped by the gateway for this reason; what else left because of it.
    #[track_caller]
    pub fn refuses(&mut self, bytes: &[u8], reason: DropReason) -> Vec<Sent> {
        let port = self.gateway_port();
        let before = self.world.dataplane.port_counters(port).dropped_out;
        let sent = self.out(bytes);
        self.dropped(port, before, reason);
        sent
    }

    /// The same for a frame from the wire.
    #[track_caller]
    pub fn refuses_from_wire(&mut self, bytes: &[u8], reason: DropReason) -> Vec<Sent> {
        let port = self.outside_port();
        let before = self.world.dataplane.port_counters(port).dropped_out;
        let sent = self.wire(bytes);
        self.dropped(port, before, reason);
        sent
    }

    #[track_caller]
    fn dropped(&self, port: PortId, mut expected: switchd_dataplane::DropCounters, reason: DropReason) {
        expected.count(reason, 1);
        let after = self.world.dataplane.port_counters(port).dropped_out;
        let names = |counters: &switchd_dataplane::DropCounters| {
            counters.nonzero().map(|(reason, count)| (reason.name(), count)).collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&expected));
    }
}

impl World {
    pub fn new() -> World {
        World {
            dataplane: Dataplane::new(0x5eed),
            rim: Recorder::default(),
            now: 100 * SECOND,
            ports: Vec::new(),
            networks: Vec::new(),
        }
    }

    pub fn network(&mut self, config: NetworkConfig) -> NetworkId {
        let network = self.dataplane.add_network(config);
        self.networks.push(network);
        network
    }

    pub fn port(&mut self, network: NetworkId) -> PortId {
        let port = self.dataplane.add_port(network, PortConfig::default());
        self.dataplane.set_link(port, true);
        self.ports.push(port);
        port
    }

    pub fn mtu(&mut self, network: NetworkId, mtu: u16) {
        let config = NetworkConfig { mtu, ageing: Duration::from_secs(300), ..NetworkConfig::default() };
        self.dataplane.set_network(network, config);
    }

    pub fn gateway(&mut self, network: NetworkId, config: GatewayConfig) {
        self.dataplane.set_gateway(self.now, network, Some(config)).unwrap();
        for port in [self.dataplane.gateway_port(network), self.dataplane.outside_port(network)] {
            self.ports.extend(port.filter(|port| !self.ports.contains(port)));
        }
    }

    pub fn send(&mut self, port: PortId, bytes: &[u8]) -> Vec<Sent> {
        self.burst(port, &[(bytes.to_vec(), VnetHeader::default())])
    }

    /// Sends a burst down the road, then what the dataplane made because of it, and returns what left.
    pub fn burst(&mut self, port: PortId, burst: &[(Vec<u8>, VnetHeader)]) -> Vec<Sent> {
        let mut frames = self.frames(burst);
        let tails = self.rim.tails.clone();
        self.dataplane.process(self.now, port, &mut frames, &tails, &mut self.rim);
        self.settle()
    }

    pub fn originate(&mut self, origin: Origin, bytes: &[u8]) -> Vec<Sent> {
        self.originate_one(Born { origin, bytes: bytes.to_vec(), vnet: VnetHeader::default() });
        self.settle()
    }

    fn originate_one(&mut self, born: Born) {
        let mut frames = self.frames(&[(born.bytes, born.vnet)]);
        let tails = self.rim.tails.clone();
        assert!(self.dataplane.originate(self.now, born.origin, &mut frames[0], &tails, &mut self.rim));
    }

    fn settle(&mut self) -> Vec<Sent> {
        for _ in 0..10 {
            for born in self.dataplane.take_born() {
                self.originate_one(born);
            }
        }
        assert!(!self.dataplane.has_born(), "answers come to an end");
        self.check();
        std::mem::take(&mut self.rim.sent)
    }

    fn frames(&mut self, burst: &[(Vec<u8>, VnetHeader)]) -> Vec<Frame> {
        let mut tails = Vec::new();
        let frame = |(bytes, vnet): &(Vec<u8>, VnetHeader)| {
            let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
            let mut frame = Frame::default();
            frame.receive_area()[..head.len()].copy_from_slice(head);
            let token = Tail { slot: tails.len() as u16, len: tail.len() as u32, ..Tail::default() };
            tails.push(tail.to_vec());
            frame.arrived(head.len(), token, *vnet);
            frame
        };
        let frames = burst.iter().map(frame).collect();
        *self.rim.tails.0.borrow_mut() = tails;
        frames
    }

    /// Lets time pass in steps of a tenth of a second, and returns what left meanwhile.
    pub fn pass(&mut self, seconds: u64) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..seconds * 10 {
            self.now += SECOND / 10;
            self.dataplane.gateway_timers(self.now);
            sent.extend(self.settle());
        }
        sent
    }

    pub fn traps(&mut self) -> Vec<Trapped> {
        self.dataplane.take_trapped()
    }

    pub fn trap_kinds(&mut self) -> Vec<TrapKind> {
        self.traps().into_iter().map(|trapped| trapped.kind).collect()
    }

    pub fn notices(&mut self) -> Vec<DataplaneNotice> {
        self.dataplane.take_notices().collect()
    }

    /// The invariants of `counters`.
    #[track_caller]
    pub fn check(&self) {
        let (mut ports_offered, mut networks_offered) = (0, 0);
        for &port in &self.ports {
            let c = self.dataplane.port_counters(port);
            let inwards = c.forwarded + c.flooded + c.trapped + c.dropped_in.total();
            assert_eq!(c.rx_frames, inwards, "inwards at {port:?}: {c:?}");
            assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "outwards at {port:?}: {c:?}");
            ports_offered += c.offered - c.originated;
        }
        for &network in &self.networks {
            let c = self.dataplane.network_counters(network);
            assert_eq!(c.offered, c.forwarded + c.fanout + c.originated, "{network:?}: {c:?}");
            networks_offered += c.offered;
        }
        assert_eq!(ports_offered, networks_offered, "what networks offer is what ports are offered");
    }
}

/// The only frame that left, which left by this port.
#[track_caller]
pub fn only(sent: Vec<Sent>, port: PortId) -> Vec<u8> {
    let ports: Vec<PortId> = sent.iter().map(|sent| sent.port).collect();
    assert_eq!(ports, [port], "{:02x?}", sent.iter().map(|sent| &sent.bytes).collect::<Vec<_>>());
    sent.into_iter().next().unwrap().bytes
}

pub fn arp(request: bool, sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr, to: MacAddr) -> Vec<u8> {
    let mut frame = [to.0, sender_mac.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, if request { 1 } else { 2 }]);
    frame.extend(sender_mac.0);
    frame.extend(sender.octets());
    frame.extend(if to == MacAddr::BROADCAST { [0; 6] } else { to.0 });
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

/// A neighbour solicitation to the target's group.
pub fn solicit(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    if !source.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac.0);
    }
    let link =
        switchd_wire::datagram::Link { destination: MacAddr([0x33, 0x33, 0xff, a, b, c]), source: mac };
    switchd_wire::datagram::icmp6(link, source, group, &body).unwrap()
}

/// Destination, source and type of an Ethernet frame.
pub fn link(bytes: &[u8]) -> (MacAddr, MacAddr, u16) {
    let mac = |at: usize| MacAddr(bytes[at..at + 6].try_into().unwrap());
    (mac(0), mac(6), u16::from_be_bytes([bytes[12], bytes[13]]))
}

pub fn addresses(bytes: &[u8]) -> (IpAddr, IpAddr) {
    let ip = &bytes[14..];
    if ip[0] >> 4 == 4 {
        let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        return (at(12), at(16));
    }
    let at = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    (at(8), at(24))
}
