//! What users ask for, one thing at a time.

use super::*;
use switchd_api::model::{Kind, NetworkSpec, PortSpec};
use switchd_api::reply::{ErrorCode, FdbAdd};

fn isolated() -> NetworkSpec {
    toml::from_str("kind = \"isolated\"").unwrap()
}

fn tap(network: &str, tap: &str) -> PortSpec {
    toml::from_str(&format!("network = {network:?}\ntap = {tap:?}")).unwrap()
}

fn lab() -> (World, Engine) {
    let world = World::new(1);
    let mut engine = world.start(None);
    engine.create_network(name("lab"), isolated()).unwrap();
    engine.attach_port(name("vm1"), tap("lab", "vm1.0")).unwrap();
    (world, engine)
}

#[test]
fn a_network_and_a_port_go_through_their_lives() {
    let (world, mut engine) = lab();
    let port = engine.port("vm1").unwrap();
    assert_eq!((port.state, port.backend.as_str(), port.mtu), (State::Up, "tap", 1500));
    assert_eq!(port.kernel["rx_packets"], 5);
    let mac = port.address.unwrap();
    assert!(mac.starts_with("02:"));
    assert_eq!(engine.delete_network("lab").unwrap_err().code, ErrorCode::Conflict);
    engine.set_network("lab", &keys(&[("mtu", "9000")])).unwrap();
    assert_eq!(engine.port("vm1").unwrap().mtu, 9000);
    engine.set_port("vm1", &keys(&[("admin", "down")])).unwrap();
    assert_eq!(reason(&engine, "vm1").unwrap(), "admin down");
    drop(engine);
    let mut engine = world.start(None);
    assert_eq!(engine.port("vm1").unwrap().address.unwrap(), mac, "it is kept");
    engine.detach_port("vm1").unwrap();
    assert!(world.state().taps.is_empty());
    engine.delete_network("lab").unwrap();
    let told: Vec<_> =
        engine.events_since(None).into_iter().map(|event| (event.kind, event.message)).collect();
    assert!(told.contains(&("port.detached".to_owned(), "from network lab".to_owned())), "{told:?}");
    assert!(told.iter().all(|(_, message)| !message.is_empty()), "{told:?}");
    assert_eq!(world.get().saved.clone().unwrap(), Default::default());
    assert_eq!(world.state().workers[0], Default::default());
}

#[test]
fn what_exists_is_a_conflict_and_what_does_not_is_not_found() {
    let (_, mut engine) = lab();
    assert_eq!(engine.create_network(name("lab"), isolated()).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(engine.attach_port(name("vm1"), tap("lab", "x")).unwrap_err().code, ErrorCode::Conflict);
    for error in [
        engine.network("x").unwrap_err(),
        engine.set_network("x", &keys(&[("mtu", "1400")])).unwrap_err(),
        engine.delete_network("x").unwrap_err(),
        engine.port("uplink:x").unwrap_err(),
        engine.set_port("x", &keys(&[("admin", "up")])).unwrap_err(),
        engine.detach_port("x").unwrap_err(),
        engine.mirror("x").unwrap_err(),
        engine.delete_mirror("x").unwrap_err(),
        engine.fdb("x").unwrap_err(),
        engine.drops(Some("x")).unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::NotFound, "{error:?}");
        assert!(error.hint.unwrap().starts_with("switchctl "));
    }
}

#[test]
fn a_port_whose_interface_is_missing_is_refused_and_named() {
    let (world, mut engine) = lab();
    let spec: PortSpec = toml::from_str("network = \"lab\"\nnetdev = \"eth9\"").unwrap();
    let error = engine.attach_port(name("q"), spec).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("port q") && error.message.contains("eth9"), "{}", error.message);
    assert!(error.message.contains("No such device"), "{}", error.message);
    assert!(error.hint.unwrap().contains("ip link show eth9"));
    assert_eq!(engine.status().unwrap().ports, 1);
    assert_eq!(world.get().saved.as_ref().unwrap().port.len(), 1);
}

#[test]
fn an_uplink_is_shared_and_goes_with_its_last_network() {
    let (world, mut engine) = lab();
    let on = |vlan: u16| -> NetworkSpec {
        toml::from_str(&format!("kind = \"bridged\"\nuplink = \"eth0\"\nvlan = {vlan}")).unwrap()
    };
    engine.create_network(name("a"), on(10)).unwrap();
    engine.create_network(name("b"), on(20)).unwrap();
    assert_eq!(engine.network("a").unwrap().spec.kind, Kind::Bridged);
    let uplinks = engine.ports().unwrap().into_iter().filter(|port| port.backend == "uplink").count();
    assert_eq!(uplinks, 1);
    assert_eq!(world.state().workers[0].ports["uplink:eth0"].networks.len(), 2);
    let error = engine.set_network("a", &keys(&[("mtu", "9000")])).unwrap_err();
    assert!(error.message.contains("9000") && error.message.contains("eth0"), "{}", error.message);
    engine.delete_network("a").unwrap();
    assert!(world.state().netdevs.contains_key("eth0"));
    engine.delete_network("b").unwrap();
    assert!(world.state().netdevs.is_empty());
}

#[test]
fn static_entries_are_kept_and_go_with_their_port() {
    let (world, mut engine) = lab();
    let entry = FdbAdd { mac: "02:00:00:00:00:07@10".to_owned(), port: "vm1".to_owned() };
    engine.set_port("vm1", &keys(&[("vlan", "access=10")])).unwrap();
    engine.fdb_add("lab", &entry).unwrap();
    assert_eq!(engine.fdb_add("lab", &entry).unwrap_err().code, ErrorCode::Conflict);
    let rows = engine.fdb("lab").unwrap();
    assert_eq!((rows.len(), rows[0].vlan, rows[0].is_static), (1, Some(10), true));
    assert_eq!(world.get().saved.as_ref().unwrap().network["lab"].fdb.len(), 1);
    assert_eq!(
        engine.set_port("vm1", &keys(&[("vlan", "access=20")])).unwrap_err().code,
        ErrorCode::Conflict
    );
    engine.fdb_delete("lab", "02:00:00:00:00:07@10").unwrap();
    assert_eq!(engine.fdb_delete("lab", "02:00:00:00:00:07@10").unwrap_err().code, ErrorCode::NotFound);
    engine.fdb_add("lab", &entry).unwrap();
    engine.fdb_delete("lab", "02:00:00:00:00:07").unwrap();
    assert!(world.get().saved.as_ref().unwrap().network["lab"].fdb.is_empty());
    engine.fdb_add("lab", &entry).unwrap();
    engine.detach_port("vm1").unwrap();
    assert!(world.get().saved.as_ref().unwrap().network["lab"].fdb.is_empty());
    assert_eq!(engine.fdb("lab").unwrap(), []);
}

#[test]
fn what_a_mirror_names_is_not_deleted_under_it() {
    let (_, mut engine) = lab();
    let spec = toml::from_str("source = [\"port:vm1\"]\nto = \"pcap:x.pcapng\"").unwrap();
    engine.create_mirror(name("m"), spec).unwrap();
    let error = engine.detach_port("vm1").unwrap_err();
    assert_eq!(
        (error.code, error.hint.unwrap().as_str()),
        (ErrorCode::Conflict, "switchctl mirror delete m")
    );
}

#[test]
fn a_dry_run_and_a_diff_change_nothing() {
    let (world, mut engine) = lab();
    let state = world.state();
    let reply = engine.apply(toml("[network.x]\nkind = \"isolated\"\n"), true, None).unwrap();
    assert_eq!((reply.applied, reply.changes.len()), (false, 3));
    assert_eq!(engine.diff(toml("")).unwrap().changes.len(), 2);
    assert_eq!(world.state(), state);
    let text = engine.export_toml().unwrap();
    assert_eq!(engine.diff(toml(&text)).unwrap().changes, []);
}

#[test]
fn a_config_file_seeds_an_empty_state_only() {
    let world = World::new(1);
    let engine = world.start(Some("[network.seed]\nkind = \"isolated\"\n"));
    assert!(engine.network("seed").is_ok());
    assert!(world.get().saved.is_some());
    drop(engine);
    let engine = world.start(Some("[network.other]\nkind = \"isolated\"\n"));
    assert!(engine.network("seed").is_ok() && engine.network("other").is_err());
    assert!(engine.status().unwrap().config_differs);
    assert!(kinds(&engine).contains(&"config.differs".to_owned()));
}

#[test]
fn a_seed_that_is_not_understood_is_an_error() {
    let error = World::new(1).try_start(Some("[network.x]\nkid = \"isolated\"\n")).err().unwrap();
    assert!(error.report.unwrap().contains("seed.toml"));
}

#[test]
fn a_tap_that_moves_to_another_network_is_not_deleted() {
    let (world, mut engine) = lab();
    let before = world.state().taps;
    let text = engine.export_toml().unwrap();
    let text = format!("{text}\n[network.other]\nkind = \"isolated\"\n")
        .replace("network = \"lab\"", "network = \"other\"");
    apply(&mut engine, &text).unwrap();
    assert_eq!(engine.port("vm1").unwrap().spec.network.as_str(), "other");
    assert_eq!(world.state().taps, before);
}

#[test]
fn an_interface_may_change_from_port_to_uplink_in_one_apply() {
    let (world, mut engine) = lab();
    let port = "[network.lab]\nkind = \"isolated\"\n[port.p]\nnetwork = \"lab\"\nnetdev = \"veth0\"\n";
    apply(&mut engine, port).unwrap();
    apply(&mut engine, "[network.lab]\nkind = \"bridged\"\nuplink = \"veth0\"\n").unwrap();
    assert_eq!(world.state().netdevs["veth0"], "uplink");
    apply(&mut engine, port).unwrap();
    assert_eq!(world.state().netdevs["veth0"], "port");
}
