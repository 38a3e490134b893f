//! Guests that move between two ports of the switch while they talk, and packed rings that outlive its crash.

use crate::vm::{image, pings};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchd_tests::command::run_with_input;
use switchd_tests::{Background, Daemon, Lab, Space, eventually};

const PROGRAMS: [&str; 5] = ["qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb"];
const PATIENCE: Duration = Duration::from_secs(90);
const GUEST: &str = "10.1.0.5";

/// A guest that pings the tap's address, and what its monitor listens at.
struct Machine {
    process: Background,
    monitor: PathBuf,
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

impl Machine {
    /// `device`: further properties of its network interface.
    fn boot(host: &Space, folder: &Path, name: &str, device: &str, more: &[&str]) -> Machine {
        let (image, socket) = (image(), folder.join(format!("vh-{name}")));
        let monitor = folder.join(format!("monitor-{name}"));
        let append = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable ip=10.1.0.5/24 ping=10.1.0.1";
        let (chardev, listen) = (
            format!("socket,id=c0,path={},reconnect=1", path(&socket)),
            format!("unix:{},server=on,wait=off", path(&monitor)),
        );
        // QEMU 7.2 crashes with MSI-X under software emulation.
        let nic = format!(
            "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:05,romfile=,vectors=0,host_mtu=1500{device}"
        );
        let (kernel, initrd) = (image.join("vmlinuz"), image.join("initrd.gz"));
        let mut words = vec![
            "qemu-system-x86_64",
            "-M",
            "q35,accel=tcg",
            "-cpu",
            "max",
            "-m",
            "128",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-kernel",
            path(&kernel),
            "-initrd",
            path(&initrd),
            "-append",
            append,
            "-serial",
            "stdio",
            "-object",
            "memory-backend-memfd,id=mem,size=128M,share=on",
            "-machine",
            "memory-backend=mem",
            "-chardev",
            &chardev,
            "-netdev",
            "vhost-user,id=n0,chardev=c0",
            "-device",
            &nic,
            "-monitor",
            &listen,
        ];
        words.extend_from_slice(more);
        let process = host.background(&words);
        Machine { process, monitor }
    }

    /// What the monitor answers to a line; it echoes the line first.
    fn ask(&self, line: &str) -> String {
        let mut stream =
            eventually(PATIENCE, || UnixStream::connect(&self.monitor).map_err(|e| e.to_string()));
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        let mut heard = String::new();
        let mut hear = |stream: &mut UnixStream, prompts: usize| {
            let begun = Instant::now();
            while heard.matches("(qemu) ").count() < prompts && begun.elapsed() < PATIENCE {
                let mut bytes = [0; 4096];
                if let Ok(len) = stream.read(&mut bytes) {
                    heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
                }
            }
        };
        hear(&mut stream, 1);
        stream.write_all(format!("{line}\n").as_bytes()).expect("the monitor listens");
        hear(&mut stream, 2);
        heard
    }
}

/// A MiB by TCP to the guest and back. It is sent in superframes whose checksum nobody looks at: what the
/// guest's memory lost on its way would be seen here.
fn echo(space: &Space, data: &[u8]) {
    let back = eventually(PATIENCE, || {
        let output =
            run_with_input(&mut space.command(&["busybox", "nc", "-w", "5", GUEST, "7"]), data, PATIENCE);
        // Its server takes one connection, and needs a moment to listen again.
        if output.stderr.contains("refused") { Err("refused".to_owned()) } else { Ok(output.ok().stdout) }
    });
    assert!(back == data, "{} bytes of {} came back, or others", back.len(), data.len());
}

fn data() -> Vec<u8> {
    (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn a_guest_that_moves_while_it_talks_loses_no_byte_and_is_found_at_its_new_port() {
    for (packed, announces) in [(false, false), (true, true)] {
        let Some(lab) = Lab::alone(&PROGRAMS) else { return };
        let (host, t) = (lab.space("host"), lab.space("t"));
        let switch = Daemon::start(&lab, &host);
        switch.do_("network create lab --kind isolated");
        switch.guest("lab", "t", &t, "10.1.0.1/24");
        let folder = lab.folder();
        for port in ["a", "b"] {
            let socket = folder.join(format!("vh-{port}"));
            switch.do_(&format!("port attach lab {port} --vhost-user {} --server", path(&socket)));
        }
        let on = |yes| if yes { "on" } else { "off" };
        let device = format!(",packed={},guest_announce={}", on(packed), on(announces));
        let source = Machine::boot(&host, folder, "a", &device, &[]);
        pings(&source.process, 2);
        switch.wait_port("a", "up");
        let way = format!("unix:{}", path(&folder.join("way")));
        let target = Machine::boot(&host, folder, "b", &device, &["-incoming", &way]);
        eventually(PATIENCE, || match folder.join("way").exists() {
            true => Ok(()),
            false => Err(format!("the target does not listen: {}", target.process.stderr())),
        });
        // Slow enough that the guest's memory changes under the copy.
        source.ask("migrate_set_parameter max-bandwidth 24M");
        let heard = t.background(&["tcpdump", "-lnc", "1", "-i", "eth0", "rarp"]);
        let (moved, data) = (AtomicBool::new(false), data());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !moved.load(Ordering::Relaxed) {
                    echo(&t, &data);
                }
            });
            source.ask(&format!("migrate -d {way}"));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                eventually(PATIENCE, || {
                    let said = source.ask("info migrate");
                    assert!(!said.contains("Migration status: failed"), "{said}");
                    if said.contains("Migration status: completed") { Ok(()) } else { Err(said) }
                });
            }));
            moved.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        switch.wait_port("b", "up");
        switch.wait_port("a", "down");
        t.reaches(GUEST);
        echo(&t, &data);
        pings(&target.process, 2);
        if !announces {
            eventually(PATIENCE, || match heard.stdout() {
                text if text.contains("52:54:00:00:00:05") => Ok(()),
                text => Err(format!("no announcement: {text}{}", heard.stderr())),
            });
        }
        let events = switch.ctl(&["events"]).text();
        for (kind, port) in
            [("port.guest-connected", "a"), ("port.guest-left", "a"), ("port.guest-connected", "b")]
        {
            let told =
                events.lines().any(|line| line.contains(kind) && line.contains(&format!("port {port}")));
            assert!(told, "no {kind} of {port}:\n{events}");
        }
        for port in ["a", "b"] {
            assert_eq!(switch.count(port, "unreadable"), 0);
        }
    }
}

#[test]
fn a_guest_with_packed_rings_outlives_crashes_of_the_switch() {
    let Some(lab) = Lab::alone(&PROGRAMS) else { return };
    let (host, t) = (lab.space("host"), lab.space("t"));
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "t", &t, "10.1.0.1/24");
    let socket = lab.folder().join("vh-a");
    switch.do_(&format!("port attach lab a --vhost-user {} --server", path(&socket)));
    let machine = Machine::boot(&host, lab.folder(), "a", ",packed=on", &[]);
    pings(&machine.process, 2);
    let data = data();
    // Each finds the rings at another place: after little, and after many laps.
    for _ in 0..2 {
        switch.crash();
        switch.restart();
        switch.wait_port("a", "up");
        t.reaches(GUEST);
        echo(&t, &data);
    }
    let seen = machine.process.stdout().matches("bytes from").count();
    pings(&machine.process, seen + 2);
    // Only the half that handles frames.
    switchd_tests::command::kill(switch.dataplane_pid(), nix::sys::signal::Signal::SIGKILL);
    t.reaches(GUEST);
    echo(&t, &data);
    assert_eq!(switch.count("a", "unreadable"), 0);
}
