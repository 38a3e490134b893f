//! Random clients, a disk that fails, crashes at any moment: no two clients ever believe that they have the
//! same address, and what a client was told is there after every crash.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use switchd_proto::dhcp::SECOND;
use switchd_proto::dhcp::v4::message::{Kind, Message};
use switchd_proto::dhcp::v4::options::code;
use switchd_proto::dhcp::v4::server::{Change, Config, Ingress, Lease, Server, State};
use switchd_wire::MacAddr;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const PORTS: [&str; 3] = ["vm0", "vm1", "vm2"];
const CLIENTS: u8 = 9;

#[derive(Clone, Debug)]
enum Op {
    Discover {
        client: u8,
        wish: Option<u8>,
    },
    Request {
        client: u8,
    },
    Renew {
        client: u8,
    },
    Reboot {
        client: u8,
    },
    Release {
        client: u8,
    },
    Decline {
        client: u8,
    },
    /// A client that claims an address of the subnet, whatever it has.
    Claim {
        client: u8,
        last: u8,
    },
    Disk {
        commits: u8,
        works: bool,
    },
    Wait {
        seconds: u16,
    },
    Crash,
    Configure {
        lease_time: u16,
        reserve: Option<u8>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let last = 0..32u8;
    prop_oneof![
        4 => (client.clone(), proptest::option::of(last.clone()))
            .prop_map(|(client, wish)| Op::Discover { client, wish }),
        6 => client.clone().prop_map(|client| Op::Request { client }),
        3 => client.clone().prop_map(|client| Op::Renew { client }),
        2 => client.clone().prop_map(|client| Op::Reboot { client }),
        1 => client.clone().prop_map(|client| Op::Release { client }),
        1 => client.clone().prop_map(|client| Op::Decline { client }),
        2 => (client, last.clone()).prop_map(|(client, last)| Op::Claim { client, last }),
        8 => (1..6u8, proptest::bool::weighted(0.9)).prop_map(|(commits, works)| Op::Disk { commits, works }),
        3 => (1..400u16).prop_map(|seconds| Op::Wait { seconds }),
        1 => Just(Op::Crash),
        1 => (60..300u16, proptest::option::of(last))
            .prop_map(|(lease_time, reserve)| Op::Configure { lease_time, reserve }),
    ]
}

#[derive(Clone, Default)]
struct Client {
    offered: Option<Ipv4Addr>,
    /// Address, and when the client stops to use it.
    has: Option<(Ipv4Addr, u64)>,
}

struct World {
    server: Server,
    config: Config,
    now: u64,
    clients: Vec<Client>,
    /// Not on the disk yet.
    waiting: Vec<Change>,
    disk: BTreeMap<Ipv4Addr, Lease>,
}

fn config(lease_time: u32, reserve: Option<u8>) -> Config {
    let reserve = reserve.map(|last| Ipv4Addr::new(10, 7, 0, last));
    Config {
        address: ROUTER,
        len: 28,
        range: None,
        lease_time,
        mtu: 1500,
        domain: "lab".into(),
        dns: vec![ROUTER],
        ntp: vec![],
        tftp: None,
        bootfile: None,
        search: vec![],
        routes: vec![],
        ports: PORTS.iter().map(|&port| (port.into(), reserve.filter(|_| port == "vm1"))).collect(),
        by_mac: vec![],
        excluded: vec![],
        port_limit: None,
        probe: false,
    }
}

fn mac(client: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, client])
}

fn message(kind: Kind, client: u8) -> Message {
    let mut message = Message::request(u32::from(client), mac(client));
    message.options.push((code::MESSAGE_TYPE, vec![kind as u8]));
    message
}

fn naming(mut message: Message, address: Ipv4Addr) -> Message {
    message.options.push((code::REQUESTED_ADDRESS, address.octets().to_vec()));
    message
}

fn to_us(mut message: Message) -> Message {
    message.options.push((code::SERVER_ID, ROUTER.octets().to_vec()));
    message
}

impl World {
    fn new() -> World {
        let config = config(120, None);
        let server = Server::new(config.clone(), [], 1000 * SECOND);
        let clients = vec![Client::default(); CLIENTS.into()];
        World { server, config, now: 1000 * SECOND, clients, waiting: vec![], disk: BTreeMap::new() }
    }

    fn send(&mut self, client: u8, message: &Message) {
        let from = Ingress { port: PORTS[usize::from(client % 3)].into(), mac: mac(client) };
        self.server.handle_message(self.now, &from, &message.encode(1000).0);
        self.waiting.extend(std::iter::from_fn(|| self.server.poll_change()));
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(reply) = self.server.poll_transmit() {
            let message = Message::parse(&reply.bytes).unwrap();
            let client = &mut self.clients[message.xid as usize];
            match message.kind().unwrap() {
                Kind::Offer => client.offered = Some(message.yiaddr),
                Kind::Ack => {
                    let seconds = message.seconds_option(code::LEASE_TIME).unwrap();
                    let until = self.now + u64::from(seconds) * SECOND;
                    // What was told before still counts: the client may have missed this one.
                    let before = client.has.filter(|(address, _)| *address == message.yiaddr);
                    client.has =
                        Some((message.yiaddr, before.map_or(until, |(_, earlier)| earlier.max(until))));
                }
                Kind::Nak => client.has = None,
                other => panic!("a server does not say {other:?}"),
            }
        }
    }

    fn live(&self, client: u8) -> Option<Ipv4Addr> {
        let (address, until) = self.clients[usize::from(client)].has?;
        (until > self.now).then_some(address)
    }

    fn gives_up(&mut self, client: u8) -> Option<Ipv4Addr> {
        let address = self.live(client);
        self.clients[usize::from(client)].has = None;
        address
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Discover { client, wish } => {
                // From INIT: whatever it had, it does not use it.
                self.gives_up(client);
                let discover = message(Kind::Discover, client);
                let wish = wish.map(|last| Ipv4Addr::new(10, 7, 0, last));
                self.send(client, &wish.map_or(discover.clone(), |wish| naming(discover.clone(), wish)));
            }
            Op::Request { client } => {
                if let Some(offered) = self.clients[usize::from(client)].offered.take() {
                    self.send(client, &to_us(naming(message(Kind::Request, client), offered)));
                }
            }
            Op::Claim { client, last } => {
                self.gives_up(client);
                let address = Ipv4Addr::new(10, 7, 0, last);
                self.send(client, &to_us(naming(message(Kind::Request, client), address)));
            }
            Op::Renew { client } => {
                if let Some(ciaddr) = self.live(client) {
                    self.send(client, &Message { ciaddr, ..message(Kind::Request, client) });
                }
            }
            Op::Reboot { client } => {
                if let Some(address) = self.live(client) {
                    self.send(client, &naming(message(Kind::Request, client), address));
                }
            }
            Op::Release { client } => {
                if let Some(ciaddr) = self.gives_up(client) {
                    self.send(client, &to_us(Message { ciaddr, ..message(Kind::Release, client) }));
                }
            }
            Op::Decline { client } => {
                if let Some(address) = self.gives_up(client) {
                    self.send(client, &to_us(naming(message(Kind::Decline, client), address)));
                }
            }
            Op::Disk { commits, works } => self.commit(commits, works),
            Op::Wait { seconds } => {
                self.now += u64::from(seconds) * SECOND;
                self.server.handle_timeout(self.now);
            }
            Op::Crash => {
                self.waiting.clear();
                let leases = self.disk.values().cloned().map(|mut lease| {
                    lease.durable = Some(lease.expires).filter(|_| lease.state == State::Bound);
                    lease
                });
                self.server = Server::new(self.config.clone(), leases.collect::<Vec<_>>(), self.now);
            }
            Op::Configure { lease_time, reserve } => {
                self.config = config(lease_time.into(), reserve);
                self.server.configure(self.config.clone());
            }
        }
    }

    fn commit(&mut self, count: u8, works: bool) {
        for _ in 0..count {
            if self.waiting.is_empty() {
                break;
            }
            let change = self.waiting.remove(0);
            if works {
                self.disk.insert(change.lease.address, change.lease);
            }
            self.server.settled(self.now, change.ticket, works);
            self.hear();
        }
    }

    fn check(&self) {
        let mut holders = BTreeMap::new();
        for client in 0..CLIENTS {
            let Some(address) = self.live(client) else { continue };
            if let Some(other) = holders.insert(address, client) {
                panic!("clients {other} and {client} both have {address}");
            }
            assert!((2..15).contains(&address.octets()[3]), "{address} is not a guest's");
            let (_, until) = self.clients[usize::from(client)].has.expect("it lives");
            let kept = self.disk.get(&address).filter(|lease| lease.state == State::Bound);
            let kept = kept.expect("what a client was told is on the disk");
            assert!(kept.expires >= until, "{address} is told longer than it is kept");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn never_two_live_leases_on_one_address(ops in proptest::collection::vec(op(), 1..250)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}

#[test]
fn the_random_clients_do_get_leases() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut had = 0;
    for _ in 0..20 {
        let ops = proptest::collection::vec(op(), 250).new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            had += (0..CLIENTS).filter(|&client| world.live(client).is_some()).count();
        }
    }
    assert!(had > 2000, "only {had}: the property above says little");
}
