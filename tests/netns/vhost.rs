//! vhost-user ports: DPDK's virtio-user driver, and QEMU guests with a kernel of their own.

use crate::vm::{image, pings};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use switchd_tests::command::run_with_input;
use switchd_tests::{Background, Daemon, Lab, Space, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a plain path").to_owned()
}

/// How the driver and testpmd are set up.
struct Variant {
    driver: &'static str,
    length: &'static str,
    /// Of each ring.
    size: u16,
    queues: u8,
    more: &'static [&'static str],
}

const PLAIN: Variant = Variant { driver: "", length: "64", size: 256, queues: 2, more: &[] };
/// Frames of 8,900 bytes.
const LARGE: &[&str] = &["--mbuf-size=9500", "--max-pkt-len=9018"];

const VARIANTS: &[Variant] = &[
    PLAIN,
    Variant { length: "1514", ..PLAIN },
    Variant { length: "700,500", ..PLAIN },
    Variant { length: "8900", more: LARGE, ..PLAIN },
    Variant { driver: ",mrg_rxbuf=0", length: "1514", ..PLAIN },
    Variant { driver: ",in_order=1", ..PLAIN },
    Variant { driver: ",mrg_rxbuf=0,in_order=1", length: "300", ..PLAIN },
    Variant { driver: ",queues=2", more: &["--rxq=2", "--txq=2"], ..PLAIN },
    Variant { driver: ",queues=8", queues: 8, size: 1024, more: &["--rxq=8", "--txq=8"], ..PLAIN },
    Variant { driver: ",packed_vq=1", ..PLAIN },
    Variant { driver: ",packed_vq=1,mrg_rxbuf=0", length: "1514", ..PLAIN },
    Variant { driver: ",packed_vq=1,in_order=1", length: "700,500", ..PLAIN },
    Variant { driver: ",packed_vq=1,queues=2", more: &["--rxq=2", "--txq=2"], ..PLAIN },
];

/// Two guests' NICs in one testpmd, each sending the other's frames back.
fn generator(host: &Space, name: &str, one: &str, two: &str, variant: &Variant) -> Background {
    let Variant { driver, length, size, more, .. } = variant;
    let vdev = |number: u8, socket: &str, server: u8| {
        format!(
            "--vdev=net_virtio_user{number},path={socket},mac=02:00:00:00:00:0{},queue_size={size},server={server}{driver}",
            1 - number
        )
    };
    let prefix = format!("--file-prefix={name}");
    let txpkts = format!("--txpkts={length}");
    let (first, second) = (vdev(0, one, 0), vdev(1, two, 1));
    let mut words = vec![
        "dpdk-testpmd",
        "--lcores=(0,1)@0",
        "--main-lcore=0",
        &prefix,
        "--no-pci",
        "--no-telemetry",
        "--no-huge",
        "-m",
        "320",
        &first,
        &second,
        "--",
        "--nb-cores=1",
        "--forward-mode=io",
        &txpkts,
        "--burst=32",
        "-i",
        "--no-lsc-interrupt",
        "--total-num-mbufs=20000",
    ];
    words.extend_from_slice(more);
    let mut command = host.command(&words);
    command.stdin(Stdio::piped());
    Background::start(&mut command)
}

fn say(generator: &mut Background, line: &str) {
    let stdin = generator.child().stdin.as_mut().expect("it is piped");
    writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("testpmd listens");
}

#[test]
fn testpmd_behind_both_kinds_of_socket_loses_no_frame() {
    let Some(lab) = Lab::alone(&["dpdk-testpmd"]) else { return };
    let host = lab.space("host");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.do_("network set lab mtu=9000");
    let (one, two) = (path(lab.folder(), "vh0"), path(lab.folder(), "vh1"));
    for variant in VARIANTS {
        // A forwarder between two ports is a loop, which would be shut where it lives long enough to meet a probe.
        let more = format!("--loop-guard off --queues {}", variant.queues);
        switch.do_(&format!("port attach lab a --vhost-user {one} --server {more}"));
        let said = switch.do_(&format!("port attach lab b --vhost-user {two} {more}")).text();
        assert!(said.contains("memory-backend-memfd") && said.contains(&two), "{said}");
        eventually(PATIENCE, || match &switch.port("b")["reason"] {
            Value::String(reason) if reason.contains("vh1") => Ok(()),
            other => Err(other.to_string()),
        });
        let mut generator = generator(&host, &lab.name("gen"), &one, &two, variant);
        switch.wait_port("a", "up");
        switch.wait_port("b", "up");
        let before = (switch.count("a", "tx_frames"), switch.count("b", "tx_frames"));
        eventually(PATIENCE, || match generator.stdout().contains("testpmd>") {
            true => Ok(()),
            false => Err(generator.stdout()),
        });
        say(&mut generator, "start tx_first 2");
        eventually(PATIENCE, || {
            let now = (switch.count("a", "tx_frames"), switch.count("b", "tx_frames"));
            match now.0 > before.0 + 10_000 && now.1 > before.1 + 10_000 {
                true => Ok(()),
                false => Err(format!("{now:?} frames\n{}", generator.stdout())),
            }
        });
        // Before the end: what is under way when the driver stops its rings goes nowhere.
        for port in ["a", "b"] {
            let lost = switch.count(port, "out queue-full") + switch.count(port, "unreadable");
            assert_eq!(
                lost,
                0,
                "{driver} {length}: {}",
                switch.port(port),
                driver = variant.driver,
                length = variant.length
            );
        }
        say(&mut generator, "stop");
        say(&mut generator, "quit");
        generator.finish(PATIENCE);
        switch.wait_port("a", "down");
        switch.wait_port("b", "down");
        // The next variant begins with a switch that has counted nothing.
        switch.do_("port detach a");
        switch.do_("port detach b");
    }
}

/// Boots a guest whose chardev has these options.
fn boot(host: &Space, chardev: &str, mac: &str, address: &str, target: &str) -> Background {
    boot_with(host, chardev, mac, &format!("ip={address} ping={target}"))
}

/// Boots a guest with these words for its init.
pub fn boot_with(host: &Space, chardev: &str, mac: &str, words: &str) -> Background {
    boot_as(host, chardev, mac, words, ("", ""))
}

/// The same, with more for `-netdev` and `-device`.
fn boot_as(host: &Space, chardev: &str, mac: &str, words: &str, more: (&str, &str)) -> Background {
    let image = image();
    let append = format!("console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable {words}");
    host.background(&[
        "qemu-system-x86_64",
        "-M",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-kernel",
        &path(&image, "vmlinuz"),
        "-initrd",
        &path(&image, "initrd.gz"),
        "-append",
        &append,
        "-serial",
        "stdio",
        "-object",
        "memory-backend-memfd,id=mem,size=256M,share=on",
        "-machine",
        "memory-backend=mem",
        "-chardev",
        &format!("socket,id=c0,{chardev}"),
        "-netdev",
        &format!("vhost-user,id=n0,chardev=c0{}", more.0),
        "-device",
        // QEMU 7.2 crashes with MSI-X under software emulation.
        &format!("virtio-net-pci,netdev=n0,mac={mac},romfile=,vectors=0{}", more.1),
    ])
}

/// Sends what it is given and reads what comes back at the same time. (netcat reads nothing while it waits for
/// room to send; an echo of more than the buffers hold then stops for ever.)
const ECHO: &str = r#"
import socket, sys, threading
data = sys.stdin.buffer.read()
link = socket.create_connection((sys.argv[1], 7))
def send():
    link.sendall(data)
    link.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
while piece := link.recv(1 << 16):
    sys.stdout.buffer.write(piece)
"#;

/// 8 MiB by TCP to the guest and back: each way in superframes whose checksums are left open.
fn echoes(space: &Space, address: &str) {
    let data: Vec<u8> = (0..8u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut echo = space.command(&["python3", "-c", ECHO, address]);
    let back = run_with_input(&mut echo, &data, PATIENCE).ok().stdout;
    assert!(back == data, "{} bytes of {} came back, or others", back.len(), data.len());
}

#[test]
fn qemu_guests_with_several_queues_work_and_outlive_a_crash_of_the_switch() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb"];
    let Some(lab) = Lab::alone(&programs) else { return };
    let (host, t) = (lab.space("host"), lab.space("t"));
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "t", &t, "10.1.0.1/24");
    let (one, two) = (path(lab.folder(), "vh0"), path(lab.folder(), "vh1"));
    switch.do_(&format!("port attach lab a --vhost-user {one} --server --queues 4"));
    switch.do_(&format!("port attach lab b --vhost-user {two} --queues 4"));
    let boot = |chardev: &str, mac: &str, words: &str, more: &str| {
        boot_as(&host, chardev, mac, words, (",queues=4", &format!(",mq=on{more}")))
    };
    let chardev = format!("path={one},reconnect=1");
    let a = boot(&chardev, "52:54:00:00:00:01", "ip=10.1.0.5/24 ping=10.1.0.6", "");
    let chardev = format!("path={two},server=on,wait=off");
    let b = boot(&chardev, "52:54:00:00:00:02", "ip=10.1.0.6/24 ping=10.1.0.5", ",packed=on");
    for round in 0..2 {
        let seen = [&a, &b].map(|guest| guest.stdout().matches("bytes from").count());
        for (guest, seen) in [&a, &b].into_iter().zip(seen) {
            pings(guest, seen + 3);
        }
        for address in ["10.1.0.5", "10.1.0.6"] {
            t.reaches(address);
            echoes(&t, address);
        }
        if round == 0 {
            switch.crash();
            switch.restart();
            switch.wait_port("a", "up");
            switch.wait_port("b", "up");
        }
    }
    drop((a, b));
}

#[test]
fn qemu_guests_talk_to_each_other_and_to_a_tap_and_outlive_a_crash_of_the_switch() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb"];
    let Some(lab) = Lab::alone(&programs) else { return };
    let (host, t) = (lab.space("host"), lab.space("t"));
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "t", &t, "10.1.0.1/24");
    let (one, two) = (path(lab.folder(), "vh0"), path(lab.folder(), "vh1"));
    switch.do_(&format!("port attach lab a --vhost-user {one} --server"));
    switch.do_(&format!("port attach lab b --vhost-user {two}"));
    let a = boot(&host, &format!("path={one},reconnect=1"), "52:54:00:00:00:01", "10.1.0.5/24", "10.1.0.6");
    let chardev = format!("path={two},server=on,wait=off");
    let b = boot(&host, &chardev, "52:54:00:00:00:02", "10.1.0.6/24", "10.1.0.5");
    pings(&a, 3);
    pings(&b, 3);
    t.reaches("10.1.0.5");
    t.reaches("10.1.0.6");
    echoes(&t, "10.1.0.5");
    // Fragments of a large packet.
    t.run(&["ping", "-c", "3", "-i", "0.2", "-s", "20000", "10.1.0.6"]).ok();
    let (frames, bytes) = (switch.count("a", "tx_frames"), switch.count("a", "tx_bytes"));
    assert!(bytes / frames > 4000, "superframes go whole: {bytes} bytes in {frames} frames");
    for port in ["a", "b"] {
        assert_eq!(switch.count(port, "unreadable"), 0);
    }
    switch.crash();
    let seen = a.stdout().matches("bytes from").count();
    switch.restart();
    switch.wait_port("a", "up");
    switch.wait_port("b", "up");
    pings(&a, seen + 5);
    t.reaches("10.1.0.6");
    // The guest ends, and comes again.
    drop(b);
    switch.wait_port("b", "down");
    let b = boot(&host, &chardev, "52:54:00:00:00:02", "10.1.0.6/24", "10.1.0.5");
    pings(&b, 3);
    switch.wait_port("b", "up");
    switch.do_("port detach a");
    assert!(!Path::new(&one).exists(), "the socket that was made is removed");
    drop((a, b));
}
