//! NAT networks: their gateways, segments, forwards, leases, and what the host has too.

use super::*;
use crate::broker::messages::Notice;
use crate::broker::{HostAddress, HostRoute, Prefix};
use crate::services::{OutsideLease, ServiceNotice};
use std::net::Ipv4Addr;
use switchd_api::reply::ErrorCode;
use switchd_api::{FloatingAdd, ForwardAdd};
use switchd_dataplane::{Egress, OutsideConfig};
use switchd_nat::Prefix4;

const LAB: &str = r#"
[network.lab]
kind = "nat"
subnet = "10.7.0.0/24"
egress = "eth0"
address = "192.0.2.9/24"
gateway = "192.0.2.1"
[port.vm]
network = "lab"
tap = "vm.0"
reserve = "10.7.0.20"
"#;
const HOST: &str = "[network.lab]\nkind = \"nat\"\nsubnet = \"10.7.0.0/24\"\negress = \"host\"\n";

fn started(workers: usize, text: &str) -> (World, Engine) {
    let world = World::new(workers);
    let mut engine = world.start(None);
    apply(&mut engine, text).unwrap();
    (world, engine)
}

fn outside(world: &World, network: &str) -> OutsideConfig {
    let state = world.state();
    let gate = state.workers.iter().find_map(|worker| worker.gates.get(network)).unwrap();
    match &gate.gateway.config.egress {
        Egress::Outside(outside) => (**outside).clone(),
        Egress::Host => panic!("{network} goes out by the host"),
    }
}

fn segment(world: &World, network: &str) -> String {
    let state = world.state();
    let gate = state.workers.iter().find_map(|worker| worker.gates.get(network)).unwrap();
    gate.gateway.segment.as_ref().unwrap().to_string()
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
}

fn troubles(engine: &Engine) -> Vec<String> {
    let rows = engine.status().unwrap().troubles;
    rows.into_iter().map(|row| format!("{}: {}", row.object, row.reason)).collect()
}

#[test]
fn a_segment_of_our_own_stands_on_the_uplink_and_is_shown_nowhere() {
    let (world, engine) = started(2, LAB);
    assert_eq!(segment(&world, "lab"), "egress:eth0");
    let worker = world.state().workers.iter().position(|worker| worker.gates.contains_key("lab")).unwrap();
    let state = world.state();
    assert_eq!(
        state.workers[worker].ports["uplink:eth0"].networks,
        BTreeMap::from([("egress:eth0".to_owned(), None)])
    );
    assert_eq!(state.netdevs["eth0"], "uplink");
    assert_eq!(state.served["lab"].0, worker);
    let names: Vec<String> = engine.networks().unwrap().iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["lab"]);
    assert!(engine.workers().unwrap().iter().all(|row| row.networks.iter().all(|name| name == "lab")));
    let status = engine.network("lab").unwrap();
    assert_eq!(status.state, State::Up, "{:?}", status.reason);
    let nat = status.nat.unwrap();
    assert_eq!(nat.gateway_address, "10.7.0.1/24");
    let outside = nat.outside.unwrap();
    assert_eq!((outside.uplink.as_str(), outside.address.as_deref()), ("uplink:eth0", Some("192.0.2.9/24")));
    assert_eq!(engine.port("uplink:eth0").unwrap().spec.network.as_str(), "lab");
}

#[test]
fn the_ends_of_a_gateway_are_shown_as_ports() {
    let (world, engine) = started(1, &format!("{LAB}{}", HOST.replace("lab", "two").replace("10.7", "10.8")));
    let rows: Vec<_> = engine.ports().unwrap();
    let names: Vec<(&str, &str)> = rows.iter().map(|row| (row.name.as_str(), row.backend.as_str())).collect();
    let expected = [
        ("vm", "tap"),
        ("uplink:eth0", "uplink"),
        ("gateway:lab", "gateway"),
        ("egress:lab", "egress"),
        ("gateway:two", "gateway"),
    ];
    assert_eq!(names, expected);
    let end = engine.port("egress:lab").unwrap();
    assert_eq!((end.state, end.mtu), (State::Up, 1500));
    assert_eq!(end.address.unwrap(), outside(&world, "lab").mac.to_string());
    assert!(engine.port("egress:two").is_err(), "the host's sockets are no station");
    assert!(engine.topology().unwrap().nodes.iter().all(|node| !node.id.contains("egress:")));
}

#[test]
fn gateway_and_outside_have_addresses_of_their_own_that_stay() {
    let (world, engine) = started(1, LAB);
    let gate = world.state().workers[0].gates["lab"].gateway.config.clone();
    let outside_mac = outside(&world, "lab").mac;
    let tap = engine.port("vm").unwrap().address.unwrap();
    assert!(gate.mac != outside_mac && tap != gate.mac.to_string() && tap != outside_mac.to_string());
    drop(engine);
    let _engine = world.start(None);
    assert_eq!(world.state().workers[0].gates["lab"].gateway.config.mac, gate.mac);
    assert_eq!(outside(&world, "lab").mac, outside_mac);
}

#[test]
fn the_hosts_own_address_is_used_where_it_is_asked_for_and_followed() {
    let (world, mut engine) = started(1, &LAB.replace("gateway =", "mac = \"host\"\ngateway ="));
    assert_eq!(outside(&world, "lab").mac.to_string(), "02:aa:00:00:00:04");
    let mac = Some([2, 9, 9, 9, 9, 9]);
    let notice =
        Notice::Link { name: "eth0".into(), index: 3, up: true, carrier: true, mac, mtu: 1500, gone: false };
    engine.on_broker_notice(notice);
    let now = world.get().now;
    engine.tick(now);
    assert_eq!(outside(&world, "lab").mac.to_string(), "02:09:09:09:09:09");
    // It stands for the outside end as long as that has it.
    let own = |world: &World| world.state().workers[0].ports["uplink:eth0"].own.clone();
    assert_eq!(own(&world), []);
    apply(&mut engine, LAB).unwrap();
    let own: Vec<String> = own(&world).iter().map(ToString::to_string).collect();
    assert_eq!(own, ["02:09:09:09:09:09"]);
}

#[test]
fn the_outside_end_stands_on_the_users_network_while_there_is_one() {
    let (world, mut engine) = started(2, LAB);
    let office = "[network.office]\nkind = \"bridged\"\nuplink = \"eth0\"\n";
    apply(&mut engine, &format!("{LAB}{office}")).unwrap();
    assert_eq!(segment(&world, "lab"), "office");
    assert!(world.state().workers.iter().all(|worker| !worker.networks.contains_key("egress:eth0")));
    assert_eq!(world.get().tap_opens, 1, "the guests noticed nothing");
    engine.delete_network("office").unwrap();
    assert_eq!(segment(&world, "lab"), "egress:eth0");
    // On another VLAN it is another one.
    let other = office.replace("uplink", "vlan = 7\nuplink");
    apply(&mut engine, &format!("{LAB}{other}")).unwrap();
    assert_eq!(segment(&world, "lab"), "egress:eth0");
    assert_eq!(engine.port("uplink:eth0").unwrap().spec.network.as_str(), "office");
}

#[test]
fn networks_that_go_out_by_one_interface_share_its_segment_and_worker() {
    let more = LAB.replace("lab", "two").replace("10.7", "10.8").replace("2.9", "2.10").replace("vm", "vn");
    let (world, mut engine) = started(3, &format!("{LAB}{more}"));
    assert_eq!(
        (segment(&world, "lab"), segment(&world, "two")),
        ("egress:eth0".into(), "egress:eth0".into())
    );
    let state = world.state();
    let with: Vec<_> = state.workers.iter().filter(|worker| !worker.gates.is_empty()).collect();
    assert_eq!((with.len(), with[0].gates.len()), (1, 2));
    apply(&mut engine, LAB).unwrap();
    apply(&mut engine, "").unwrap();
    assert!(world.state().workers.iter().all(|worker| worker.networks.is_empty()));
    assert!(world.state().netdevs.is_empty());
    assert_eq!(world.get().forgotten, ["two", "lab"]);
}

#[test]
fn the_mtu_of_the_outside_is_that_of_the_interface_and_follows_it() {
    let (world, mut engine) = started(1, &LAB.replace("eth0", "eth1"));
    assert_eq!(outside(&world, "lab").nat.mtu_outside, 9000);
    assert_eq!(outside(&world, "lab").nat.mtu_inside, 1500);
    let notice = Notice::Link {
        name: "eth1".into(),
        index: 3,
        up: true,
        carrier: true,
        mac: None,
        mtu: 1400,
        gone: false,
    };
    engine.on_broker_notice(notice);
    let due = engine.next_deadline().unwrap();
    engine.tick(due);
    assert_eq!(outside(&world, "lab").nat.mtu_outside, 1400);
    assert_eq!(world.state().workers[0].networks["egress:eth1"].mtu, 1400);
    assert_eq!(engine.status().unwrap().troubles, []);
}

#[test]
fn a_leased_outside_address_comes_changes_and_goes() {
    let text = LAB.replace("192.0.2.9/24", "dhcp").replace("gateway = \"192.0.2.1\"\n", "");
    let (world, mut engine) = started(1, &text);
    let status = engine.network("lab").unwrap();
    assert_eq!(status.reason.as_deref(), Some("no lease for the outside address yet"));
    assert!(outside(&world, "lab").v4.is_none() && outside(&world, "lab").nat.outside.is_empty());
    assert_eq!(world.state().served["lab"].1.outside.as_ref().unwrap().mac, outside(&world, "lab").mac);
    let lease = |last: u8| OutsideLease {
        address: Prefix4 { address: Ipv4Addr::new(192, 0, 2, last), len: 24 },
        gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        resolvers: Vec::new(),
        server: Ipv4Addr::new(192, 0, 2, 2),
        lease_time: std::time::Duration::from_secs(600),
    };
    for last in [50, 51] {
        engine.on_service_notice(ServiceNotice::Outside { network: "lab".into(), lease: Some(lease(last)) });
        let now = outside(&world, "lab");
        assert_eq!(now.nat.outside, [Ipv4Addr::new(192, 0, 2, last)]);
        assert_eq!(now.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(engine.network("lab").unwrap().state, State::Up);
    }
    let saved = world.get().saved.clone();
    engine.on_service_notice(ServiceNotice::Outside { network: "lab".into(), lease: None });
    assert!(outside(&world, "lab").v4.is_none());
    assert_eq!(engine.network("lab").unwrap().state, State::Down);
    assert_eq!(world.get().saved, saved, "a lease is not configuration");
}

#[test]
fn a_link_that_comes_back_is_told_to_who_has_a_lease_there() {
    let (world, mut engine) = started(1, LAB);
    for carrier in [false, true] {
        let notice = Notice::Link {
            name: "eth0".into(),
            index: 3,
            up: true,
            carrier,
            mac: None,
            mtu: 1500,
            gone: false,
        };
        engine.on_broker_notice(notice);
    }
    assert_eq!(world.get().outside_links, [("lab".to_owned(), false), ("lab".to_owned(), true)]);
}

#[test]
fn an_address_that_the_host_holds_there_is_refused() {
    let world = World::new(1);
    world.get().host_addresses =
        vec![HostAddress { interface: "eth0".to_owned(), prefix: prefix("192.0.2.9/24") }];
    let mut engine = world.start(None);
    let error = apply(&mut engine, LAB).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(error.message, "network lab: the host holds its outside address 192.0.2.9 on eth0");
    assert!(world.state().workers[0].networks.is_empty());
    // On another interface it is another network's.
    world.get().host_addresses[0].interface = "eth1".to_owned();
    apply(&mut engine, LAB).unwrap();
}

#[test]
fn a_subnet_that_hides_a_route_of_the_host_is_refused_and_guests_of_ours_are_no_conflict() {
    let world = World::new(1);
    let route =
        |to: &str, interface: &str| HostRoute { prefix: prefix(to), interface: Some(interface.to_owned()) };
    world.get().host_routes = vec![route("10.0.0.0/8", "tun0")];
    let mut engine = world.start(None);
    let error = apply(&mut engine, HOST).unwrap_err();
    let message = "network lab: its subnet 10.7.0.0/24 overlaps with the host's route 10.0.0.0/8 on tun0";
    assert_eq!(error.message, message);
    // The host's end of a tap of the network itself, with an address there.
    world.get().host_routes = vec![route("10.7.0.0/24", "vm.0"), route("10.8.0.0/24", "tun0")];
    apply(&mut engine, &format!("{HOST}[port.vm]\nnetwork = \"lab\"\ntap = \"vm.0\"\n")).unwrap();
}

#[test]
fn an_address_of_the_host_in_the_subnet_is_a_conflict_on_any_interface_but_a_guests() {
    let (world, mut engine) = started(1, "");
    let held =
        |interface: &str| HostAddress { interface: interface.to_owned(), prefix: prefix("10.7.0.53/32") };
    world.get().host_addresses = vec![held("lo")];
    let error = apply(&mut engine, HOST).unwrap_err();
    let message = "network lab: the host holds 10.7.0.53 on lo, which is in its subnet 10.7.0.0/24";
    assert_eq!(error.message, message);
    world.get().host_addresses = vec![held("vm.0")];
    apply(&mut engine, &format!("{HOST}[port.vm]\nnetwork = \"lab\"\ntap = \"vm.0\"\n")).unwrap();
}

#[test]
fn a_conflict_that_arises_later_is_listed_until_it_is_over() {
    let (world, mut engine) = started(1, HOST);
    world.get().host_routes = vec![HostRoute { prefix: prefix("10.7.0.128/25"), interface: None }];
    engine.on_broker_notice(Notice::HostChanged);
    engine.on_broker_notice(Notice::HostChanged);
    let expected = "network lab: its subnet 10.7.0.0/24 overlaps with the host's route 10.7.0.128/25";
    assert_eq!(troubles(&engine), [expected]);
    assert_eq!(kinds(&engine).iter().filter(|kind| *kind == "network.conflict").count(), 1);
    // Changes of something else are not refused for it.
    engine.set_network("lab", &keys(&[("ageing", "60")])).unwrap();
    world.get().host_routes.clear();
    engine.on_broker_notice(Notice::HostChanged);
    assert_eq!(troubles(&engine), [] as [&str; 0]);
}

#[test]
fn forwards_through_the_host_are_listened_on_and_taken_back() {
    let (world, mut engine) = started(1, HOST);
    let ports = |world: &World| -> Vec<u16> {
        let state = world.state();
        let host = state.workers[0].gates["lab"].host.clone().unwrap();
        host.iter().map(|forward| forward.listen.port()).collect()
    };
    let add = |key: &str, to: &str| ForwardAdd { key: key.to_owned(), to: to.to_owned() };
    engine.add_forward("lab", &add("tcp/8080-8082", "10.7.0.20:80")).unwrap();
    assert_eq!(ports(&world), [8080, 8081, 8082]);
    let row = engine.add_forward("lab", &add("udp/53", "10.7.0.20:5353")).unwrap();
    assert_eq!((row.state, row.to.as_str()), (State::Up, "10.7.0.20:5353"));
    assert_eq!(world.get().listened.len(), 4, "those that stood were not opened again");
    world.get().taken.insert(443);
    let error = engine.add_forward("lab", &add("tcp/443", "10.7.0.20:443")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(
        error.message.contains("nginx (pid 7)") && error.message.contains("Address"),
        "{}",
        error.message
    );
    assert_eq!(engine.forwards(None).unwrap().len(), 2);
    engine.delete_forward("lab", "tcp/8080-8082").unwrap();
    assert_eq!(ports(&world), [53]);
    assert_eq!(engine.delete_forward("lab", "tcp/1").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_forward_that_leads_elsewhere_gets_its_port_again() {
    let forward = |to: &str| format!("{HOST}forward = {{ \"tcp/80\" = \"10.7.0.{to}:80\" }}\n");
    let (world, mut engine) = started(1, &forward("20"));
    apply(&mut engine, &forward("21")).unwrap();
    let host = world.state().workers[0].gates["lab"].host.clone().unwrap();
    let targets: Vec<String> = host.iter().map(|forward| forward.to.to_string()).collect();
    assert_eq!(targets, ["10.7.0.21:80"]);
}

#[test]
fn forwarded_ports_change_between_networks_in_one_change_or_not_at_all() {
    // The networks are taken in the order of their names: a port goes up, and down.
    let nets = |lab: &str, shop: &str| {
        let shop = format!("egress = \"host\"\nforward = {{ {shop} }}\n");
        format!(
            "{HOST}forward = {{ {lab} }}\n[network.shop]\nkind = \"nat\"\nsubnet = \"10.8.0.0/24\"\n{shop}"
        )
    };
    let (old, new) = (
        nets("\"tcp/80\" = \"10.7.0.20:80\"", "\"tcp/81-82\" = \"10.8.0.20:80\""),
        nets(
            "\"tcp/81\" = \"10.7.0.20:80\"",
            "\"tcp/80\" = \"10.8.0.20:80\", \"tcp/443\" = \"10.8.0.20:443\"",
        ),
    );
    let (world, mut engine) = started(2, &old);
    let ports = |world: &World, network: &str| -> Vec<u16> {
        let state = world.state();
        let gate = state.workers.iter().find_map(|worker| worker.gates.get(network)).unwrap();
        gate.host.iter().flatten().map(|forward| forward.listen.port()).collect()
    };
    let before = world.state();
    world.get().taken.insert(443);
    let error = apply(&mut engine, &new).unwrap_err();
    assert!(error.message.contains("nginx (pid 7)"), "{}", error.message);
    assert_eq!(world.state(), before, "nothing is half done");
    world.get().taken.clear();
    apply(&mut engine, &new).unwrap();
    assert_eq!((ports(&world, "lab"), ports(&world, "shop")), (vec![81], vec![80, 443]));
    apply(&mut engine, &old).unwrap();
    assert_eq!((ports(&world, "lab"), ports(&world, "shop")), (vec![80], vec![81, 82]));
    assert_eq!(troubles(&engine), [] as [&str; 0]);
}

#[test]
fn a_port_that_is_taken_at_the_start_is_tried_again() {
    let (world, engine) = started(1, &format!("{HOST}forward = {{ \"tcp/80\" = \"10.7.0.20:80\" }}\n"));
    drop(engine);
    world.get().taken.insert(80);
    let mut engine = world.start(None);
    assert!(troubles(&engine)[0].contains("nginx"), "{:?}", troubles(&engine));
    let row = &engine.forwards(Some("lab")).unwrap()[0];
    assert_eq!(row.state, State::Down);
    // Something else can be changed meanwhile.
    engine.add_forward("lab", &ForwardAdd { key: "tcp/81".into(), to: "10.7.0.20:81".into() }).unwrap();
    world.get().taken.clear();
    let due = engine.next_deadline().unwrap();
    world.get().now = due;
    engine.tick(due);
    assert_eq!(troubles(&engine), [] as [&str; 0]);
    assert_eq!(engine.forwards(Some("lab")).unwrap()[0].state, State::Up);
    assert_eq!(world.state().workers[0].gates["lab"].host.as_ref().unwrap().len(), 2);
}

#[test]
fn floating_addresses_follow_the_ports_reserved_address_and_go_with_it() {
    let (world, mut engine) = started(1, LAB);
    let add = FloatingAdd { outside: "192.0.2.30".to_owned(), port: name("vm") };
    let row = engine.add_floating("lab", &add).unwrap();
    assert_eq!(row.inside, "10.7.0.20");
    let floating = outside(&world, "lab").nat.floating;
    assert_eq!((floating.len(), floating[0].inside), (1, Ipv4Addr::new(10, 7, 0, 20)));
    assert_eq!(engine.add_floating("lab", &add).unwrap_err().code, ErrorCode::Conflict);
    engine.delete_floating(None, "192.0.2.30").unwrap();
    assert_eq!(engine.delete_floating(None, "192.0.2.30").unwrap_err().code, ErrorCode::NotFound);
    engine.add_floating("lab", &add).unwrap();
    engine.detach_port("vm").unwrap();
    assert_eq!(engine.floating(None).unwrap(), []);
    assert!(outside(&world, "lab").nat.floating.is_empty());
}

#[test]
fn reservations_are_among_the_leases_until_somebody_takes_them() {
    let (_, engine) = started(1, LAB);
    let rows = engine.leases(Some("lab")).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].state.as_str(), rows[0].address.as_str()), ("reserved", "10.7.0.20"));
    assert_eq!(engine.leases(Some("nothere")).unwrap_err().code, ErrorCode::NotFound);
    let flows = engine.flows(Some("lab"), 2).unwrap();
    assert_eq!((flows.len(), flows[0].idle, flows[0].port.as_deref()), (2, 2, Some("vm")));
}

#[test]
fn the_hosts_name_servers_are_asked_for_once_there_is_a_nat_network_and_followed() {
    let world = World::new(1);
    world.get().resolv = "nameserver 192.0.2.53\n".to_owned();
    let mut engine = world.start(None);
    assert_eq!(world.get().resolvers, None);
    apply(&mut engine, HOST).unwrap();
    let servers = |text: &str| Some(vec![text.parse().unwrap()]);
    assert_eq!(world.get().resolvers, servers("192.0.2.53"));
    engine.on_broker_notice(Notice::Resolv("nameserver 192.0.2.54\n".to_owned()));
    assert_eq!(world.get().resolvers, servers("192.0.2.54"));
}
