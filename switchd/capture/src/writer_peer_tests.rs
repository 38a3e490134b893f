//! What Wireshark's tools make of our files. Not run where they are not installed.

use super::live::live;
use super::*;
use std::io::Write;
use std::process::{Command, Stdio};
use switchd_wire::{Gso, VnetHeader};

fn installed(tool: &str, test: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        not_run(test, &format!("{tool} is not installed"));
    }
    there
}

/// Lines that the tool prints; it must succeed and must not complain about the file.
fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert!(!complaint.contains("cut short") && !complaint.contains("damaged"), "{complaint}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// An Ethernet/IPv4/UDP frame of 60 bytes.
fn udp() -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 53, 0, 26, 0, 0]);
    bytes.resize(60, 0);
    bytes
}

fn fill(bench: &mut Bench, path: &str) {
    let mut producer = bench.capture("m", path, Rotation::default());
    producer.interface(0, "vm1", "tap vm1.0 of lab");
    producer.interface(1, "vm2", "");
    let stamp = 1_700_000_000_123_456_789;
    let mut frame = Frame::from_bytes(&udp()).unwrap();
    for (interface, outgoing, gso) in [(0, false, false), (1, true, false), (0, true, true)] {
        frame.vnet = VnetHeader::default();
        if gso {
            frame.vnet =
                VnetHeader { gso: Gso::UdpL4, gso_size: 1448, needs_csum: true, ..VnetHeader::default() };
        }
        producer.push(Meta { interface, outgoing, timestamp: stamp }, &frame, &NoTails, 50, false);
    }
    producer.filtered(1);
    bench.hand_over(&mut producer);
    drop(producer);
    bench.writer.remove("m").unwrap();
}

#[test]
fn tshark_reads_names_directions_nanoseconds_and_marks() {
    if !installed("tshark", "tshark_reads_names_directions_nanoseconds_and_marks") {
        return;
    }
    let mut bench = Bench::new();
    fill(&mut bench, "lab.pcapng");
    let fields = [
        "frame.interface_name",
        "frame.interface_description",
        "frame.packet_flags",
        "frame.time_epoch",
        "frame.cap_len",
        "frame.len",
        "frame.comment",
    ];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(bench.at("lab.pcapng")).args(["-T", "fields", "-E", "separator=|"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let found = lines(&mut command);
    assert_eq!(
        found,
        [
            "vm1|tap vm1.0 of lab|0x00000001|1700000000.123456789|50|60|",
            "vm2||0x00000002|1700000000.123456789|50|60|",
            "vm1|tap vm1.0 of lab|0x00000a02|1700000000.123456789|50|60|GSO udp 1448",
        ]
    );
}

#[test]
fn capinfos_counts_sections_interfaces_and_drops() {
    if !installed("capinfos", "capinfos_counts_sections_interfaces_and_drops") {
        return;
    }
    let mut bench = Bench::new();
    fill(&mut bench, "lab.pcapng");
    fill(&mut bench, "lab.pcapng");
    let found = lines(Command::new("capinfos").arg(bench.at("lab.pcapng"))).join("\n");
    for expected in [
        "Number of packets:   6",
        "Name = vm1",
        "Name = vm2",
        "Time precision = nanoseconds (9)",
        "Number of packets = 2",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn tshark_follows_a_live_stream() {
    if !installed("tshark", "tshark_follows_a_live_stream") {
        return;
    }
    for source in [["-r", "-"], ["-i", "-"]] {
        let mut bench = Bench::new();
        let (mut producer, stream) = live(&bench, Some(40), 1000);
        producer.interface(0, "vm1", "");
        producer.interface(1, "vm2", "");
        let frame = Frame::from_bytes(&udp()).unwrap();
        let mut tshark = Command::new("tshark")
            .args(source)
            .args(["-l", "-T", "fields", "-e", "frame.interface_name"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = tshark.stdin.take().unwrap();
        let feed = std::thread::spawn(move || {
            for piece in stream {
                if pipe.write_all(&piece).and_then(|()| pipe.flush()).is_err() {
                    return;
                }
            }
        });
        for round in 0..40 {
            let meta = Meta { interface: round / 20, outgoing: false, timestamp: 1_700_000_000_000_000_000 };
            producer.push(meta, &frame, &NoTails, 262_144, false);
            bench.hand_over(&mut producer);
            // Slower than the writer: the ring has 32 chunks.
            bench.until("live", |status| status.counters.bytes == 60 * (u64::from(round) + 1));
        }
        drop(producer);
        feed.join().unwrap();
        let output = tshark.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let count = |name: &str| text.lines().filter(|line| *line == name).count();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{source:?}: {complaint}");
        assert_eq!((count("vm1"), count("vm2")), (20, 20), "{source:?}: {text}\n{complaint}");
        bench.writer.remove("live").unwrap();
    }
}
