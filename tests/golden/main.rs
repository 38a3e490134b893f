//! Golden captures through the road: what enters a switch, and byte for byte what has to leave it.
//!
//! The captures lie in `captures/NAME`; scapy made both sides (`captures/make.py`). A real worker runs, with
//! ports in memory, so everything between a port's receive and another port's send is the daemon's own:
//! parsing, tables, tags, segmentation, checksums. A packet is let in, carried out, then the next one.

mod pcapng;
mod switch;

use pcapng::Packet;
use std::collections::BTreeMap;
use std::path::Path;
use switch::Switch;
use switchd_dataplane::VlanMode;
use switchd_port::Offloads;

const ALL: Offloads = Offloads { csum: true, tso4: true, tso6: true, uso: true };
const NONE: Offloads = Offloads { csum: false, tso4: false, tso6: false, uso: false };

fn trunk(allowed: &[u16], native: u16) -> VlanMode {
    VlanMode::Trunk { allowed: allowed.iter().copied().collect(), native: Some(native) }
}

/// Plays a case and compares, port by port.
fn play(name: &str, switch: &mut Switch) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures").join(name);
    assert!(folder.join("README").is_file(), "{name} has no line of provenance");
    let entering = pcapng::read(&folder.join("in.pcapng"));
    assert!(entering.len() >= 5, "{name} has only {} packets", entering.len());
    let mut expected: BTreeMap<String, Vec<Packet>> = BTreeMap::new();
    for packet in pcapng::read(&folder.join("out.pcapng")) {
        expected.entry(packet.port.clone()).or_default().push(packet);
    }
    for packet in &entering {
        switch.enter(packet);
    }
    for port in switch.names() {
        let left = switch.left(&port);
        let expected = expected.remove(&port).unwrap_or_default();
        for (number, (left, expected)) in left.iter().zip(&expected).enumerate() {
            assert_eq!(left, expected, "{name}: packet {number} that left by {port} is another one");
        }
        assert_eq!(left.len(), expected.len(), "{name}: number of packets that left by {port}");
    }
    assert!(expected.is_empty(), "{name}: the capture has ports that the switch has not: {expected:?}");
    switch.counters_add_up(entering.len() as u64);
}

#[test]
fn transparent_ports_pass_every_byte() {
    let mut switch = Switch::new(&["lab"]);
    for port in ["a", "b", "c"] {
        switch.port("lab", port, VlanMode::Transparent, NONE);
    }
    play("untagged", &mut switch);
}

#[test]
fn tags_come_and_go_between_access_and_trunk() {
    let mut switch = Switch::new(&["lab"]);
    switch.port("lab", "ten", VlanMode::Access(10), NONE);
    switch.port("lab", "twenty", VlanMode::Access(20), NONE);
    switch.port("lab", "trunk", trunk(&[10, 20], 1), NONE);
    switch.port("lab", "open", VlanMode::Transparent, NONE);
    play("access-trunk", &mut switch);
}

#[test]
fn networks_on_one_uplink_have_their_vlans() {
    let mut switch = Switch::new(&["red", "blue", "plain"]);
    for network in ["red", "blue", "plain"] {
        switch.port(network, network, VlanMode::Transparent, NONE);
    }
    let vlans = [("red", Some(100)), ("blue", Some(200)), ("plain", None)];
    switch.uplink("uplink", [2, 0, 0, 0, 0, 0xee], &vlans);
    play("uplink-vlan", &mut switch);
}

#[test]
fn what_a_bridge_must_not_forward_stays_out() {
    let mut switch = Switch::new(&["lab"]);
    switch.port("lab", "a", VlanMode::Transparent, NONE);
    switch.port("lab", "b", VlanMode::Transparent, NONE);
    play("refused", &mut switch);
}

#[test]
fn superframes_are_cut_for_ports_without_offloads_only() {
    let mut switch = Switch::new(&["lab"]);
    switch.port("lab", "a", VlanMode::Transparent, ALL);
    switch.port("lab", "plain", VlanMode::Transparent, NONE);
    switch.port("lab", "able", VlanMode::Transparent, ALL);
    play("gso", &mut switch);
}

#[test]
fn open_checksums_are_completed_for_ports_without_offloads_only() {
    let mut switch = Switch::new(&["lab"]);
    switch.port("lab", "a", VlanMode::Transparent, ALL);
    switch.port("lab", "plain", VlanMode::Transparent, NONE);
    switch.port("lab", "able", VlanMode::Transparent, ALL);
    play("checksum", &mut switch);
}
