//! NAT networks with an outside address of their own, on an uplink, a VLAN of it, a bond.

use switchd_tests::internet::{LAB, PORT, SERVER};
use switchd_tests::{Daemon, Internet, Lab, Space};

/// With servers outside.
fn begin(lab: &Lab) -> (Internet, Daemon, Space) {
    let mut internet = lab.internet();
    internet.start();
    let (switch, a) = internet.nat(lab, LAB);
    (internet, switch, a)
}

#[test]
fn guests_speak_as_the_outside_address() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch, a) = begin(&lab);
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    assert!(a.talk("udp", SERVER, PORT, &["3"]).lines().all(|line| line.starts_with("192.0.2.50 ")));
    assert_eq!(a.pings(SERVER, 10, "0.02").lost(), 0);
    assert_eq!(a.pings("10.7.0.1", 10, "0.02").lost(), 0, "the gateway answers");
    assert_eq!(internet.net.pings("192.0.2.50", 5, "0.05").lost(), 0, "the outside address answers");
    for more in [&[][..], &["-R"]] {
        assert!(a.tcp(&internet.net, "192.0.2.1", 1, more) > 100e6);
    }
    let words = a.talk("put", SERVER, PORT, &["3000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours, "what arrived is what was sent, and the answer came after the half-close");
    // The host goes on as before, and nothing of the inside is seen outside.
    assert!(internet.host.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "));
    let flows = switch.json(&["flow", "list", "lab"]);
    let icmp = flows.as_array().expect("a list").iter().filter(|flow| flow["protocol"] == "icmp").count();
    assert!(icmp >= 1, "{flows}");
    internet.net.ip(&["route", "add", "10.7.0.0/24", "via", "192.0.2.50"]);
    internet.net.does_not_reach("10.7.0.20");
}
