//! What scapy sends to a member: LACPDUs that are cut or forged, and Markers.

use std::time::Duration;
use switchd_tests::links::{FAST, OUT};
use switchd_tests::{Lab, eventually};

/// Sends a marker PDU `COUNT` times and counts responses with the right transaction.
const MARKERS: &str = r#"
import socket, struct, sys, time
count = int(sys.argv[1])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
s.setsockopt(263, 23, 1)
s.bind(("p0", 0x8809))
s.settimeout(0.2)
answered = set()
def read():
    try:
        while True:
            data = s.recv(2048)
            if data[12:16] == b"\x88\x09\x02\x01" and data[16:18] == b"\x02\x10":
                answered.add(struct.unpack("!I", data[26:30])[0])
    except OSError:
        pass
for number in range(count):
    body = b"\x02\x01" + b"\x01\x10" + struct.pack("!H", 7) + bytes.fromhex("020000000077") + struct.pack("!I", number) + b"\0\0" + b"\0\0"
    frame = Ether(dst="01:80:c2:00:00:02", src=get_if_hwaddr("p0"), type=0x8809) / Raw(body + bytes(90))
    s.send(bytes(frame))
    if number % 10 == 9:
        read()
read()
print(len(answered & set(range(count))))
"#;

/// Cut, forged and strange PDUs; the last ones are for a system that cannot be.
const FORGED: &str = r#"
load_contrib("lacp")
head = Ether(dst="01:80:c2:00:00:02", src=get_if_hwaddr("p0"), type=0x8809)
good = bytes(head / SlowProtocol(subtype=1) / LACP())
for length in (15, 17, 20, 40, 60, 100):
    sendp(Raw(good[:length]), iface="p0")
bad = bytearray(good); bad[17] = 19
sendp(Raw(bytes(bad)), iface="p0")
bad = bytearray(good); bad[20:26] = b"\x01\0\0\0\0\1"
sendp(Raw(bytes(bad)), iface="p0")
bad = bytearray(good); bad[20:26] = bytes(6)
sendp(Raw(bytes(bad)), iface="p0")
"#;

#[test]
fn every_marker_is_answered_and_forged_pdus_are_counted() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "scapy"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    let answered = rack.rack.scapy(MARKERS, &["100"]);
    assert_eq!(answered, "100", "of 100 Markers");
    eventually(Duration::from_secs(3), || {
        match ["marker-rx", "marker-response-tx"].map(|key| switch.protocol_count("b0", "m0", key)) {
            [100, 100] => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    });
    let partner = switch.bond("b0")["partner_system"].clone();
    let before = switch.protocol_count("b0", "m0", "lacpdu-bad");
    rack.rack.scapy(FORGED, &[]);
    eventually(Duration::from_secs(3), || match switch.protocol_count("b0", "m0", "lacpdu-bad") - before {
        count if count >= 6 => Ok(()),
        count => Err(format!("{count} are counted: {}", switch.member("b0", "m0"))),
    });
    // None of them changed anything.
    assert_eq!(switch.bond("b0")["partner_system"], partner);
    switch.works("b0", &["m0", "m1"]);
    let shown = switch.member("b0", "m0");
    for kind in ["slow-bad-length", "slow-bad-system"] {
        assert!(switch.protocol_count("b0", "m0", kind) >= 1, "{kind}: {shown}");
    }
    a.reaches(OUT);
    // A frame of the bond's own protocols is not for guests.
    assert_eq!(switch.count("a", "in reserved-group"), 0);
}

/// A well-formed LACPDU of another system: the link belongs to somebody else until the real partner speaks.
#[test]
fn a_forged_partner_takes_one_member_out_for_a_moment() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "scapy"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    rack.rack.scapy(
        r#"
load_contrib("lacp")
sendp(Ether(dst="01:80:c2:00:00:02", src=get_if_hwaddr("p0"), type=0x8809) / SlowProtocol(subtype=1) /
      LACP(actor_system="02:66:66:66:66:66", actor_key=9, actor_port_number=1, actor_state=0x3f), iface="p0")
"#,
        &[],
    );
    eventually(Duration::from_secs(3), || {
        let events = switch.events("bond.member-down");
        match events.iter().any(|event| event.contains("m0")) {
            true => Ok(()),
            false => Err(format!("{events:?}; {}", switch.member("b0", "m0"))),
        }
    });
    a.reaches(OUT);
    switch.works("b0", &["m0", "m1"]);
    rack.ovs.negotiated(&["p0", "p1"]);
}
