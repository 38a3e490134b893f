//! An engine driven as a worker drives it, and guests at its wire.

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as When;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};
use switchd_port::host_egress::{Filtering, HostEgressConfig, Limits, Subnet4, Subnet6};
use switchd_port::{Arena, Flushed, HostEgress, Port, Sent};
use switchd_wire::frame::{BURST, HEAD_MAX};
use switchd_wire::segmentation::{Scratch, segment};
use switchd_wire::{Frame, MacAddr, VnetHeader};

pub const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub const GUEST_V4: &str = "10.7.0.9";
pub const GUEST_V6: &str = "fd00:7::9";
/// Addresses of the host.
pub const HOST_V4: &str = "192.0.2.1";
pub const HOST_V6: &str = "2001:db8::1";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn config() -> HostEgressConfig {
    HostEgressConfig {
        gateway_mac: GATEWAY,
        v4: Subnet4 { gateway: "10.7.0.1".parse().unwrap(), len: 24 },
        v6: Some(Subnet6 { gateway: "fd00:7::1".parse().unwrap(), len: 64 }),
        mtu: 1500,
        limits: Limits::default(),
        filtering: Filtering::default(),
    }
}

/// What came out of the engine.
#[derive(Clone, Debug)]
pub struct Came {
    pub vnet: VnetHeader,
    pub bytes: Vec<u8>,
}

pub struct World {
    pub engine: HostEgress,
    poll: Poll,
    frames: Vec<Frame>,
    arena: Arena,
    scratch: Scratch,
    more: bool,
    /// Frames towards guests, whole (superframes are not cut).
    pub came: VecDeque<Came>,
    /// Calls of `receive`.
    pub received: u64,
    /// Of the last [`World::send`].
    pub flushed: Flushed,
    /// The guest that sends, whatever its MAC address; else that tells who it is.
    pub guest: Option<u32>,
}

/// A namespace of this thread's own, with the host's addresses. False without the right to make one.
fn enter_namespace() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    for line in [
        "link set lo up",
        "addr add 192.0.2.1/24 dev lo",
        "addr add 2001:db8::1/64 dev lo nodad",
        "route add local 198.51.100.0/24 dev lo",
    ] {
        let status = Command::new("ip").args(line.split(' ')).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {line}");
    }
    // The kernel adds the route to an IPv6 address of its own some time after the address.
    let end = Instant::now() + Duration::from_secs(10);
    let words = ["-6", "route", "show", "table", "local", HOST_V6];
    while Command::new("ip").args(words).output().expect("iproute2 is installed").stdout.is_empty() {
        assert!(Instant::now() < end, "no route to {HOST_V6}");
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

impl World {
    /// `None`: not root, and said so.
    pub fn new(config: HostEgressConfig) -> Option<World> {
        enter_namespace().then(|| World::here(config))
    }

    fn here(config: HostEgressConfig) -> World {
        let engine = HostEgress::new(config).unwrap();
        let poll = Poll::new().unwrap();
        let fd = engine.descriptor().unwrap().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
        World {
            engine,
            poll,
            frames: (0..BURST).map(|_| Frame::default()).collect(),
            arena: Arena::new(),
            scratch: Scratch::new(),
            more: false,
            came: VecDeque::new(),
            received: 0,
            flushed: Flushed::default(),
            guest: None,
        }
    }

    /// A guest sends a frame. Returns whether the engine took it.
    pub fn send(&mut self, bytes: &[u8], vnet: VnetHeader) -> bool {
        self.arena.begin();
        let mut frame = Frame::default();
        let head = bytes.len().min(HEAD_MAX);
        frame.receive_area()[..head].copy_from_slice(&bytes[..head]);
        self.arena.slot(0)[..bytes.len() - head].copy_from_slice(&bytes[head..]);
        let tail = self.arena.token(0, bytes.len() - head);
        frame.arrived(head, tail, vnet);
        frame.guest = self.guest.unwrap_or(bytes[11].into());
        assert_eq!(self.engine.send(&mut frame, &self.arena), Sent::Queued);
        let flushed = self.engine.flush(&self.arena);
        let declined = flushed.declined.total();
        assert_eq!(flushed.accepted + flushed.full + flushed.refused + declined, 1);
        self.flushed = flushed;
        self.more |= self.engine.pending();
        flushed.accepted == 1
    }

    /// A guest sends frames in one burst.
    pub fn send_burst(&mut self, frames: &[Vec<u8>]) -> Flushed {
        self.arena.begin();
        let mut frame = Frame::default();
        for (slot, bytes) in frames.iter().enumerate() {
            let (slot, head) = (slot % BURST, bytes.len().min(HEAD_MAX));
            frame.receive_area()[..head].copy_from_slice(&bytes[..head]);
            self.arena.slot(slot)[..bytes.len() - head].copy_from_slice(&bytes[head..]);
            let tail = self.arena.token(slot, bytes.len() - head);
            frame.arrived(head, tail, VnetHeader::default());
            assert_eq!(self.engine.send(&mut frame, &self.arena), Sent::Queued);
        }
        let flushed = self.engine.flush(&self.arena);
        self.more |= self.engine.pending();
        flushed
    }

    /// Receives as a worker would: when the descriptor said so (edge-triggered), when there was more, or when
    /// the engine has answers. Waits no longer than `wait`.
    pub fn receive(&mut self, wait: Duration) -> usize {
        let mut events = Events::with_capacity(4);
        match self.poll.poll(&mut events, Some(if self.more { Duration::ZERO } else { wait })) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => other.unwrap(),
        }
        if events.is_empty() && !self.more {
            return 0;
        }
        self.received += 1;
        self.arena.begin();
        let received = self.engine.receive(&mut self.frames, &mut self.arena);
        self.more = received.more;
        for frame in &self.frames[..received.frames] {
            assert_eq!(frame.source(), GATEWAY);
            let mut bytes = vec![0; frame.len()];
            frame.copy_out(&self.arena, 0, &mut bytes).unwrap();
            // Every frame must be one that the road admits.
            let cut = segment(frame, &self.arena, &mut self.scratch, |_| ());
            assert!(cut.is_ok(), "{cut:?} {:?}", frame.vnet);
            self.came.push_back(Came { vnet: frame.vnet, bytes });
        }
        received.frames
    }

    /// The next frame, within two seconds.
    pub fn next(&mut self) -> Came {
        self.next_within(Duration::from_secs(2)).expect("a frame comes")
    }

    pub fn next_within(&mut self, time: Duration) -> Option<Came> {
        let end = Instant::now() + time;
        loop {
            if let Some(came) = self.came.pop_front() {
                return Some(came);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.receive(left);
        }
    }

    /// Nothing may come for this long.
    pub fn expect_silence(&mut self, time: Duration) {
        let came = self.next_within(time);
        assert!(came.is_none(), "{came:?}");
    }

    /// Frames as packets of a wire: cut, checksums complete, without the Ethernet header.
    pub fn packets(&mut self, came: &Came) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut frame = Frame::default();
        let mut arena = Arena::with_slots(1);
        arena.begin();
        let head = came.bytes.len().min(HEAD_MAX);
        frame.receive_area()[..head].copy_from_slice(&came.bytes[..head]);
        arena.slot(0)[..came.bytes.len() - head].copy_from_slice(&came.bytes[head..]);
        let tail = arena.token(0, came.bytes.len() - head);
        frame.arrived(head, tail, came.vnet);
        segment(&frame, &arena, &mut self.scratch, |packet| packets.push(packet[14..].to_vec())).unwrap();
        packets
    }
}

/// The guest's end of the wire.
pub struct Wire {
    mtu: usize,
    pub to_guest: VecDeque<Vec<u8>>,
    pub to_host: VecDeque<Vec<u8>>,
}

pub struct Token1(Vec<u8>);
pub struct Token2<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Token1 {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

impl TxToken for Token2<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let mut bytes = vec![0; len];
        let result = work(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Token1;
    type TxToken<'a> = Token2<'a>;

    fn receive(&mut self, _: When) -> Option<(Token1, Token2<'_>)> {
        let packet = self.to_guest.pop_front()?;
        Some((Token1(packet), Token2(&mut self.to_host)))
    }

    fn transmit(&mut self, _: When) -> Option<Token2<'_>> {
        (self.to_host.len() < 256).then_some(Token2(&mut self.to_host))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A guest with a stack of its own, at the engine's wire.
pub struct Guest {
    pub world: World,
    interface: Interface,
    pub wire: Wire,
    pub sockets: SocketSet<'static>,
    started: Instant,
    /// Of each thousand packets, in either direction, this many get lost.
    pub loss: u32,
    random: u32,
    port: u16,
}

impl Guest {
    pub fn new(config: HostEgressConfig) -> Option<Guest> {
        let mtu = usize::from(config.mtu);
        let world = World::new(config)?;
        let mut wire = Wire { mtu, to_guest: VecDeque::new(), to_host: VecDeque::new() };
        let started = Instant::now();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, When::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(ip(GUEST_V4).into(), 24)).unwrap();
            addresses.push(IpCidr::new(ip(GUEST_V6).into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route("10.7.0.1".parse().unwrap()).unwrap();
        interface.routes_mut().add_default_ipv6_route("fd00:7::1".parse().unwrap()).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Some(Guest { world, interface, wire, sockets, started, loss: 0, random: 1, port: 40_000 })
    }

    fn lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % 1000 < self.loss
    }

    /// One round of everybody.
    pub fn step(&mut self) {
        let now = When::from_micros(self.started.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let mut sent = false;
        while let Some(packet) = self.wire.to_host.pop_front() {
            sent = true;
            if self.lost() {
                continue;
            }
            let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
            let frame = [&GATEWAY.0[..], &GUEST.0, &ethertype, &packet].concat();
            self.world.send(&frame, VnetHeader::default());
        }
        self.world.receive(if sent { Duration::ZERO } else { Duration::from_millis(1) });
        while let Some(came) = self.world.came.pop_front() {
            assert_eq!(&came.bytes[..6], &GUEST.0, "the guest's MAC");
            for packet in self.world.packets(&came) {
                assert!(packet.len() <= self.wire.mtu, "{} bytes on the wire", packet.len());
                if !self.lost() {
                    self.wire.to_guest.push_back(packet);
                }
            }
        }
    }

    /// Rounds until `done` says so; panics after twenty seconds.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Guest) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {:#?}", self.world.engine.counters());
            self.step();
        }
    }

    pub fn connect(&mut self, to: SocketAddr, buffer: usize) -> SocketHandle {
        let space = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(space(), space());
        socket.set_nagle_enabled(false);
        self.port += 1;
        let to = (IpAddress::from(to.ip()), to.port());
        socket.connect(self.interface.context(), to, self.port).unwrap();
        self.sockets.add(socket)
    }

    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let space = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(space(), space());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}
