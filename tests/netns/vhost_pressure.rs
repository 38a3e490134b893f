//! A guest that takes nothing out of its ring costs itself its frames, and nobody else anything.

use std::time::Duration;
use switchd_tests::frames::mac;
use switchd_tests::offload::{Kind, frame};
use switchd_tests::vhost::{Driver, Shape};
use switchd_tests::{Daemon, Lab, eventually};
use switchd_wire::VnetHeader;

const FRAMES: usize = 20_000;

#[test]
fn a_guest_that_does_not_drain_loses_its_own_frames_only() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, one, two) = (lab.space("host"), lab.space("one"), lab.space("two"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "one", &one, "10.1.0.1/24");
    switch.guest("lab", "two", &two, "10.1.0.2/24");
    one.reaches("10.1.0.2");
    let mut cards = ["loud", "deaf", "well"].map(|name| {
        let socket = lab.folder().join(name);
        switch.do_(&format!("port attach lab {name} --vhost-user {} --server", socket.display()));
        let card = Driver::connect(&socket, Shape::bare());
        switch.wait_port(name, "up");
        card
    });
    let [loud, deaf, well] = &mut cards;
    deaf.refill = false;
    let plain = VnetHeader::default();
    let hello = |number| frame(Kind::Udp4, [0xff; 6], mac(number), None, b"hello");
    deaf.send(&plain, &hello(2));
    well.send(&plain, &hello(3));
    eventually(Duration::from_secs(10), || match loud.received().len() {
        0 => Err("nothing has come".to_owned()),
        _ => Ok(()),
    });
    let known = ["deaf", "well"].map(|port| switch.count(port, "offered"));
    let (mut sent, mut came) = (0usize, 0usize);
    let mine = |frame: &[u8]| frame[6..12] == mac(1);
    std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| one.pings("10.1.0.2", 200, "0.01").lost());
        // One of each after the other, so that every burst has both; no more on the way than `well` can take.
        while came < FRAMES {
            if sent < FRAMES && sent - came < 100 {
                loud.send(&plain, &frame(Kind::Udp4, mac(2), mac(1), None, &sent.to_be_bytes()));
                loud.send(&plain, &frame(Kind::Udp4, mac(3), mac(1), None, &sent.to_be_bytes()));
                sent += 1;
            }
            for (_, bytes) in well.received().iter().filter(|(_, bytes)| mine(bytes)) {
                assert_eq!(bytes[42..50], came.to_be_bytes(), "each once and in order");
                came += 1;
            }
        }
        assert_eq!(neighbours.join().expect("it pings"), 0, "frames that neighbours lost");
    });
    let offered = |port: &str, before: u64| switch.count(port, "offered") - before;
    eventually(Duration::from_secs(10), || match offered("deaf", known[0]) {
        all if all >= FRAMES as u64 => Ok(()),
        some => Err(format!("{some} frames were offered")),
    });
    // As many as there were buffers went in, all others are counted.
    let (went, lost) = (switch.count("deaf", "tx_frames"), switch.count("deaf", "out queue-full"));
    assert_eq!((went, lost), (256, switch.count("deaf", "offered") - 256));
    assert_eq!(switch.count("well", "out queue-full"), 0);
    assert_eq!(switch.port("deaf")["state"], "up", "it may drain some day");
    // It does: what comes now arrives.
    deaf.refill = true;
    assert_eq!(deaf.received().len(), 256);
    loud.send(&plain, &frame(Kind::Udp4, mac(2), mac(1), None, b"at last"));
    eventually(Duration::from_secs(10), || match deaf.received().last() {
        Some((_, bytes)) if bytes.ends_with(b"at last") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
