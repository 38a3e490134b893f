//! A failure at any step leaves everything as it was.

use super::*;

const BEFORE: &str = r#"
[network.office]
kind = "bridged"
uplink = "eth0"
vlan = 10
[network.office.fdb]
"02:00:00:00:00:99" = "uplink:eth0"
[network.lab]
kind = "isolated"
[network.lab.fdb]
"02:00:00:00:00:55" = "b"
[network.old]
kind = "isolated"
[bond.b0]
members = ["eth2"]
mode = "lacp"
[network.trunk]
kind = "bridged"
uplink = "b0"
[network.home]
kind = "nat"
subnet = "10.7.0.0/24"
egress = "host"
[network.home.forward]
"tcp/80" = "10.7.0.9:80"
"tcp/81" = "10.7.0.9:81"
[network.out]
kind = "nat"
subnet = "10.8.0.0/24"
egress = "eth1"
address = "192.0.2.9/24"
[port.g]
network = "home"
tap = "g.0"
[port.a]
network = "office"
tap = "a.0"
[port.b]
network = "lab"
tap = "b.0"
[port.c]
network = "lab"
tap = "c.0"
netns = "blue"
[port.gone]
network = "old"
netdev = "veth0"
[mirror.all]
source = ["network:lab"]
to = "pcap:lab.pcapng"
[mirror.copy]
source = ["port:a"]
to = "pcap:a.pcapng"
"#;

/// Another VLAN, another uplink, a port that moves, one that goes and one that comes, other MTUs, a mirror
/// that ties networks together, and one whose source is made again. A bond with another member, one that
/// comes; NAT networks that come, whose forwards change, whose outside end finds a segment of the user's.
const AFTER: &str = r#"
[network.office]
kind = "bridged"
uplink = "eth1"
mtu = 9000
[network.lab]
kind = "bridged"
uplink = "eth0"
mtu = 1400
[network.lab.fdb]
"02:00:00:00:00:77" = "uplink:eth0"
"02:00:00:00:00:55" = "c"
[network.new]
kind = "isolated"
[bond.b0]
members = ["eth2", "dummy0"]
mode = "lacp"
rate = "slow"
[bond.b1]
members = ["dummy1"]
mode = "active-backup"
[network.home]
kind = "nat"
subnet = "10.7.0.0/24"
egress = "host"
flow-quota = 100
[network.home.forward]
"tcp/80" = "10.7.0.8:80"
"udp/53" = "10.7.0.9:53"
[network.out]
kind = "nat"
subnet = "10.8.0.0/24"
egress = "eth1"
address = "192.0.2.9/24"
mac = "host"
[network.more]
kind = "nat"
subnet = "10.9.0.0/24"
egress = "b0"
address = "dhcp"
[port.g]
network = "out"
tap = "g.0"
[port.a]
network = "lab"
tap = "a.0"
[port.b]
network = "lab"
tap = "b.0"
vlan = "access=10"
[port.c]
network = "lab"
tap = "c.0"
netns = "blue"
[port.d]
network = "new"
netdev = "veth0"
[port.e]
network = "office"
tap = "e.0"
[mirror.all]
source = ["network:lab"]
to = "port:e"
[mirror.copy]
source = ["port:a"]
to = "pcap:a.pcapng"
"#;

/// Runs `change` with its k-th call failing, for every k, each time in a new world of `workers`.
fn at_every_step(workers: usize, change: impl Fn(&mut Engine) -> Result<(), ErrorBody>) -> usize {
    for step in 0.. {
        let world = World::new(workers);
        let mut engine = world.start(None);
        apply(&mut engine, BEFORE).unwrap();
        let (state, standing) = (world.state(), engine.standing.clone());
        let (target, places) = (engine.target.clone(), engine.places.clone());
        let saved = world.get().saved.clone();
        {
            let mut world = world.get();
            world.calls = 0;
            world.fail_at = Some(step);
        }
        let outcome = change(&mut engine);
        let reached = world.get().calls > step;
        match outcome {
            Ok(()) => {
                assert!(!reached, "step {step} failed and nobody noticed");
                return step;
            }
            Err(error) => {
                assert!(reached, "{error:?}");
                assert_eq!(world.state(), state, "step {step}: {error:?}");
                assert_eq!(engine.standing, standing, "step {step}");
                assert_eq!((&engine.target, &engine.places), (&target, &places), "step {step}");
                assert_eq!(world.get().saved, saved, "step {step}");
                assert_eq!(engine.export().unwrap(), saved.unwrap(), "step {step}");
                assert_eq!(engine.status().unwrap().troubles, [], "step {step}");
                assert!(error.message.contains(&format!("call {step} fails")), "{error:?}");
                // It can still be done.
                world.get().fail_at = None;
                change(&mut engine).unwrap();
            }
        }
    }
    unreachable!("some step is the last one")
}

#[test]
fn an_apply_that_fails_at_any_step_is_undone() {
    for workers in [1, 2, 3] {
        let steps = at_every_step(workers, |engine| apply(engine, AFTER).map(drop));
        assert!(steps > 30, "{steps} steps only");
    }
}

#[test]
fn an_apply_to_nothing_that_fails_at_any_step_is_undone() {
    assert!(at_every_step(2, |engine| apply(engine, "").map(drop)) > 10);
}

#[test]
fn single_changes_that_fail_at_any_step_are_undone() {
    at_every_step(1, |engine| engine.set_network("lab", &keys(&[("mtu", "1300")])).map(drop));
    at_every_step(1, |engine| engine.set_port("a", &keys(&[("vlan", "access=5")])).map(drop));
    at_every_step(1, |engine| engine.detach_port("b"));
    at_every_step(1, |engine| engine.delete_mirror("all"));
}

#[test]
fn the_result_does_not_depend_on_the_way() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, BEFORE).unwrap();
    apply(&mut engine, AFTER).unwrap();
    let direct = World::new(1);
    // The same addresses for the same ports.
    direct.copy_addresses(&world);
    let mut other = direct.start(None);
    apply(&mut other, AFTER).unwrap();
    assert_eq!(world.state(), direct.state());
    assert_eq!(engine.standing, other.standing);
}

#[test]
fn a_full_disk_refuses_the_change() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, BEFORE).unwrap();
    let state = world.state();
    world.get().disk_full = true;
    let error = apply(&mut engine, AFTER).unwrap_err();
    assert!(error.message.contains("No space left on device"), "{error:?}");
    assert_eq!(world.state(), state);
    world.get().disk_full = false;
    apply(&mut engine, AFTER).unwrap();
}

#[test]
fn a_device_that_cannot_be_had_is_found_before_anything_is_taken_down() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, BEFORE).unwrap();
    let calls = |world: &World| world.get().worker_calls;
    let before = calls(&world);
    let missing = AFTER.replace("netdev = \"veth0\"", "netdev = \"eth9\"");
    let error = apply(&mut engine, &missing).unwrap_err();
    assert!(error.message.contains("port d") && error.message.contains("eth9"), "{}", error.message);
    assert_eq!(calls(&world), before, "no worker was asked for anything");
    assert!(!world.state().taps.contains_key(&("e.0".to_owned(), None)), "what was opened is given back");
}

#[test]
fn ports_that_do_not_change_keep_their_taps_open() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, BEFORE).unwrap();
    let opens = world.get().tap_opens;
    engine.set_port("b", &keys(&[("admin", "down")])).unwrap();
    engine.set_network("lab", &keys(&[("mtu", "1400")])).unwrap();
    assert_eq!(world.get().tap_opens, opens);
    assert_eq!(world.state().taps[&("b.0".to_owned(), None)].0, 1400);
}
