//! Mirrors and live captures, read by tshark.

use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;
use switchd_tests::frames::{BROADCAST, mac, marked};
use switchd_tests::peers::{tshark, tshark_raw};
use switchd_tests::{Background, Daemon, Lab, Setup, Sniffer, Space, command, eventually};

const SOON: Duration = Duration::from_secs(10);

/// Two guests that can talk, and the daemon, which has to go first.
fn pair(lab: &Lab) -> (Space, Space, Space, Daemon) {
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "a", &a, "10.1.0.1/24");
    switch.guest("lab", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    (host, a, b, switch)
}

fn capture(switch: &Daemon, name: &str) -> PathBuf {
    switch.setup().captures().join(name)
}

fn counter(switch: &Daemon, mirror: &str, key: &str) -> u64 {
    switch.mirror(mirror)["counters"][key].as_u64().expect("a counter")
}

/// `ip.src ip.dst` of the echo packets, with the interface's name.
fn echoes(file: &std::path::Path) -> Vec<Vec<String>> {
    tshark(file, "icmp", &["frame.interface_name", "icmp.type", "icmp.seq", "frame.packet_flags_direction"])
}

#[test]
fn a_port_is_mirrored_in_both_directions() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, _b, switch) = pair(&lab);
    switch.do_("mirror create m --source port:a --to pcap:m.pcapng");
    let shown = switch.mirror("m");
    assert_eq!(
        (&shown["state"], shown["file"].as_str()),
        (&"running".into(), capture(&switch, "m.pcapng").to_str())
    );
    assert_eq!(a.pings("10.1.0.2", 10, "0.02").lost(), 0);
    switch.do_("mirror delete m");
    // Complete once `delete` has returned.
    let seen = echoes(&capture(&switch, "m.pcapng"));
    assert_eq!(seen.len(), 20, "{seen:?}");
    for packet in &seen {
        let [interface, kind, _, direction] = &packet[..] else { panic!("{packet:?}") };
        assert_eq!(interface, "a");
        // Request (8) came in from the guest, reply (0) goes out to it.
        let expected = if kind == "8" { "0x00000001" } else { "0x00000002" };
        assert!(
            direction == expected || direction == &expected[9..],
            "direction of type {kind}: {direction}"
        );
    }
    switch.ctl(&["mirror", "show", "m"]).fails(3, &["m"]);
}

#[test]
fn a_network_is_mirrored_once_a_frame_with_one_interface_a_port() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, b, switch) = pair(&lab);
    switch.do_("mirror create m --source network:lab --to pcap:sub/m.pcapng --direction rx");
    switch.do_("mirror create t --source network:lab --to pcap:t.pcapng --direction tx --snaplen 64");
    switch.do_("mirror create f --source port:a --source port:b --to pcap:f.pcapng --filter icmp[icmptype]=icmp-echo");
    assert_eq!(a.pings("10.1.0.2", 10, "0.02").lost(), 0);
    b.send("eth0", &[marked(&BROADCAST, &mac(7), &[], "not an echo")]);
    for mirror in ["m", "t", "f"] {
        switch.do_(&format!("mirror delete {mirror}"));
    }
    let seen = echoes(&capture(&switch, "sub/m.pcapng"));
    let from = |name: &str| seen.iter().filter(|packet| packet[0] == name).count();
    assert_eq!((seen.len(), from("a"), from("b")), (20, 10, 10), "{seen:?}");
    let lengths = tshark(&capture(&switch, "t.pcapng"), "icmp", &["frame.cap_len", "frame.len"]);
    assert_eq!(lengths.len(), 20);
    assert!(lengths.iter().all(|row| row[0] == "64" && row[1] == "98"), "{lengths:?}");
    let filtered = tshark(&capture(&switch, "f.pcapng"), "", &["frame.interface_name", "icmp.type"]);
    assert!(filtered.len() == 20 && filtered.iter().all(|row| row[1] == "8"), "{filtered:?}");
    switch
        .ctl(&[
            "mirror",
            "create",
            "x",
            "--source",
            "port:a",
            "--to",
            "pcap:x.pcapng",
            "--filter",
            "icmp and (",
        ])
        .fails(1, &["filter"]);
}

#[test]
fn statistics_blocks_tell_exactly_what_was_lost() {
    let Some(lab) = Lab::open(&["tshark", "mount"]) else { return };
    let host = lab.space("host");
    let (a, b) = (lab.space("a"), lab.space("b"));
    let setup = Setup::new(&lab, &host, "switchd");
    let small = setup.captures();
    std::fs::create_dir_all(&small).expect("our folder");
    let tmpfs = Tmpfs::mount(&small, "1m");
    let switch = setup.start();
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "a", &a, "");
    switch.guest("lab", "b", &b, "");
    a.ip(&["link", "set", "eth0", "up"]);
    b.ip(&["link", "set", "eth0", "up"]);
    switch.wait_port("b", "up");
    switch.do_("mirror create m --source port:a --direction rx --to pcap:m.pcapng");
    let big = |n: u32| {
        let mut frame = marked(&BROADCAST, &mac(n % 8), &[], "fills the disk");
        frame.resize(1514, 0x55);
        frame
    };
    a.send_paced("eth0", &(0..1500).map(big).collect::<Vec<_>>(), Duration::from_micros(200));
    let full = settled(&switch, "m");
    assert!(full.lost > 300 && full.copied > 500, "{full:?}");
    let error = switch.mirror("m")["last_error"].as_str().unwrap_or_default().to_lowercase();
    assert!(error.contains("no space"), "{error}");
    eventually(SOON, || {
        let events = switch.json(&["events"]).to_string();
        if events.contains("mirror.failing") { Ok(()) } else { Err(events) }
    });
    let troubles = || switch.json(&["status"])["troubles"].to_string().to_lowercase();
    assert!(troubles().contains("mirror m") && troubles().contains("no space"), "{}", troubles());
    assert!(switch.count("b", "tx_frames") >= full.seen, "traffic goes on");
    // Room again: it goes on, into the same file, and says what was lost.
    tmpfs.resize("32m");
    eventually(SOON, || {
        a.send_paced("eth0", &(0..20).map(big).collect::<Vec<_>>(), Duration::from_millis(1));
        match settled(&switch, "m") {
            now if now.copied >= full.copied + 100 => Ok(()),
            now => Err(format!("{now:?}")),
        }
    });
    assert_eq!(switch.mirror("m")["state"], "running");
    assert_eq!(troubles(), "[]", "it is over");
    let Tally { seen, lost, .. } = settled(&switch, "m");
    switch.do_("mirror delete m");
    let kept = tshark(&small.join("m.pcapng"), "", &["frame.number"]).len() as u64;
    assert_eq!(kept + lost, seen, "packets in the file and losses are all frames that were seen");
    assert_eq!(
        statistics(&small.join("m.pcapng")).dropped,
        lost,
        "the statistics block in the file says the same"
    );
    drop(switch);
    drop(tmpfs);
}

#[derive(Debug, PartialEq, Clone, Copy)]
struct Tally {
    seen: u64,
    copied: u64,
    lost: u64,
}

/// The counters of a mirror that has booked all that its source received.
fn settled(switch: &Daemon, mirror: &str) -> Tally {
    eventually(SOON, || {
        let received = switch.count("a", "rx_frames");
        let count = switch.mirror(mirror)["counters"].clone();
        let get = |key: &str| count[key].as_u64().expect("a counter");
        let tally = Tally { seen: get("seen"), copied: get("copied"), lost: get("lost") };
        let quiet = switch.count("a", "rx_frames") == received;
        if quiet && tally.seen == tally.copied + tally.lost { Ok(tally) } else { Err(count.to_string()) }
    })
}

#[derive(Default, Clone, Copy)]
struct Statistics {
    received: u64,
    dropped: u64,
    delivered: u64,
}

/// The sums over each interface's last statistics block.
fn statistics(file: &std::path::Path) -> Statistics {
    use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption as Statistic;
    use pcap_file::pcapng::{Block, PcapNgReader};
    let mut reader = PcapNgReader::new(std::fs::File::open(file).expect("the file")).expect("pcapng");
    let mut last = std::collections::BTreeMap::new();
    let mut section = 0;
    while let Some(block) = reader.next_block() {
        match block.expect("a whole file").0 {
            Block::SectionHeader(_) => section += 1,
            Block::InterfaceStatistics(block) => {
                let counts: &mut Statistics = last.entry((section, block.interface_id)).or_default();
                for option in &block.options {
                    match option {
                        Statistic::IsbIfRecv(count) => counts.received = *count,
                        Statistic::IsbIfDrop(count) => counts.dropped = *count,
                        Statistic::IsbUsrDeliv(count) => counts.delivered = *count,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    last.into_values().fold(Statistics::default(), |sum, counts| Statistics {
        received: sum.received + counts.received,
        dropped: sum.dropped + counts.dropped,
        delivered: sum.delivered + counts.delivered,
    })
}

struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &std::path::Path, size: &str) -> Tmpfs {
        let options = format!("size={size},mode=755");
        let mut mount = command::command(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"]);
        command::run(mount.arg(at), SOON).ok();
        Tmpfs(at.to_owned())
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        command::run(command::command(&["mount", "-o", &options]).arg(&self.0), SOON).ok();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = command::command(&["umount", "-l"]).arg(&self.0).status();
    }
}

#[test]
fn files_rotate_and_are_never_truncated() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, _b, mut switch) = pair(&lab);
    switch.do_("mirror create r --source port:a --to pcap:r/r.pcapng --rotate-size 64K --rotate-count 3");
    switch.do_("mirror create m --source port:a --to pcap:m.pcapng");
    let big = |n: u32| {
        let mut frame = marked(&BROADCAST, &mac(n), &[], "rotates");
        frame.resize(1400, 0x55);
        frame
    };
    a.send("eth0", &(0..300).map(big).collect::<Vec<_>>());
    eventually(SOON, || match counter(&switch, "r", "files") {
        files if files >= 5 => Ok(()),
        files => Err(format!("{files} files")),
    });
    switch.do_("mirror delete r");
    let files: Vec<PathBuf> = std::fs::read_dir(capture(&switch, "r"))
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        assert!(!tshark(file, "", &["frame.number"]).is_empty(), "{}", file.display());
        assert!(file.metadata().expect("a file").len() < 80 << 10, "{}", file.display());
    }
    // A restart, in order or not, appends a section.
    for crash in [false, true] {
        eventually(SOON, || {
            let shown = switch.mirror("m")["counters"].clone();
            if shown["seen"] == shown["copied"] { Ok(()) } else { Err(shown.to_string()) }
        });
        std::thread::sleep(Duration::from_millis(1500));
        let packets = tshark(&capture(&switch, "m.pcapng"), "", &["frame.number"]).len();
        if crash {
            switch.crash();
        } else {
            switch.stop().ok();
        }
        switch.restart();
        switch.wait_port("a", "up");
        a.reaches("10.1.0.2");
        eventually(SOON, || {
            let output = tshark_raw(&capture(&switch, "m.pcapng"), "", &["frame.number"]);
            let now = output.text().lines().count();
            if output.code == Some(0) && now > packets {
                Ok(())
            } else {
                Err(format!("{now}: {}", output.stderr))
            }
        });
    }
    switch.do_("mirror delete m");
    let all = tshark(&capture(&switch, "m.pcapng"), "frame contains \"rotates\"", &["frame.number"]).len();
    assert_eq!(all, 300, "what was written before the restarts is still there");
}

#[test]
fn files_rotate_by_time() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, _b, switch) = pair(&lab);
    switch.do_("mirror create t --source port:a --to pcap:t/t.pcapng --rotate-time 1s --rotate-count 2");
    assert_eq!(a.pings("10.1.0.2", 45, "0.1").lost(), 0);
    switch.do_("mirror delete t");
    let files: Vec<PathBuf> = std::fs::read_dir(capture(&switch, "t"))
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let packets: usize = files.iter().map(|file| tshark(file, "icmp", &["frame.number"]).len()).sum();
    assert!((4..60).contains(&packets), "{packets} packets in two files of a second each");
}

#[test]
fn a_reader_that_does_not_read_costs_copies_only() {
    let Some(lab) = Lab::open(&["iperf3", "tshark"]) else { return };
    let (_host, a, b, switch) = pair(&lab);
    // Nobody reads this pipe for now.
    let mut stuck = switch.ctl_command(&["capture", "network:lab", "-w", "-"]);
    let mut stuck = Background::start_into(&mut stuck, std::process::Stdio::piped());
    let mut pipe = stuck.child().stdout.take().expect("a pipe");
    std::thread::sleep(Duration::from_millis(500));
    // More than all the queues between the switch and the pipe take.
    let listener = b.background(&["iperf3", "-s", "-1", "--forceflush"]);
    eventually(
        SOON,
        || if listener.stdout().contains("listening") { Ok(()) } else { Err("no server".into()) },
    );
    let mut client = a.command(&["iperf3", "-c", "10.1.0.2", "-n", "300M", "-J"]);
    command::run(&mut client, Duration::from_secs(60)).ok();
    assert_eq!(a.pings("10.1.0.2", 20, "0.02").lost(), 0, "traffic suffers from a reader that does not read");
    switch.ctl(&["status"]).ok();
    // It reads again: what was lost is told, to the last frame, also when the capture is interrupted.
    stuck.signal(Signal::SIGINT);
    let file = lab.folder().join("slow.pcapng");
    let mut kept = std::fs::File::create(&file).expect("our folder");
    let reader = std::thread::spawn(move || std::io::copy(&mut pipe, &mut kept));
    let said = stuck.finish(Duration::from_secs(30)).ok().stderr;
    reader.join().expect("a reader").expect("a stream");
    let packets = tshark(&file, "", &["frame.number"]).len() as u64;
    let Statistics { received, dropped, delivered } = statistics(&file);
    assert!(dropped > 0 && packets > 0, "{packets} packets, {dropped} dropped");
    assert_eq!((delivered, received), (packets, packets + dropped), "{dropped} dropped");
    assert!(said.contains(&format!("{packets} packets, {dropped} lost")), "{said}");
}

#[test]
fn a_removed_folder_costs_copies_only() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, _b, switch) = pair(&lab);
    switch.do_("mirror create m --source port:a --to pcap:gone/m.pcapng --rotate-size 64K");
    a.reaches("10.1.0.2");
    std::fs::remove_dir_all(capture(&switch, "gone")).expect("our folder");
    let big = |n: u32| {
        let mut frame = marked(&BROADCAST, &mac(n), &[], "gone");
        frame.resize(1400, 0x55);
        frame
    };
    a.send("eth0", &(0..200).map(big).collect::<Vec<_>>());
    assert_eq!(a.pings("10.1.0.2", 10, "0.02").lost(), 0, "traffic goes on");
    eventually(SOON, || match switch.mirror("m")["state"].as_str() {
        Some("running") if capture(&switch, "gone").exists() => Ok(()),
        state => Err(format!("{state:?}")),
    });
    switch.do_("mirror delete m");
    for bad in ["../up.pcapng", "/etc/passwd", "a/../../b.pcapng", ""] {
        switch
            .ctl(&["mirror", "create", "x", "--source", "port:a", "--to", &format!("pcap:{bad}")])
            .fails(1, &["pcap"]);
    }
    // A symbolic link does not lead out of the folder either.
    std::os::unix::fs::symlink("/tmp", capture(&switch, "out")).expect("our folder");
    let escape =
        switch.ctl(&["mirror", "create", "x", "--source", "port:a", "--to", "pcap:out/escaped.pcapng"]);
    assert!(!std::path::Path::new("/tmp/escaped.pcapng").exists(), "{}", escape.stderr);
}

#[test]
fn a_lazily_unmounted_capture_directory_is_noticed_and_opened_anew() {
    let Some(lab) = Lab::open(&["mount", "umount", "nsenter"]) else { return };
    let (host, a) = (lab.space("host"), lab.space("a"));
    let setup = Setup::new(&lab, &host, "switchd");
    let directory = setup.captures();
    std::fs::create_dir_all(&directory).expect("our folder");
    let tmpfs = Tmpfs::mount(&directory, "1m");
    let switch = setup.start();
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "a", &a, "10.1.0.1/24");
    switch.do_("mirror create m --source port:a --to pcap:m.pcapng");
    let file = directory.join("m.pcapng");
    assert!(file.exists());
    // Where the daemon sees it: its namespace of mounts may be one of its own.
    let pid = switch.pid().to_string();
    let umount = ["nsenter", "--mount", "--target", &pid, "umount", "-l"];
    command::run(command::command(&umount).arg(&directory), SOON).ok();
    drop(tmpfs);
    assert!(!file.exists(), "the path leads to the folder beneath");
    // Noticed with the statistics, which come while something changes.
    let said = eventually(Duration::from_secs(40), || {
        a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "more")]);
        match switch.mirror("m")["last_error"].as_str() {
            Some(error) => Ok(error.to_owned()),
            None => Err("no error".to_owned()),
        }
    });
    assert!(said.contains("unmounted") && said.contains(&file.display().to_string()), "{said}");
    eventually(SOON, || match switch.mirror("m")["state"].as_str() {
        Some("running") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    let empty = file.metadata().expect("it is begun in the folder beneath").len();
    eventually(SOON, || {
        a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "more")]);
        let len = file.metadata().expect("it stays").len();
        if len > empty { Ok(()) } else { Err(format!("{len} bytes")) }
    });
}

#[test]
fn a_live_capture_feeds_tshark_while_tcp_runs() {
    let Some(lab) = Lab::open(&["tshark", "iperf3"]) else { return };
    let (_host, a, b, switch) = pair(&lab);
    let mut live =
        switch.ctl_command(&["capture", "network:lab", "tcp", "port", "5201", "-w", "-", "--snaplen", "128"]);
    let mut live = Background::start_into(&mut live, std::process::Stdio::piped());
    let stream = live.child().stdout.take().expect("piped");
    let mut reader = command::command(&[
        "tshark",
        "-n",
        "-l",
        "-r",
        "-",
        "-T",
        "fields",
        "-e",
        "tcp.dstport",
        "-e",
        "frame.interface_name",
    ]);
    let reader = Background::start(reader.stdin(stream));
    // The capture is not listed anywhere: give it a moment to begin.
    std::thread::sleep(Duration::from_millis(500));
    let rate = a.tcp(&b, "10.1.0.2", 2, &[]);
    assert!(rate > 50e6, "{rate} bit/s under a capture");
    eventually(SOON, || match reader.stdout().lines().filter(|line| line.starts_with("5201\ta")).count() {
        count if count > 100 => Ok(()),
        count => Err(format!("{count} packets to the server: {}", reader.stderr())),
    });
    live.signal(nix::sys::signal::Signal::SIGINT);
    live.finish(SOON).ok();
    reader.finish(SOON).ok();
}

#[test]
fn a_live_capture_ends_at_its_count_and_filters() {
    let Some(lab) = Lab::open(&["tshark"]) else { return };
    let (_host, a, _b, switch) = pair(&lab);
    let file = switch.setup().folder().join("live.pcapng");
    let path = file.to_str().expect("a plain path").to_owned();
    let mut live = switch.ctl_command(&["capture", "port:a", "icmp", "-w", &path, "-c", "7"]);
    let live = Background::start(&mut live);
    let mut pings = a.background(&["ping", "-n", "-q", "-i", "0.05", "10.1.0.2"]);
    live.finish(SOON).ok();
    assert!(pings.running());
    drop(pings);
    let packets = tshark(&file, "", &["icmp.type"]);
    assert!(packets.len() == 7 && packets.iter().all(|row| row[0] == "8" || row[0] == "0"), "{packets:?}");
    assert_eq!(
        switch.json(&["mirror", "list"]).as_array().map(Vec::len),
        Some(0),
        "a live capture is not saved"
    );
    switch.ctl(&["capture", "port:nobody", "-w", &path]).fails(3, &["nobody"]);
    switch.ctl(&["capture", "port:a", "tcp[", "-w", &path]).fails(1, &["filter"]);
}

#[test]
fn a_mirror_to_a_port_feeds_an_analyser() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_host, a, _b, switch) = pair(&lab);
    let probe = lab.space("probe");
    switch.guest("lab", "probe", &probe, "10.1.0.9/24");
    switch.do_("mirror create m --source port:a --to port:probe");
    let listener = Sniffer::start(&probe, "eth0");
    assert_eq!(a.pings("10.1.0.2", 10, "0.02").lost(), 0);
    eventually(SOON, || {
        let echo = |frame: &&Vec<u8>| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1);
        match listener.frames().iter().filter(echo).count() {
            20 => Ok(()),
            count => Err(format!("{count} copies")),
        }
    });
    // The target takes no other part in its network.
    probe.send("eth0", &[marked(&BROADCAST, &mac(9), &[], "from the probe")]);
    a.does_not_reach("10.1.0.9");
    assert!(switch.count("probe", "in mirror-target") >= 1);
    assert!(switch.count("probe", "tx_mirrored") >= 20);
    assert_eq!(
        switch.count("probe", "offered"),
        switch.count("probe", "tx_frames") + dropped(&switch, "probe")
    );
    switch.do_("mirror delete m");
    a.reaches("10.1.0.9");
    switch.ctl(&["mirror", "create", "x", "--source", "port:a", "--to", "port:a"]).fails(1, &["a"]);
    drop(listener);
    drop(switch);
    drop(probe);
}

fn dropped(switch: &Daemon, port: &str) -> u64 {
    let map = switch.port(port)["counters"]["dropped_out"].clone();
    map.as_object().map_or(0, |map| map.values().filter_map(serde_json::Value::as_u64).sum())
}

#[test]
fn superframes_are_marked_or_cut_on_request() {
    let Some(lab) = Lab::open(&["tshark", "iperf3"]) else { return };
    let (_host, a, b, switch) = pair(&lab);
    switch.do_("mirror create whole --source port:a --direction rx --to pcap:whole.pcapng --filter tcp");
    switch
        .do_("mirror create cut --source port:a --direction rx --to pcap:cut.pcapng --filter tcp --segment");
    a.tcp(&b, "10.1.0.2", 1, &["-b", "100M"]);
    switch.do_("mirror delete whole");
    switch.do_("mirror delete cut");
    let longest = |name: &str| {
        let rows = tshark(&capture(&switch, name), "", &["frame.len"]);
        rows.iter().filter_map(|row| row[0].parse::<u32>().ok()).max().unwrap_or(0)
    };
    assert!(longest("whole.pcapng") > 1514, "superframes are seen as they pass: {}", longest("whole.pcapng"));
    assert_eq!(longest("cut.pcapng"), 1514);
}
