//! Files as people write them, and what they are told.

use super::testing::{CAPTURES, desired};
use super::{MAX_PROBLEMS, MAX_TEXT, Report, export, parse_toml, parse_toml_over};
use proptest::prelude::*;
use std::path::Path;
use switchd_api::model::{Admin, Desired, Kind, MirrorDirection};

fn parse(text: &str) -> Result<Desired, Report> {
    parse_toml(text, "some.toml", Path::new(CAPTURES))
}

/// Each problem as text.
fn refused(text: &str) -> Vec<String> {
    let report = parse(text).expect_err("it is refused");
    report.problems().iter().map(|problem| format!("{problem}")).collect()
}

#[test]
fn every_key_is_read() {
    let text = r#"
[network.office]
kind = "bridged"
uplink = "eth0"
vlan = 20
mtu = 9_000
ageing = 0x20
mac-limit = 100
fdb."02:00:00:00:00:01" = "uplink:eth0"
fdb."02:00:00:00:00:01@10" = "vm1"
rstp = "on"
[network.lab]
kind = "nat"
subnet = "10.7.0.0/24"
subnet6 = "fd00:7::/64"
egress = "bond0"
vlan = 30
address = "192.0.2.9/24"
address6 = "2001:db8::9/64"
pool = "192.0.2.20-192.0.2.29"
gateway = "192.0.2.1"
gateway6 = "fe80::1"
mac = "02:00:00:00:00:99"
dns = "lab.example"
resolver = "192.0.2.53,2001:db8::53"
mode6 = "nat"
dhcp6 = "stateful"
dhcp = "on"
dhcp-range = "10.7.0.100-10.7.0.199"
lease-time = 7200
dhcp-port-limit = 4
filtering = "endpoint-independent"
flow-limit = 1000
flow-quota = 100
udp-timeout = 120
tcp-timeout = 7440
tcp-transitory-timeout = 240
icmp-timeout = 60
[network.lab.dhcp-option]
ntp = "10.7.0.5"
routes = "10.9.0.0/16 via 10.7.0.5"
[network.lab.forward]
"tcp/8080" = "10.7.0.20:80"
"[2001:db8::9]:udp/5000-5010" = "[fd00:7::20]:5000"
[network.lab.floating]
"192.0.2.50" = "web"
[bond.bond0]
members = ["eth2", "eth3"]
mode = "lacp"
lacp = "passive"
rate = "slow"
hash = "layer2+3"
min-links = 2
system-priority = 1
system-id = "02:00:00:00:00:98"
key = 7
fallback = "active-backup"
peer = "eth4"
peer-id = 1
[bond.spare]
members = ["eth5"]
mode = "active-backup"
prefer = "eth5"
[port.web]
network = "lab"
tap = "web"
reserve = "10.7.0.20"
storm-limit = "off"
bpdu-guard = "off"
loop-guard = "on"
[port.vm1]
network = "office"
tap = "vm1.0"
netns = "guest"
mac = "02:00:00:00:00:07"
vlan = "trunk=10,20,native=1"
admin = "down"
mac-limit = 4
[port.pc]
network = "office"
netdev = "eth1"
[mirror.forensics]
source = ["network:office", "port:vm1", "port:uplink:eth0", "bond:spare"]
direction = "tx"
to = "pcap:lab.pcapng"
filter = "tcp"
snaplen = 128
segment = true
rotate-size = "10M"
rotate-time = "1h"
rotate-count = 5
"#;
    let desired = parse(text).unwrap_or_else(|report| panic!("{}", report.rendered()));
    let office = &desired.network["office"];
    assert_eq!((office.kind, office.uplink.as_deref(), office.vlan), (Kind::Bridged, Some("eth0"), Some(20)));
    assert_eq!((office.mtu, office.ageing, office.mac_limit), (Some(9000), Some(32), Some(100)));
    assert_eq!(office.fdb.len(), 2);
    let vm1 = &desired.port["vm1"];
    assert_eq!((vm1.tap.as_deref(), vm1.netns.as_deref()), (Some("vm1.0"), Some("guest")));
    assert_eq!((vm1.admin, vm1.mac_limit), (Admin::Down, Some(4)));
    assert_eq!(desired.port["pc"].netdev.as_deref(), Some("eth1"));
    let lab = &desired.network["lab"];
    assert_eq!(
        (lab.kind, lab.dhcp_option.len(), lab.forward.len(), lab.floating.len()),
        (Kind::Nat, 2, 2, 1)
    );
    assert_eq!((lab.lease_time, lab.dhcp_port_limit, lab.icmp_timeout), (Some(7200), Some(4), Some(60)));
    assert_eq!(desired.bond["bond0"].hash.as_deref(), Some("layer2+3"));
    assert_eq!(desired.port["web"].storm_limit.as_deref(), Some("off"));
    let mirror = &desired.mirror["forensics"];
    assert_eq!(
        (mirror.direction, mirror.snaplen, mirror.segment),
        (Some(MirrorDirection::Tx), Some(128), true)
    );
    assert_eq!((mirror.rotate_size.as_deref(), mirror.rotate_count), (Some("10M"), Some(5)));
    assert_eq!(parse("").unwrap(), Desired::default());
}

#[test]
fn dotted_keys_and_inline_tables_are_the_same_model() {
    let text = "network.lab.kind = \"isolated\"\n[port]\nvm1 = { network = \"lab\", tap = \"t\" }\r\n";
    let desired = parse(text).unwrap();
    assert_eq!(desired.port["vm1"].network.as_str(), "lab");
}

#[test]
fn a_syntax_error_shows_its_place() {
    let report = parse("[network.lab]\nkind = isolated\n").unwrap_err();
    let text = report.to_string();
    assert_eq!(text, "some.toml:2:8: this is not TOML: text stands in quotes");
    assert_eq!(report.help(), Some("write \"isolated\""));
    assert!(report.rendered().contains("kind = isolated"), "{}", report.rendered());
}

#[test]
fn other_syntax_errors_keep_the_parsers_words() {
    let report = parse("[network.lab]\nmtu = 15 00\n").unwrap_err();
    assert!(report.to_string().starts_with("some.toml:2:"), "{report}");
    assert!(report.to_string().contains("this is not TOML: ") && report.help().is_none(), "{report}");
}

#[test]
fn several_syntax_errors_are_told_at_once() {
    let problems = refused("a = = 1\n[network.lab\nb = \"x\n");
    assert!(problems.len() >= 2, "{problems:?}");
}

#[test]
fn a_table_that_stands_twice_is_told_once_with_both_places() {
    let text = "[network.lab]\nkind = \"isolated\"\nmtu = 1500\n[port.a]\nnetwork = \"lab\"\ntap = \"t\"\n\
        [network.lab]\nkind = \"isolated\"\nmtu = 1400\n[port.b]\nnetwork = \"lab\"\ntap = \"u\"\n";
    let report = parse(text).unwrap_err();
    assert_eq!(report.to_string(), "some.toml:7:10: network lab: this table stands in the file twice");
    assert_eq!(report.problems().len(), 1, "{:?}", report.problems());
    let drawn = report.rendered();
    assert!(drawn.contains("here") && drawn.contains("the other one"), "{drawn}");
    assert!(drawn.contains(" 1 │ [network.lab]") && drawn.contains(" 7 │ [network.lab]"), "{drawn}");
    // What stands twice outside of it is a mistake of its own.
    let more = text.replace("tap = \"u\"", "tap = \"u\"\ntap = \"v\"");
    assert_eq!(
        refused(&more),
        [
            "network lab: this table stands in the file twice",
            "port b: tap: this key stands in the file twice"
        ]
    );
}

#[test]
fn a_file_that_follows_another_is_blamed_for_what_it_adds() {
    let before = "[network.office]\nkind = \"bridged\"\nuplink = \"eth0\"\n";
    let after = format!("[network.annex]\nkind = \"bridged\"\nuplink = \"eth0\"\n{before}");
    let told = |report: Report| report.to_string().split(": ").nth(1).map(str::to_owned);
    assert_eq!(told(parse(&after).unwrap_err()).as_deref(), Some("network office"), "by name");
    let over =
        parse_toml_over(&parse(before).unwrap(), &after, "some.toml", Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        over.to_string(),
        "some.toml:3:10: network annex: uplink \"eth0\": \
         network office has the untagged frames of this uplink already"
    );
}

#[test]
fn a_key_that_stands_twice_is_named() {
    let twice = |text: &str| {
        let report = parse(text).unwrap_err();
        assert_eq!(report.problems().len(), 1, "{:?}", report.problems());
        (report.to_string(), report.rendered().contains("the other one"))
    };
    let said = |text: &str| (format!("some.toml:{text} stands in the file twice"), true);
    assert_eq!(
        twice("[network.lab]\r\nkind = \"nat\"\r\n  kind = \"nat\"\r\n"),
        said("3:3: network lab: kind: this key")
    );
    assert_eq!(twice("network.lab.mtu = 1\nnetwork.lab.mtu = 2\n"), said("2:13: network lab: mtu: this key"));
    assert_eq!(
        twice("[network.lab]\nkind = \"nat\"\n[network]\nlab.kind = \"nat\"\n"),
        said("4:1: network lab: this key")
    );
    // Within an inline table the line does not tell the name.
    assert_eq!(
        twice("[port]\nvm1 = { tap = \"a\", tap = \"b\" }\n"),
        ("some.toml:2:20: this key stands in the file twice".to_owned(), false)
    );
    // Thousands of them, without the time of a search for each.
    let report = parse(&"mtu = 1\n".repeat(8000)).unwrap_err();
    assert_eq!(report.problems().len(), MAX_PROBLEMS);
    assert!(report.rendered().ends_with("more\n"));
}

#[test]
fn an_unknown_key_is_shown_with_what_was_meant() {
    let report = parse("[network.lab]\nkind = \"isolated\"\nmtuu = 1500\n").unwrap_err();
    assert_eq!(report.to_string(), "some.toml:3:1: network lab: mtuu: unknown key");
    assert_eq!(report.help(), Some("did you mean mtu?"));
    let drawn = report.rendered();
    assert!(drawn.contains("some.toml:3:1") && drawn.contains("mtuu = 1500"), "{drawn}");
    let report = parse("[network.lab]\nkind = \"isolated\"\nroute-target = \"10.0.0.0/24\"\n").unwrap_err();
    let help = report.help().unwrap();
    assert!(help.starts_with("the keys of a network are kind, uplink, vlan, mtu, "), "{help}");
    assert!(help.ends_with("forward, floating or fdb"), "{help}");
    let report = parse("[networks.lab]\nkind = \"isolated\"\n").unwrap_err();
    assert_eq!(
        (report.to_string().as_str(), report.help()),
        ("some.toml:1:2: networks: unknown key", Some("did you mean network?"))
    );
    let report = parse("[tunnel.t]\nmode = \"lacp\"\n").unwrap_err();
    assert_eq!(report.help(), Some("a file has [network.NAME], [bond.NAME], [port.NAME] or [mirror.NAME]"));
}

#[test]
fn wrong_types_and_values_are_all_told() {
    let text = r#"
[network.lab]
kind = "vpn"
mtu = "big"
ageing = 5
mac-limit = -1
vlan = 4095
[network.two]
kind = 3
uplink = ["eth0"]
fdb = { "02:00:00:00:00:01" = 3 }
[port.vm1]
tap = 7
vlan = true
[mirror.m]
source = "port:vm1"
to = "port:vm1"
segment = "yes"
[mirror.n]
source = ["port:vm1", 3]
to = 1979-05-27
direction = "in"
"#;
    assert_eq!(
        refused(text),
        [
            r#"network lab: kind "vpn": expected bridged, isolated or nat"#,
            "network lab: mtu: expected a whole number, found text",
            "network lab: ageing 5: the ageing time in seconds is 10 to 1000000",
            "network lab: mac-limit -1: the number of learned addresses is 1 to 1048576",
            "network lab: vlan 4095: a VLAN ID is 1 to 4094",
            r#"network two: kind: expected "bridged", "isolated" or "nat", found a whole number"#,
            "network two: uplink: expected text in quotes, found a list",
            "network two: fdb.02:00:00:00:00:01: expected the name of a port in quotes, found a whole number",
            "port vm1: tap: expected text in quotes, found a whole number",
            "port vm1: vlan: expected text in quotes, found true or false",
            "port vm1: the key network is missing",
            r#"mirror m: source: expected a list of texts, as in ["port:vm1"], found text"#,
            "mirror m: segment: expected true or false, found text",
            "mirror n: source.1: expected text in quotes, found a whole number",
            "mirror n: to: expected text in quotes, found a date or time",
            r#"mirror n: direction "in": expected rx, tx or both"#,
        ]
    );
}

#[test]
fn shapes_that_are_no_objects() {
    assert_eq!(
        refused("network = 3\n"),
        ["network: expected tables like [network.NAME], found a whole number"]
    );
    assert_eq!(
        refused("[network]\nlab = 3\n"),
        ["network lab: expected a table [network.lab], found a whole number"]
    );
    assert_eq!(refused("[[port]]\nname = \"x\"\n"), ["port: expected tables like [port.NAME], found a list"]);
    let problems = refused("[network.lab]\n[mirror.m]\nto = \"pcap:x\"\n");
    assert_eq!(problems, ["network lab: the key kind is missing", "mirror m: the key source is missing"]);
}

#[test]
fn bad_names_are_refused_and_cannot_draw_on_the_terminal() {
    for bad in ["Lab", "-lab", "../etc", "a b", "lab\\n", "\\u001b[31m", "ü", ""] {
        let report = parse(&format!("[network.\"{bad}\"]\nkind = \"isolated\"\n")).unwrap_err();
        assert!(report.to_string().ends_with(": not a usable name"), "{report}");
        assert!(!report.rendered().contains('\u{1b}') && !report.to_string().contains('\n'));
    }
    let long = "a".repeat(33);
    assert_eq!(refused(&format!("[network.{long}]\nkind = \"isolated\"\n")).len(), 1);
    assert_eq!(
        refused("[port.vm1]\nnetwork = \"../x\"\ntap = \"t\"\n"),
        [
            r#"port vm1: network "../x": a name has 1 to 32 characters of a-z 0-9 . _ -, a letter or digit first"#
        ]
    );
}

#[test]
fn rules_between_objects_point_at_both_places() {
    let text = "[network.a]\nkind = \"bridged\"\nuplink = \"eth0\"\nvlan = 7\n\
                [network.b]\nkind = \"bridged\"\nuplink = \"eth0\"\nvlan = 7\n";
    let report = parse(text).unwrap_err();
    assert_eq!(
        report.to_string(),
        "some.toml:8:8: network b: vlan 7: network a has VLAN 7 of uplink eth0 already"
    );
    let drawn = report.rendered();
    assert!(drawn.contains("the other one") && drawn.contains("here"), "{drawn}");
}

#[test]
fn a_missing_reference_points_at_the_value() {
    let report = parse("[network.lab]\nkind = \"isolated\"\n[port.vm1]\nnetwork = \"lob\"\ntap = \"t\"\n")
        .unwrap_err();
    assert_eq!(report.to_string(), "some.toml:4:11: port vm1: network \"lob\": there is no such network");
    assert_eq!(report.help(), Some("did you mean \"lab\"?"));
    let text = "[network.lab]\nkind = \"isolated\"\n[mirror.m]\nsource = [\"network:lab\", \"port:x\"]\nto = \"pcap:x\"\n";
    assert_eq!(
        parse(text).unwrap_err().to_string(),
        "some.toml:4:26: mirror m: source.1 \"port:x\": there is no such port"
    );
}

#[test]
fn a_broken_object_is_not_blamed_twice_and_its_users_not_at_all() {
    let text = "[network.lab]\nkind = \"vpn\"\n[port.vm1]\nnetwork = \"lab\"\ntap = \"t\"\n[port.vm2]\nnetwork = \"gone\"\ntap = \"u\"\n";
    assert_eq!(
        refused(text),
        [
            "network lab: kind \"vpn\": expected bridged, isolated or nat",
            "port vm2: network \"gone\": there is no such network"
        ]
    );
}

#[test]
fn the_number_of_problems_told_is_bounded() {
    let text: String = (0..100).map(|n| format!("[network.n{n}]\nkind = \"vpn\"\n")).collect();
    let report = parse(&text).unwrap_err();
    assert_eq!(report.problems().len(), MAX_PROBLEMS);
    assert!(report.to_string().ends_with("(and 99 more)"), "{report}");
    assert!(report.rendered().ends_with("and 80 more\n"));
}

#[test]
fn big_and_deep_texts_are_refused_quickly() {
    let report = parse(&" ".repeat(MAX_TEXT + 1)).unwrap_err();
    assert!(report.to_string().contains("a configuration has at most 1048576 bytes, this one has 1048577"));
    for piece in ["[", "{a=", "a.", "[[", "\n=", "\"", "[network.\"\u{1b}\"]\n"] {
        let text = piece.repeat(MAX_TEXT / piece.len());
        assert!(parse(&text).unwrap_err().rendered().len() < 100_000, "{piece:?}");
        assert!(parse(&format!("x = {text}")).is_err(), "{piece:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_reads_back_as_the_same(desired in desired()) {
        let text = export(&desired);
        match parse(&text) {
            Ok(again) => prop_assert_eq!(&again, &desired),
            Err(report) => prop_assert!(false, "{}", report.rendered()),
        }
        // serde reads the same out of it, and the text is canonical.
        prop_assert_eq!(&toml::from_str::<Desired>(&text).unwrap(), &desired);
        prop_assert_eq!(export(&parse(&text).unwrap()), text);
    }

    #[test]
    fn no_text_panics(text in "(\\[|\\]|\\.|=|\"|\n|network|bond|port|mirror|lab|kind|vlan|source|[ -~é\u{1b}]){0,60}") {
        if let Err(report) = parse(&text) {
            let drawn = report.rendered();
            prop_assert!(!drawn.contains(0x1b as char), "it has an escape");
        }
    }

    #[test]
    fn no_damage_to_a_good_file_panics(desired in desired(), at: prop::sample::Index, byte in 1u8..0x80) {
        let mut bytes = export(&desired).into_bytes();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = parse(&text);
        }
    }
}

#[test]
fn entries_of_maps_are_told_with_their_places() {
    let text = "[network.lab]\nkind = \"nat\"\nsubnet = \"10.7.0.0/24\"\n[network.lab.forward]\n\
                \"tcp/80\" = \"10.8.0.1:80\"\n\"tcp/x\" = \"10.7.0.2:80\"\n";
    let report = parse(text).unwrap_err();
    assert_eq!(
        report.to_string(),
        "some.toml:5:12: network lab: forward.\"tcp/80\" \"10.8.0.1:80\": a forward leads to an address of the \
         guests' subnet (and 1 more)"
    );
    assert_eq!(report.problems()[1].to_string(), "network lab: forward.\"tcp/x\": a port is 1 to 65535");
    let wrong = "[network.lab]\nkind = \"nat\"\nforward = 3\nfloating = { \"192.0.2.1\" = 7 }\n";
    assert_eq!(
        refused(wrong),
        [
            "network lab: forward: expected a table of \"PROTO/PORT\" = \"IP:PORT\", found a whole number",
            "network lab: floating.192.0.2.1: expected the name of a port in quotes, found a whole number",
        ]
    );
}

#[test]
fn members_of_a_bond_are_told_with_their_places() {
    let text = "[bond.b]\nmode = \"lacp\"\nmembers = [\"eth0\", \"eth0\"]\n";
    assert_eq!(
        parse(text).unwrap_err().to_string(),
        "some.toml:3:20: bond b: members.1 \"eth0\": this member is named twice"
    );
    assert_eq!(
        refused("[bond.b]\nmode = \"802.3ad\"\n"),
        ["bond b: mode \"802.3ad\": expected lacp or active-backup", "bond b: the key members is missing"]
    );
}
