//! Every pair of {vhost-user, tap, netdev, bond, NAT}, both ways, with offloads and without, tagged or not:
//! what goes in unfinished comes out as the same finished frames, byte for byte.
//!
//! A guest behind vhost-user is a driver of ours; behind the others is a packet socket that takes and gives
//! virtio headers, on an interface whose offloads are switched with ethtool. NAT stands at the end, with a
//! kernel's own TCP behind each kind of port.

use std::collections::HashMap;
use std::time::Duration;
use switchd_tests::frames::mac;
use switchd_tests::internet::{HOSTED, LAB, PORT, SERVER};
use switchd_tests::offload::{Kind, cut, frame, is_right, retag, unfinished};
use switchd_tests::vhost::{Driver, Nic, Shape};
use switchd_tests::{Card, Daemon, Lab, Setup, Space, eventually};
use switchd_wire::{Gso, VnetHeader};

const SOON: Duration = Duration::from_secs(10);

enum Behind {
    Guest(Box<Driver>),
    /// A socket, and the interfaces whose offloads decide: the far one when it sends, the switch's own when
    /// it is sent to.
    Card(Card, Vec<(String, String)>),
}

struct End {
    name: &'static str,
    mac: [u8; 6],
    behind: Behind,
    /// Takes superframes and gives them. Of a card: as set last.
    offloads: bool,
    /// Those of a guest are agreed once.
    fixed: bool,
}

impl End {
    fn guest(name: &'static str, number: u32, lab: &Lab, shape: Shape) -> End {
        let driver = Driver::connect(&lab.folder().join(name), shape);
        let offloads = shape.features == Shape::offloads().features;
        End { name, mac: mac(number), behind: Behind::Guest(Box::new(driver)), offloads, fixed: true }
    }

    fn card(name: &'static str, number: u32, far: (&Space, &str), own: Option<(&Space, &str)>) -> End {
        let card = Card::open(far.0, far.1);
        let named = |(space, interface): (&Space, &str)| (space.name().to_owned(), interface.to_owned());
        let interfaces = [Some(far), own].into_iter().flatten().map(named).collect();
        End { name, mac: mac(number), behind: Behind::Card(card, interfaces), offloads: true, fixed: false }
    }

    fn set_offloads(&mut self, on: bool) {
        let Behind::Card(_, interfaces) = &self.behind else { return };
        if self.offloads != on {
            let word = if on { "on" } else { "off" };
            for (space, interface) in interfaces {
                let words =
                    ["ip", "netns", "exec", space, "ethtool", "-K", interface, "tx", word, "tso", word];
                let words = [&words[..], &["gso", word, "tx-udp-segmentation", word]].concat();
                switchd_tests::run(&mut switchd_tests::command::command(&words), SOON).ok();
            }
            self.offloads = on;
        }
    }

    fn send(&mut self, vnet: &VnetHeader, frame: &[u8]) {
        match &mut self.behind {
            Behind::Card(card, _) => card.send(vnet, frame),
            Behind::Guest(driver) if self.offloads => driver.send(vnet, frame),
            // A guest without offloads finishes its frames by itself.
            Behind::Guest(driver) => {
                cut(vnet, frame).iter().for_each(|frame| driver.send(&VnetHeader::default(), frame));
            }
        }
    }

    fn received(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        match &mut self.behind {
            Behind::Card(card, _) => card.received(),
            Behind::Guest(driver) => driver.received(),
        }
    }

    /// The switch learns where it is.
    fn shows_itself(&mut self, tag: Option<u16>) {
        let hello = frame(Kind::Udp4, [0xff; 6], self.mac, tag, &[0; 20]);
        self.send(&VnetHeader::default(), &hello);
    }
}

/// Kind, bytes of payload, bytes of a segment (0: one frame).
const FRAMES: &[(Kind, usize, usize)] = &[
    (Kind::Udp4, 18, 0),
    (Kind::Tcp4, 1400, 0),
    (Kind::Udp6, 333, 0),
    (Kind::Tcp4, 20_001, 1400),
    (Kind::Tcp6, 30_000, 1000),
    (Kind::Tcp4, 61_000, 1448),
    (Kind::Udp4, 9_000, 1200),
];

/// Sends all of [`FRAMES`] from one end to another and holds what arrives against what was sent.
fn passes(from: &mut End, to: &mut End, tagged: (Option<u16>, Option<u16>)) {
    let case = format!(
        "{}{} to {}{}, tags {tagged:?}",
        from.name,
        if from.offloads { "" } else { " without offloads" },
        to.name,
        if to.offloads { "" } else { " without offloads" },
    );
    to.received();
    let (mut sent, mut wanted) = (0, Vec::new());
    for (number, &(kind, len, gso_size)) in FRAMES.iter().enumerate() {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251 + number) as u8).collect();
        let whole = frame(kind, to.mac, from.mac, tagged.0, &payload);
        let (vnet, open) = unfinished(&whole, gso_size);
        wanted.extend(cut(&vnet, &open).iter().map(|frame| retag(frame, tagged.1)));
        from.send(&vnet, &open);
        sent += 1;
    }
    let (mut whole, mut seen) = (0, Vec::new());
    eventually(SOON, || {
        for (vnet, frame) in to.received() {
            if frame[..12] != [to.mac, from.mac].concat() {
                continue;
            }
            assert!(to.offloads || (!vnet.needs_csum && vnet.gso == Gso::None), "{case}: {vnet:?} arrives");
            whole += usize::from(vnet.gso != Gso::None);
            seen.extend(cut(&vnet, &frame));
        }
        if seen.len() >= wanted.len() {
            Ok(())
        } else {
            Err(format!("{case}: {} of {}", seen.len(), wanted.len()))
        }
    });
    for (number, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
        assert!(is_right(seen), "{case}: frame {number} has a wrong length or checksum: {:x?}", head(seen));
        assert!(
            seen == wanted,
            "{case}: frame {number} is another: {:x?}, not {:x?}",
            head(seen),
            head(wanted)
        );
    }
    assert_eq!(seen.len(), wanted.len(), "{case}");
    let superframes = FRAMES.iter().filter(|frame| frame.2 > 0).count();
    let kept = if from.offloads && to.offloads { superframes } else { 0 };
    assert_eq!(whole, kept, "{case}: of {sent} frames that many arrive uncut");
}

fn head(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().min(80)]
}

/// All pairs of ends, both ways, each way of offloads that both can have.
fn all_pairs(ends: &mut [End], tagged: impl Fn(&str, &str) -> Option<(Option<u16>, Option<u16>)>) -> usize {
    let mut cases = 0;
    for ways in 0..4 {
        for one in 0..ends.len() {
            for two in 0..ends.len() {
                let Ok([from, to]) = ends.get_disjoint_mut([one, two]) else { continue };
                let Some(tags) = tagged(from.name, to.name) else { continue };
                let (out, into) = (ways & 1 == 0, ways & 2 == 0);
                // A tap's guest takes whatever it is sent.
                let impossible = |end: &End, wanted| end.fixed && end.offloads != wanted;
                if impossible(from, out) || impossible(to, into) || (to.name == "tap" && !into) {
                    continue;
                }
                from.set_offloads(out);
                to.set_offloads(into);
                passes(from, to, tags);
                cases += 1;
            }
        }
    }
    cases
}

struct Table {
    _switch: Daemon,
    _spaces: Vec<Space>,
    ends: Vec<End>,
}

/// Two guests, a tap, a netdev and, where the network has an uplink, a bond; `vlan` by port.
fn table(lab: &Lab, name: &str, network: &str, vlan: &[(&str, &str)]) -> Table {
    let vlan: HashMap<&str, &str> = vlan.iter().copied().collect();
    let [host, tap, veth, far] = ["host", "tap", "veth", "far"].map(|name| lab.space(name));
    lab.wire((&host, "n0"), (&veth, "n0"));
    lab.wire((&host, "m0"), (&far, "m0"));
    let switch = Setup::new(lab, &host, name).start();
    switch.do_("bond create b0 --members m0 --mode active-backup");
    switch.do_(network);
    let attach = |port: &str, how: &str| {
        let vlan = vlan.get(port).map_or(String::new(), |vlan| format!(" --vlan {vlan}"));
        switch.do_(&format!("port attach lab {port} {how}{vlan}"));
    };
    let socket = |name: &str| format!("--vhost-user {} --server", lab.folder().join(name).display());
    attach("guest", &socket("guest"));
    attach("bare", &socket("bare"));
    attach("tap", &format!("--tap eth0 --netns {}", tap.name()));
    attach("netdev", "--netdev n0");
    tap.ip(&["link", "set", "eth0", "up"]);
    let mut ends = vec![
        End::guest("guest", 1, lab, Shape::offloads()),
        End::guest("bare", 2, lab, Shape::bare()),
        End::card("tap", 3, (&tap, "eth0"), None),
        End::card("netdev", 4, (&veth, "n0"), Some((&host, "n0"))),
    ];
    if network.contains("b0") {
        ends.push(End::card("bond", 5, (&far, "m0"), Some((&host, "m0"))));
    }
    for port in ["guest", "bare", "tap", "netdev"] {
        switch.wait_port(port, "up");
    }
    Table { _switch: switch, _spaces: vec![host, tap, veth, far], ends }
}

#[test]
fn all_pairs_of_ports_keep_or_undo_offloads() {
    let Some(lab) = Lab::open(&["ethtool"]) else { return };
    let mut table = table(&lab, "all", "network create lab --kind bridged --uplink b0", &[]);
    table.ends.iter_mut().for_each(|end| end.shows_itself(None));
    table.ends.iter_mut().for_each(|end| end.shows_itself(Some(5)));
    let plain = all_pairs(&mut table.ends, |_, _| Some((None, None)));
    let tagged = all_pairs(&mut table.ends, |_, _| Some((Some(5), Some(5))));
    assert_eq!((plain, tagged), (44, 44), "cases");
}

#[test]
fn tags_are_pushed_and_popped_around_unfinished_frames() {
    let Some(lab) = Lab::open(&["ethtool"]) else { return };
    let vlan = [("guest", "access=10"), ("bare", "trunk=10"), ("tap", "access=10"), ("netdev", "trunk=10")];
    let mut ports = table(&lab, "there", "network create lab --kind isolated", &vlan);
    let tag = |name: &str| matches!(name, "bare" | "netdev").then_some(10);
    ports.ends.iter_mut().for_each(|end| end.shows_itself(tag(end.name)));
    let cases = all_pairs(&mut ports.ends, |from, to| Some((tag(from), tag(to))));
    assert_eq!(cases, 22, "cases");
    drop(ports);
    // The other way round, and the bond as a VLAN's uplink.
    let vlan = [("guest", "trunk=10"), ("bare", "access=10"), ("tap", "trunk=10"), ("netdev", "access=10")];
    let mut ports = table(&lab, "back", "network create lab --kind isolated", &vlan);
    let tag = |name: &str| matches!(name, "guest" | "tap").then_some(10);
    ports.ends.iter_mut().for_each(|end| end.shows_itself(tag(end.name)));
    let cases = all_pairs(&mut ports.ends, |from, to| Some((tag(from), tag(to))));
    assert_eq!(cases, 22, "cases");
    drop(ports);
    let mut ports = table(&lab, "uplink", "network create lab --kind bridged --uplink b0 --vlan 20", &[]);
    let tag = |name: &str| (name == "bond").then_some(20);
    ports.ends.iter_mut().for_each(|end| end.shows_itself(tag(end.name)));
    let with_bond = |one: &str, two: &str| one == "bond" || two == "bond";
    let cases = all_pairs(&mut ports.ends, |from, to| with_bond(from, to).then_some((tag(from), tag(to))));
    assert_eq!(cases, 22, "cases");
}

/// Whatever a guest's port is, and whatever the way out: a file each way, and datagrams.
#[test]
fn guests_of_every_kind_go_out_by_nat_in_superframes_or_not() {
    let Some(lab) = Lab::open(&["ethtool"]) else { return };
    for (name, line) in [("outside", LAB), ("hosted", HOSTED)] {
        let mut internet = lab.internet();
        internet.start();
        let switch = Setup::new(&lab, &internet.host, name).start();
        switch.do_(line);
        let [guest, bare, tap, netdev] = ["guest", "bare", "tap", "netdev"].map(|name| lab.space(name));
        let nic = |port: &str, space: &Space, shape| {
            let socket = lab.folder().join(port);
            switch.do_(&format!("port attach lab {port} --vhost-user {} --server", socket.display()));
            let nic = Nic::plug(&lab, space, "eth0", &socket, shape);
            switch.wait_port(port, "up");
            nic
        };
        let nics = [nic("guest", &guest, Shape::offloads()), nic("bare", &bare, Shape::bare())];
        switch.guest("lab", "tap", &tap, "");
        lab.wire((&internet.host, "n0"), (&netdev, "eth0"));
        switch.do_("port attach lab netdev --netdev n0");
        for (number, space) in [&guest, &bare, &tap, &netdev].into_iter().enumerate() {
            space.address("eth0", &format!("10.7.0.{}/24", 20 + number));
            space.ip(&["route", "add", "default", "via", "10.7.0.1"]);
            space.reaches(SERVER);
            let words = space.talk("put", SERVER, PORT, &["2000000"]);
            let (theirs, ours) = words.split_once(' ').expect("two digests");
            assert_eq!(theirs, ours, "{line}: {}: what arrived is not what was sent", space.name());
            let direct = internet.host.talk("get", SERVER, PORT, &["2000000"]);
            assert_eq!(space.talk("get", SERVER, PORT, &["2000000"]), direct, "{line}: {}", space.name());
            assert_eq!(space.talk("udp", SERVER, PORT, &["3"]).lines().count(), 3, "{line}");
        }
        let sizes = |port: &str| {
            let count = |key| switch.count(port, key);
            (count("rx_bytes") / count("rx_frames"), count("tx_bytes") / count("tx_frames"))
        };
        let (whole, cut) = (sizes("guest"), sizes("bare"));
        assert!(whole.0 > 2 * cut.0 && whole.1 > cut.1, "{line}: bytes a frame: {whole:?}, {cut:?}");
        drop(nics);
    }
}
