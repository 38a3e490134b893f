//! Interfaces and namespaces that are missing, go and come back.

use super::*;
use crate::broker::messages::Notice;
use crate::worker::command;
use std::time::Duration;
use switchd_api::reply::ErrorCode;

const CONFIG: &str = r#"
[network.office]
kind = "bridged"
uplink = "eth0"
[network.lab]
kind = "isolated"
[port.guest]
network = "lab"
tap = "g.0"
netns = "blue"
[port.vm]
network = "office"
netdev = "veth0"
"#;

fn up() -> (World, Engine) {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, CONFIG).unwrap();
    (world, engine)
}

fn link(name: &str, index: u32, carrier: bool, gone: bool) -> Notice {
    Notice::Link { name: name.to_owned(), index, up: true, carrier, mac: None, mtu: 1500, gone }
}

#[test]
fn a_start_brings_up_what_it_can_and_lists_the_rest() {
    let (world, engine) = up();
    drop(engine);
    world.get().state.interfaces.remove("eth0");
    world.get().state.namespaces.remove("blue");
    let mut engine = world.start(None);
    let status = engine.status().unwrap();
    let troubles: Vec<&str> = status.troubles.iter().map(|trouble| trouble.object.as_str()).collect();
    assert_eq!(troubles, ["uplink eth0", "port guest"]);
    assert!(status.troubles[0].reason.contains("eth0"), "{:?}", status.troubles);
    assert_eq!((status.ports, status.ports_up), (2, 1));
    assert_eq!(reason(&engine, "vm"), None);
    let office = engine.network("office").unwrap();
    assert_eq!(office.state, State::Down);
    assert!(office.reason.unwrap().starts_with("uplink eth0: "));
    assert_eq!(office.ports, ["vm", "uplink:eth0"]);

    // The interface comes, nobody tells: found by retry.
    world.get().state.interfaces.insert("eth0".to_owned(), 1500);
    let due = engine.next_deadline().unwrap();
    assert_eq!(due, world.get().now + Duration::from_millis(100));
    engine.tick(world.pass(Duration::from_millis(100)));
    assert_eq!(engine.network("office").unwrap().state, State::Up);
    assert_eq!(engine.status().unwrap().troubles.len(), 1);
    assert!(world.state().workers[0].ports["uplink:eth0"].device);
    assert_eq!(world.state().workers[0].ports["uplink:eth0"].own.len(), 1);
}

#[test]
fn retries_back_off_to_five_seconds() {
    let (world, mut engine) = up();
    world.get().state.namespaces.remove("blue");
    engine.on_broker_notice(Notice::NetnsGone("blue".to_owned()));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = engine.next_deadline().unwrap();
        let wait = due - world.get().now;
        waits.push(wait.as_millis());
        engine.tick(world.pass(wait));
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    let told = kinds(&engine).iter().filter(|kind| *kind == "port.down").count();
    assert_eq!(told, 2, "the loss, and that it cannot be opened; not every retry");
}

#[test]
fn a_namespace_that_goes_and_comes_back_takes_its_port_along() {
    let (world, mut engine) = up();
    world.get().state.namespaces.remove("blue");
    engine.on_broker_notice(Notice::NetnsGone("blue".to_owned()));
    assert!(!world.state().workers[0].ports["guest"].device, "the descriptor keeps the namespace alive");
    assert_eq!(reason(&engine, "guest").unwrap(), "namespace blue is gone");
    world.get().state.namespaces.insert("blue".to_owned());
    engine.on_broker_notice(Notice::NetnsAppeared("blue".to_owned()));
    assert_eq!(reason(&engine, "guest"), None);
    assert!(world.state().workers[0].ports["guest"].device);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_device_that_a_worker_lost_is_asked_for_again() {
    let (world, mut engine) = up();
    let error = std::io::Error::from_raw_os_error(77);
    engine.on_worker_notice(command::Notice::DeviceLost { port: "guest".into(), error });
    assert!(reason(&engine, "guest").unwrap().contains("the device was lost"));
    engine.tick(world.pass(Duration::from_millis(100)));
    assert_eq!(reason(&engine, "guest"), None);
    assert!(kinds(&engine).ends_with(&["port.down".to_owned(), "port.up".to_owned()]));
}

#[test]
fn a_port_that_panicked_waits_for_the_user() {
    let (world, mut engine) = up();
    let message = "index out of bounds".to_owned();
    engine.on_worker_notice(command::Notice::Panicked { port: "guest".into(), message });
    engine.on_broker_notice(Notice::NetnsAppeared("blue".to_owned()));
    engine.tick(world.pass(Duration::from_secs(60)));
    assert_eq!(reason(&engine, "guest").unwrap(), "panicked: index out of bounds");
    assert_eq!(engine.next_deadline(), None);
    // Undoing another change does not bring it up either.
    let bad = format!("{CONFIG}[port.q]\nnetwork = \"lab\"\nnetdev = \"eth9\"\n").replace("g.0", "h.0");
    apply(&mut engine, &bad).unwrap_err();
    assert_eq!(reason(&engine, "guest").unwrap(), "panicked: index out of bounds");
    engine.set_port("guest", &keys(&[("admin", "up")])).unwrap();
    assert_eq!(reason(&engine, "guest"), None);
}

#[test]
fn an_uplink_that_panicked_is_tried_again_with_admin_up() {
    let (_, mut engine) = up();
    let message = "boom".to_owned();
    engine.on_worker_notice(command::Notice::Panicked { port: "uplink:eth0".into(), message });
    assert_eq!(reason(&engine, "uplink:eth0").unwrap(), "panicked: boom");
    let error = engine.set_port("uplink:eth0", &keys(&[("vlan", "access=1")])).unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    engine.set_port("uplink:eth0", &keys(&[("admin", "up")])).unwrap();
    assert_eq!(reason(&engine, "uplink:eth0"), None);
}

#[test]
fn carrier_is_followed_and_shown() {
    let (world, mut engine) = up();
    engine.on_broker_notice(link("eth0", 3, false, false));
    assert!(!world.state().workers[0].ports["uplink:eth0"].carrier);
    assert_eq!(engine.network("office").unwrap().reason.unwrap(), "uplink eth0: no carrier");
    engine.on_broker_notice(link("eth0", 3, true, false));
    assert!(world.state().workers[0].ports["uplink:eth0"].carrier);
    assert_eq!(engine.network("office").unwrap().state, State::Up);
}

#[test]
fn a_new_address_of_the_uplink_becomes_its_own() {
    let (world, mut engine) = up();
    let mac = Some([2, 9, 9, 9, 9, 9]);
    let notice =
        Notice::Link { name: "eth0".into(), index: 3, up: true, carrier: true, mac, mtu: 1500, gone: false };
    engine.on_broker_notice(notice);
    assert_eq!(world.state().workers[0].ports["uplink:eth0"].own[0].to_string(), "02:09:09:09:09:09");
}

#[test]
fn an_interface_that_reappears_is_bound_again() {
    let (world, mut engine) = up();
    world.get().state.interfaces.remove("veth0");
    engine.on_broker_notice(link("veth0", 3, false, true));
    assert_eq!(reason(&engine, "vm").unwrap(), "interface veth0 is gone");
    world.get().state.interfaces.insert("veth0".to_owned(), 1500);
    engine.on_broker_notice(link("veth0", 9, true, false));
    assert_eq!(reason(&engine, "vm"), None);
}

#[test]
fn lost_notices_make_it_look_at_everything() {
    let (world, mut engine) = up();
    world.get().state.interfaces.remove("veth0");
    engine.on_broker_notice(Notice::Lost(3));
    assert!(reason(&engine, "vm").unwrap().contains("veth0"));
    world.get().state.workers[0].ports.get_mut("guest").unwrap().device = false;
    engine.look_at_devices();
    assert_eq!(reason(&engine, "guest").unwrap(), "the device was lost");
}

#[test]
fn a_detached_port_is_in_trouble_no_more() {
    let (world, mut engine) = up();
    world.get().state.namespaces.remove("blue");
    engine.on_broker_notice(Notice::NetnsGone("blue".to_owned()));
    engine.detach_port("guest").unwrap();
    assert_eq!(engine.status().unwrap().troubles, []);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_mirror_that_cannot_start_is_tried_again() {
    let world = World::new(1);
    let mut engine = world.start(None);
    let mirror = "[mirror.m]\nsource = [\"port:vm\"]\nto = \"pcap:m.pcapng\"\n";
    apply(&mut engine, &format!("{CONFIG}{mirror}")).unwrap();
    drop(engine);
    // The last calls of a start are those of the mirror: file, worker.
    let calls = {
        let mut world = world.get();
        world.calls = 0;
        world.state.clone()
    };
    drop(world.start(None));
    let last = world.get().calls - 1;
    {
        let mut world = world.get();
        world.state = calls;
        world.calls = 0;
        world.fail_at = Some(last);
    }
    let mut engine = world.start(None);
    assert_eq!(engine.mirror("m").unwrap().state, "waiting");
    assert_eq!(engine.status().unwrap().troubles[0].object, "mirror m");
    engine.tick(world.pass(Duration::from_millis(100)));
    assert_eq!(engine.mirror("m").unwrap().state, "running");
    assert!(world.state().workers[0].mirrors.contains_key("m"));
}

#[test]
fn a_saved_object_that_is_not_valid_any_more_does_not_hold_up_the_rest() {
    let world = World::new(1);
    let text = format!("{CONFIG}[mirror.m]\nsource = [\"port:vm\"]\nto = \"pcap:/elsewhere/m.pcapng\"\n")
        .replace("netns = \"blue\"", "vlan = \"access=0\"");
    let saved: switchd_api::Desired = toml::from_str(&text).unwrap();
    world.get().saved = Some(saved.clone());
    let mut engine = world.start(None);
    let troubles = engine.status().unwrap().troubles;
    let objects: Vec<&str> = troubles.iter().map(|trouble| trouble.object.as_str()).collect();
    assert_eq!(objects, ["port guest", "mirror m"]);
    assert!(troubles[0].reason.contains("a VLAN ID is 1 to 4094"), "{troubles:?}");
    assert_eq!(reason(&engine, "vm"), None);
    assert_eq!(engine.export().unwrap(), saved, "nothing is lost");
    assert_eq!(engine.mirror("m").unwrap().state, "waiting");
    engine.delete_mirror("m").unwrap_err();
    apply(&mut engine, CONFIG).unwrap();
    assert_eq!(engine.status().unwrap().troubles, []);
    assert_eq!(reason(&engine, "guest"), None);
}
