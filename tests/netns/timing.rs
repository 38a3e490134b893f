//! What is measured: these tests have the machine to themselves (`Lab::alone`, and nextest's groups).

use nix::sys::signal::Signal;
use std::time::Duration;
use switchd_tests::command::{alive, kill};
use switchd_tests::peers::Ping;
use switchd_tests::{Daemon, Lab, Setup, Space, eventually, full};

const SOON: Duration = Duration::from_secs(10);

fn carrier(space: &Space) -> (serde_json::Value, String) {
    (space.link("eth0")["ifindex"].clone(), space.run(&["cat", "/sys/class/net/eth0/carrier_changes"]).text())
}

#[test]
fn a_killed_dataplane_costs_a_tenth_of_a_second_and_no_carrier() {
    let Some(lab) = Lab::alone(&[]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    switch.do_("mirror create m --source port:a --to pcap:m.pcapng");
    a.reaches("10.1.0.2");
    a.reaches("10.1.0.254");
    let config = switch.do_("export").text();
    let before = [&a, &b].map(carrier);
    for (round, target) in ["10.1.0.2", "10.1.0.254", "10.1.0.2"].into_iter().enumerate() {
        let pings = a.background(&["ping", "-n", "-q", "-c", "2500", "-i", "0.001", "-W", "1", target]);
        std::thread::sleep(Duration::from_millis(800));
        let old = switch.dataplane_pid();
        kill(old, Signal::SIGKILL);
        let ping = Ping::parse(&pings.finish(Duration::from_secs(30)).text()).expect("ping's summary");
        println!("round {round}: {} of {} pings at 1 ms lost to a killed dataplane", ping.lost(), ping.sent);
        assert!(ping.lost() <= 100, "{} ms of traffic lost", ping.lost());
        let status = eventually(SOON, || {
            let output = switch.ctl(&["status", "-o", "json"]);
            serde_json::from_slice::<serde_json::Value>(&output.stdout).map_err(|error| error.to_string())
        });
        assert_ne!(status["dataplane_pid"].as_u64(), Some(u64::from(old)));
        assert_eq!(status["dataplane_restarts"].as_u64(), Some(round as u64 + 1), "{status}");
        assert_eq!(status["pid"].as_u64(), Some(u64::from(switch.pid())), "the broker stays");
    }
    assert_eq!([&a, &b].map(carrier), before, "a tap flapped");
    assert_eq!(switch.do_("export").text(), config, "no configuration is lost");
    assert_eq!(switch.mirror("m")["state"], "running");
}

#[test]
fn unchanged_ports_lose_nothing_while_others_change() {
    let Some(lab) = Lab::alone(&[]) else { return };
    let (host, lan, a, b, c) =
        (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"), lab.space("c"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let switch = Setup::new(&lab, &host, "switchd").with(&["--workers", "2"]).start();
    let tap = |port: &str, space: &Space, more: &str| {
        format!("[port.{port}]\nnetwork = \"office\"\ntap = \"eth0\"\nnetns = \"{}\"\n{more}", space.name())
    };
    let base = "[network.office]\nkind = \"bridged\"\nuplink = \"up0\"\n".to_owned()
        + &tap("a", &a, "")
        + &tap("b", &b, "");
    switch.apply(&base, &[]).ok();
    a.address("eth0", "10.1.0.1/24");
    b.address("eth0", "10.1.0.2/24");
    a.reaches("10.1.0.2");
    a.reaches("10.1.0.254");
    let changes = [
        base.clone() + &tap("c", &c, ""),
        base.clone() + &tap("c", &c, "admin = \"down\"\n") + "[network.other]\nkind = \"isolated\"\n",
        base.clone() + "[mirror.m]\nsource = [\"port:a\"]\nto = \"pcap:m.pcapng\"\n",
        base.replace("uplink", "ageing = 50\nuplink"),
        // A network that joins the uplink moves between workers, with all that hangs on it.
        base.clone() + "[network.red]\nkind = \"bridged\"\nuplink = \"up0\"\nvlan = 100\n",
        base.clone(),
    ];
    let count = if full() { "8000" } else { "1500" };
    let pings = ["10.1.0.2", "10.1.0.254"]
        .map(|target| a.background(&["ping", "-n", "-q", "-c", count, "-i", "0.002", "-W", "2", target]));
    for change in changes.iter().cycle().take(if full() { 60 } else { 12 }) {
        switch.apply(change, &[]).ok();
        std::thread::sleep(Duration::from_millis(150));
    }
    for pings in pings {
        let ping = Ping::parse(&pings.finish(Duration::from_secs(60)).text()).expect("ping's summary");
        assert_eq!(ping.lost(), 0, "of {} pings", ping.sent);
    }
}

fn cpu_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = text.rsplit(')').next().expect("a name").split_whitespace().collect();
    // utime and stime are fields 14 and 15 of proc(5); the name ends field 2.
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

/// Of an unoptimised program without its text, which is several times that of the one that users run.
fn resident_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a kernel of this decade");
        line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
    };
    let optimised = switchd_tests::daemon::program("switchd").to_string_lossy().contains("/release/");
    if optimised { field("VmRSS:") } else { field("RssAnon:") + field("RssShmem:") }
}

#[test]
fn an_idle_daemon_is_small_and_sleeps() {
    let Some(lab) = Lab::alone(&[]) else { return };
    let (host, lan) = (lab.space("host"), lab.space("lan"));
    let guests: Vec<Space> = (0..6).map(|number| lab.space(&format!("g{number}"))).collect();
    lab.wire((&host, "up0"), (&lan, "eth0"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.do_("network create cell --kind isolated");
    for (number, space) in guests.iter().enumerate() {
        let network = if number % 2 == 0 { "office" } else { "cell" };
        switch.guest(
            network,
            &format!("g{number}"),
            space,
            &format!("10.{}.0.{}/24", number % 2, number + 1),
        );
    }
    switch.do_("mirror create m --source network:office --to pcap:m.pcapng");
    guests[0].reaches("10.0.0.3");
    guests[1].reaches("10.1.0.4");
    std::thread::sleep(Duration::from_secs(2));
    let pids = [switch.pid(), switch.dataplane_pid()];
    let before: u64 = pids.iter().map(|&pid| cpu_ticks(pid)).sum();
    std::thread::sleep(Duration::from_secs(5));
    let ticks = pids.iter().map(|&pid| cpu_ticks(pid)).sum::<u64>() - before;
    let resident: Vec<u64> = pids.iter().map(|&pid| resident_kib(pid)).collect();
    println!("idle: {} ms of CPU in 5 s, resident {resident:?} KiB", ticks * 10);
    assert!(ticks <= 5, "{} ms of CPU in 5 s, more than 1%", ticks * 10);
    assert!(resident.iter().sum::<u64>() <= 40 * 1024, "resident: {resident:?} KiB");
}

#[test]
fn a_storm_of_flaps_ends_where_it_began() {
    let Some(lab) = Lab::alone(&["iperf3"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.254");
    let pings = a.background(&["ping", "-n", "-q", "-i", "0.01", "10.1.0.2"]);
    for round in 0..if full() { 200 } else { 10 } {
        lan.ip(&["link", "set", "eth0", "down"]);
        switch.do_(&format!("port set b mac-limit={}", round + 1));
        if round % 5 == 4 {
            b.ip(&["link", "delete", "eth0"]);
        }
        lan.ip(&["link", "set", "eth0", "up"]);
        if round % 5 == 4 {
            eventually(SOON, || if b.has("eth0") { Ok(()) } else { Err("no tap".into()) });
            b.address("eth0", "10.1.0.2/24");
        }
    }
    drop(pings);
    switch.do_("port set b mac-limit=");
    for port in ["a", "b", "uplink:up0"] {
        switch.wait_port(port, "up");
    }
    a.reaches("10.1.0.2");
    a.reaches("10.1.0.254");
    assert!(a.tcp(&b, "10.1.0.2", 1, &[]) > 50e6);
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let pids = [switch.pid(), switch.dataplane_pid()];
    assert!(
        pids.iter().all(|&pid| alive(pid) && descriptors(pid) < 80),
        "descriptors leak: {:?}",
        pids.map(descriptors)
    );
    switch.assert_accounting();
    switch.stop().ok();
}
