//! The exposition, read back as `promtool check metrics` would.

use super::*;
use std::collections::HashMap;
use switchd_api::model::{Kind, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::reply::{MirrorCounters, NetworkCounters};

fn sample() -> Sample {
    let status = Status {
        version: "0.1.0\"\\\n".into(),
        pid: 1,
        dataplane_pid: 2,
        dataplane_restarts: 3,
        uptime: 60,
        mode: "root".into(),
        workers: 1,
        networks: 1,
        ports: 2,
        ports_up: 1,
        mirrors: 1,
        bonds: 1,
        bonds_up: 1,
        troubles: Vec::new(),
        config_differs: false,
        confirm_within: None,
        state_dir: "/s".into(),
        capture_dir: "/s/captures".into(),
        sandbox: Vec::new(),
    };
    let counters = PortCounters {
        rx_frames: 10,
        rx_bytes: u64::MAX,
        forwarded: 7,
        flooded: 1,
        dropped_in: BTreeMap::from([("runt".into(), 2)]),
        dropped_out: BTreeMap::from([("queue-full".into(), 5)]),
        ..PortCounters::default()
    };
    let network: switchd_api::Name = "lab".parse().unwrap();
    let spec = PortSpec { tap: Some("vm1".into()), mac_limit: Some(8), ..PortSpec::on(network.clone()) };
    let port = PortStatus {
        name: "vm1".into(),
        spec,
        state: Link::Up,
        reason: None,
        backend: "tap".into(),
        address: None,
        mtu: 1500,
        carrier: true,
        addresses_learned: 4,
        worker: 0,
        counters,
        neighbors: Vec::new(),
        kernel: BTreeMap::new(),
    };
    let uplink = PortStatus { name: "uplink:e\"0".into(), backend: "uplink".into(), ..port.clone() };
    let spec = NetworkSpec { kind: Kind::Bridged, ..NetworkSpec::default() };
    let network = NetworkStatus {
        name: network,
        spec,
        state: Link::Down,
        reason: None,
        ports: vec!["vm1".into()],
        worker: 0,
        counters: NetworkCounters { addresses: 4, ..NetworkCounters::default() },
        nat: Some(Box::new(NatStatus {
            flows: 21,
            flow_limit: 22,
            leases: 23,
            translation: BTreeMap::from([("created".into(), 24)]),
            dhcp: BTreeMap::from([("ack".into(), 25)]),
            ..NatStatus::default()
        })),
    };
    let spec = MirrorSpec {
        source: vec!["port:vm1".into()],
        direction: None,
        to: "pcap:a".into(),
        filter: None,
        snaplen: None,
        segment: false,
        rotate_size: None,
        rotate_time: None,
        rotate_count: None,
    };
    let mirror = MirrorStatus {
        name: "m".parse().unwrap(),
        spec,
        state: "failing".into(),
        last_error: None,
        file: None,
        counters: MirrorCounters { seen: 9, copied: 8, lost: 1, ..MirrorCounters::default() },
    };
    let member = MemberStatus {
        interface: "eth0".into(),
        carrier: true,
        collecting: true,
        distributing: false,
        reason: None,
        machines: BTreeMap::new(),
        actor: None,
        partner: None,
        protocol: BTreeMap::from([("lacpdu-rx".into(), 31)]),
        counters: PortCounters::default(),
        neighbors: Vec::new(),
    };
    let bond = BondStatus {
        name: "bond0".parse().unwrap(),
        spec: serde_json::from_str(r#"{"members":["eth0"],"mode":"lacp"}"#).unwrap(),
        state: Link::Up,
        reason: None,
        networks: Vec::new(),
        worker: 0,
        actor_system: None,
        partner_system: None,
        links: vec![member],
        peer_state: None,
    };
    let worker = WorkerStatus {
        worker: 0,
        networks: vec!["lab".into()],
        frames: 11,
        busy_cycles: 12,
        bursts: 13,
        sleeps: 14,
        load: 0.5,
    };
    Sample {
        status,
        networks: vec![network],
        ports: vec![port, uplink],
        bonds: vec![bond],
        mirrors: vec![mirror],
        workers: vec![worker],
        process: Process { resident_bytes: Some(4096), open_fds: Some(9) },
    }
}

/// Samples by name and labels; panics at what a scraper would refuse.
fn read(text: &str) -> HashMap<String, String> {
    assert!(text.ends_with('\n'));
    let mut described: HashMap<&str, (bool, Option<&str>)> = HashMap::new();
    let mut samples = HashMap::new();
    let mut family = "";
    for line in text.lines().filter(|&line| line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && described.insert(name, (true, None)).is_none(), "twice: {line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            let entry = described.get_mut(name).unwrap_or_else(|| panic!("no HELP before {line}"));
            assert!(entry.1.replace(kind).is_none(), "{line}");
            family = name;
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let name = key.split('{').next().unwrap();
        assert_eq!(
            name.strip_suffix("_total").unwrap_or(name),
            family.strip_suffix("_total").unwrap_or(family)
        );
        let kind = described[family].1.unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        if let Some((_, labels)) = key.split_once('{') {
            check_labels(labels.strip_suffix('}').unwrap());
        }
        assert!(samples.insert(key.to_owned(), value.to_owned()).is_none(), "twice: {key}");
    }
    samples
}

/// `a="x",b="y"`, with `\`, `"` and line ends escaped.
fn check_labels(mut text: &str) {
    loop {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("no label: {text}"));
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        let mut escaped = false;
        let end = rest.find(|c: char| {
            if escaped {
                assert!(['\\', '"', 'n'].contains(&c), "{rest}");
                escaped = false;
                return false;
            }
            escaped = c == '\\';
            c == '"'
        });
        text = &rest[end.unwrap_or_else(|| panic!("open label: {rest}")) + 1..];
        match text.strip_prefix(',') {
            Some(next) => text = next,
            None => break assert!(text.is_empty(), "{text}"),
        }
    }
}

#[test]
fn the_text_format_is_sound_and_holds_the_promised_names() {
    let text = exposition(sample(), false).unwrap();
    let samples = read(&text);
    for (key, value) in [
        (r#"switchd_port_rx_frames_total{port="vm1",network="lab"}"#, "10"),
        (r#"switchd_port_rx_bytes_total{port="vm1",network="lab"}"#, "18446744073709551615"),
        (r#"switchd_port_tx_frames_total{port="vm1",network="lab"}"#, "0"),
        (r#"switchd_port_dropped_total{port="vm1",network="lab",direction="in",reason="runt"}"#, "2"),
        (r#"switchd_port_dropped_total{port="vm1",network="lab",direction="out",reason="queue-full"}"#, "5"),
        (r#"switchd_port_rx_frames_total{port="uplink:e\"0",network=""}"#, "10"),
        (r#"switchd_network_fdb_limit{network="lab"}"#, "16384"),
        (r#"switchd_port_fdb_limit{port="vm1",network="lab"}"#, "8"),
        (r#"switchd_nat_flows{network="lab"}"#, "21"),
        (r#"switchd_nat_flow_limit{network="lab"}"#, "22"),
        (r#"switchd_nat_leases{network="lab"}"#, "23"),
        (r#"switchd_nat_translation_total{network="lab",event="created"}"#, "24"),
        (r#"switchd_dhcp_total{network="lab",event="ack"}"#, "25"),
        (r#"switchd_bond_up{bond="bond0"}"#, "1"),
        (r#"switchd_bond_member_collecting{bond="bond0",member="eth0"}"#, "1"),
        (r#"switchd_bond_member_distributing{bond="bond0",member="eth0"}"#, "0"),
        (r#"switchd_bond_member_protocol_total{bond="bond0",member="eth0",event="lacpdu-rx"}"#, "31"),
        (r#"switchd_mirror_lost_total{mirror="m"}"#, "1"),
        (r#"switchd_mirror_running{mirror="m"}"#, "0"),
        (r#"switchd_worker_frames_total{worker="0"}"#, "11"),
        (r#"switchd_worker_busy_cycles_total{worker="0"}"#, "12"),
        ("switchd_dataplane_restarts_total", "3"),
        (r#"switchd_build_info{version="0.1.0\"\\\n",mode="root"}"#, "1"),
        ("process_resident_memory_bytes", "4096"),
        ("process_open_fds", "9"),
    ] {
        assert_eq!(samples.get(key).map(String::as_str), Some(value), "{key}\n{text}");
    }
    assert!(text.contains("# TYPE switchd_worker_busy_cycles_total counter\n"), "{text}");
    assert!(!text.contains("# EOF"));
}

#[test]
fn the_open_metrics_format_differs_in_descriptions_only() {
    let open = exposition(sample(), true).unwrap();
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE switchd_worker_busy_cycles counter\n"));
    assert_eq!(read(&open), read(&exposition(sample(), false).unwrap()));
}

#[test]
fn the_own_process_is_seen() {
    let process = Process::read();
    assert!(process.resident_bytes.unwrap() > 100_000);
    assert!(process.open_fds.unwrap() >= 3);
}
