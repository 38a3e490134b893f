//! The forwarding table as a user sees it: learning, ageing, moves, limits, static entries, admin state.

use serde_json::Value;
use std::time::Duration;
use switchd_tests::frames::{BROADCAST, mac, mac_text, marked};
use switchd_tests::{Daemon, Lab, Sniffer, Space, eventually};

/// Three guests that are silent of themselves. The daemon comes last: it has to go first.
fn three(lab: &Lab) -> ([Space; 3], Space, Daemon) {
    let host = lab.space("host");
    let guests = ["a", "b", "c"].map(|name| lab.space(name));
    let switch = Daemon::start(lab, &host);
    switch.do_("network create lab --kind isolated");
    for (port, space) in ["a", "b", "c"].iter().zip(&guests) {
        switch.guest("lab", port, space, "");
        space.ip(&["link", "set", "eth0", "up"]);
    }
    switch.wait_port("c", "up");
    (guests, host, switch)
}

fn row(switch: &Daemon, number: u32) -> Option<Value> {
    let rows = switch.json(&["fdb", "lab"]);
    rows.as_array().expect("a list").iter().find(|row| row["mac"] == mac_text(&mac(number))).cloned()
}

fn behind(switch: &Daemon, number: u32, port: &str) {
    eventually(Duration::from_secs(3), || match row(switch, number) {
        Some(row) if row["port"] == port => Ok(()),
        other => Err(format!("{} should be behind {port}: {other:?}", mac_text(&mac(number)))),
    });
}

fn hello(space: &Space, number: u32) {
    space.send("eth0", &[marked(&BROADCAST, &mac(number), &[], "hello")]);
}

#[test]
fn addresses_are_learned_move_at_once_and_are_counted() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ([a, b, c], _host, switch) = three(&lab);
    hello(&a, 1);
    behind(&switch, 1, "a");
    let learned = row(&switch, 1).expect("learned");
    assert_eq!(learned["static"], false);
    assert!(learned["age"].as_u64().is_some_and(|age| age < 5), "{learned}");
    let [at_a, at_b] = [&a, &b].map(|space| Sniffer::start(space, "eth0"));
    // In one burst: the move, and the next frame already goes there.
    b.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "moved")]);
    c.send("eth0", &[marked(&mac(1), &mac(3), &[], "to the mover")]);
    at_b.expect("to the mover", 1);
    assert!(at_a.with("to the mover").is_empty());
    behind(&switch, 1, "b");
    assert_eq!(switch.count("b", "mac_moves"), 1);
    assert_eq!(switch.json(&["network", "show", "lab"])["counters"]["moves"], 1);
    let events = switch.json(&["events"]);
    assert!(events.as_array().expect("a list").iter().any(|event| event["kind"] == "mac.moved"), "{events}");
    // Group sources are never learned.
    c.send("eth0", &[marked(&BROADCAST, &[1, 0, 0, 0, 0, 9], &[], "group")]);
    switch.do_(&format!("fdb delete lab {}", mac_text(&mac(1))));
    assert!(row(&switch, 1).is_none());
    switch.ctl(&["fdb", "delete", "lab", &mac_text(&mac(1))]).fails(3, &[&mac_text(&mac(1))]);
}

#[test]
fn static_entries_hold_against_moves_and_survive_a_restart() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ([a, b, c], _host, mut switch) = three(&lab);
    let one = mac_text(&mac(1));
    switch.do_(&format!("fdb add lab {one} a"));
    hello(&b, 1);
    std::thread::sleep(Duration::from_millis(100));
    let entry = row(&switch, 1).expect("static");
    assert_eq!((&entry["port"], &entry["static"]), (&"a".into(), &true.into()));
    let at_a = Sniffer::start(&a, "eth0");
    c.send("eth0", &[marked(&mac(1), &mac(3), &[], "static")]);
    at_a.expect("static", 1);
    switch.ctl(&["fdb", "add", "lab", &one, "b"]).fails(4, &[&one]);
    switch.ctl(&["fdb", "add", "lab", "ff:ff:ff:ff:ff:ff", "b"]).fails(1, &["ff:ff:ff:ff:ff:ff"]);
    switch.ctl(&["fdb", "add", "lab", "02:00", "b"]).fails(1, &["02:00"]);
    switch.ctl(&["fdb", "add", "lab", &mac_text(&mac(9)), "nobody"]).fails(3, &["nobody"]);
    switch.ctl(&["fdb", "add", "nowhere", &mac_text(&mac(9)), "a"]).fails(3, &["nowhere"]);
    switch.stop().ok();
    switch.restart();
    eventually(Duration::from_secs(5), || row(&switch, 1).map(drop).ok_or("the static entry is gone".into()));
    assert_eq!(row(&switch, 1).expect("static")["static"], true);
    switch.do_(&format!("fdb delete lab {one}"));
    assert!(row(&switch, 1).is_none());
}

#[test]
fn silent_addresses_age_out() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ([a, b, _c], _host, switch) = three(&lab);
    switch.do_("network set lab ageing=10");
    hello(&a, 1);
    hello(&b, 2);
    behind(&switch, 1, "a");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        hello(&a, 1);
    }
    behind(&switch, 2, "b");
    eventually(Duration::from_secs(9), || match row(&switch, 2) {
        None => Ok(()),
        Some(row) => Err(format!("still there: {row}")),
    });
    hello(&a, 1);
    behind(&switch, 1, "a");
    // An old entry is absent at once, and swept some time later.
    eventually(Duration::from_secs(5), || match switch.json(&["network", "show", "lab"])["counters"]["aged"]
        .as_u64()
    {
        Some(1..) => Ok(()),
        aged => Err(format!("{aged:?} aged out")),
    });
    switch.ctl(&["network", "set", "lab", "ageing=9"]).fails(1, &["9", "10"]);
    switch.do_("network set lab ageing=");
}

#[test]
fn limits_refuse_newcomers_and_evict_nobody() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ([a, b, _c], _host, switch) = three(&lab);
    switch.do_("port set a mac-limit=3");
    let at_b = Sniffer::start(&b, "eth0");
    let frames: Vec<_> = (1..=10).map(|n| marked(&BROADCAST, &mac(n), &[], "crowd")).collect();
    a.send("eth0", &frames);
    assert_eq!(at_b.expect("crowd", 10).len(), 10, "what is not learned is forwarded all the same");
    assert_eq!(switch.port("a")["addresses_learned"], 3);
    assert_eq!(switch.count("a", "learn_refused"), 7);
    (1..=3).for_each(|number| behind(&switch, number, "a"));
    // The network's own limit holds for all ports together.
    switch.do_("network set lab mac-limit=5");
    let frames: Vec<_> = (11..=20).map(|n| marked(&BROADCAST, &mac(n), &[], "more")).collect();
    b.send("eth0", &frames);
    eventually(Duration::from_secs(3), || match switch.count("b", "rx_frames") {
        10.. => Ok(()),
        count => Err(format!("{count} received")),
    });
    let network = switch.json(&["network", "show", "lab"]);
    assert_eq!(network["counters"]["addresses"], 5, "{network}");
    (1..=3).for_each(|number| behind(&switch, number, "a"));
    for bad in ["0", "-1", "1048577", "many"] {
        switch.ctl(&["network", "set", "lab", &format!("mac-limit={bad}")]).fails(1, &["mac-limit"]);
    }
}

#[test]
fn an_administratively_closed_port_neither_sends_nor_receives() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ([a, b, _c], _host, switch) = three(&lab);
    for (space, address) in [(&a, "10.1.0.1/24"), (&b, "10.1.0.2/24")] {
        space.address("eth0", address);
    }
    a.reaches("10.1.0.2");
    switch.do_("port set b admin=down");
    let port = switch.port("b");
    assert_eq!((&port["state"], &port["admin"]), (&"down".into(), &"down".into()), "{port}");
    a.does_not_reach("10.1.0.2");
    b.send("eth0", &[marked(&BROADCAST, &mac(2), &[], "closed")]);
    eventually(Duration::from_secs(2), || match switch.count("b", "in admin-down") {
        0 => Err("nothing dropped".into()),
        _ => Ok(()),
    });
    switch.do_("port set b admin=up");
    a.reaches("10.1.0.2");
    switch.ctl(&["port", "set", "b", "admin=sideways"]).fails(1, &["sideways"]);
    switch.ctl(&["port", "set", "b", "colour=red"]).fails(1, &["colour"]);
}
