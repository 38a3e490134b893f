//! Names: the network's own, and those of servers outside.

use std::time::Duration;
use switchd_tests::internet::{HOSTED, LAB, OTHER_SERVER, SERVER};
use switchd_tests::{Background, Daemon, Internet, Lab, Space, eventually, run};

const SERVER_SCRIPT: &str = include_str!("names.py");

fn name_server(space: &Space, address: &str) -> Background {
    let server = space.background(&["python3", "-c", SERVER_SCRIPT, address]);
    eventually(Duration::from_secs(10), || match server.stdout().starts_with("ready") {
        true => Ok(()),
        false => Err(format!("the name server is not ready: {}", server.stderr())),
    });
    server
}

/// All that `dig` prints.
fn dig(space: &Space, words: &[&str]) -> String {
    let mut all = vec!["dig", "+tries=1", "+time=8", "@10.7.0.1"];
    all.extend(words);
    let output = space.attempt(&all);
    output.text() + &output.stderr
}

fn short(space: &Space, words: &[&str]) -> String {
    dig(space, &[&["+short"], words].concat()).trim().to_owned()
}

/// With name servers outside, the first of them in the host's resolv.conf.
fn begin(lab: &Lab, line: &str) -> (Internet, Daemon, Space, Background) {
    let internet = lab.internet();
    internet.host.etc("resolv.conf", &format!("nameserver {SERVER}\n"));
    let server = name_server(&internet.net, SERVER);
    let (switch, a) = internet.nat(lab, line);
    (internet, switch, a, server)
}

#[test]
fn names_of_ports_and_of_clients_lead_to_guests() {
    let Some(lab) = Lab::open(&["dig", "udhcpc"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_(&format!("{LAB} --dns lab.example"));
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.space(name));
    for (port, space, more) in [("web", &a, "--reserve 10.7.0.20"), ("vm-2", &b, ""), ("c", &c, "")] {
        switch.do_(&format!("port attach lab {port} --tap eth0 --netns {} {more}", space.name()));
        space.ip(&["link", "set", "eth0", "up"]);
    }
    // The second claims a name of its own, and the third that of a neighbour's port.
    for (space, name) in [(&b, "box"), (&c, "web")] {
        #[rustfmt::skip]
        space.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "2", "-s", "/bin/true", "-x", &format!("hostname:{name}")]);
    }
    let leases = switch.json(&["lease", "list", "lab"]);
    let address = |port: &str| {
        let mut rows = leases.as_array().expect("a list").iter();
        let row = rows.find(|lease| lease["port"] == port).unwrap_or_else(|| panic!("{port} in {leases}"));
        row["address"].as_str().expect("an address").to_owned()
    };
    a.address("eth0", "10.7.0.20/24");
    a.reaches("10.7.0.1");
    for (name, wanted) in [
        ("vm-2.lab.example", address("vm-2")),
        ("VM-2.Lab.Example", address("vm-2")),
        ("vm-2", address("vm-2")),
        ("box.lab.example", address("vm-2")),
        ("web.lab.example", "10.7.0.20".to_owned()),
        ("gateway.lab.example", "10.7.0.1".to_owned()),
    ] {
        assert_eq!(short(&a, &[name]), wanted, "{name}");
    }
    assert_eq!(short(&a, &["-x", "10.7.0.20"]), "web.lab.example.");
    let text = dig(&a, &["nobody.lab.example"]);
    assert!(text.contains("NXDOMAIN"), "{text}");
    let text = dig(&a, &["+tcp", "web.lab.example"]);
    assert!(text.contains("10.7.0.20") && text.contains("(TCP)"), "{text}");
}

#[test]
fn other_names_are_asked_for_outside_with_an_address_of_ones_own() {
    other_names_are_asked_for_outside(LAB);
}

#[test]
fn other_names_are_asked_for_outside_with_the_hosts_sockets() {
    other_names_are_asked_for_outside(HOSTED);
}

fn other_names_are_asked_for_outside(line: &str) {
    let Some(lab) = Lab::open(&["dig"]) else { return };
    let (_internet, _switch, a, server) = begin(&lab, line);
    assert_eq!(short(&a, &["www.example"]), "203.0.113.7");
    assert_eq!(short(&a, &["+tcp", "www.example"]), "203.0.113.7");
    assert_eq!(short(&a, &["AAAA", "www.example"]), "");
    let text = dig(&a, &["none.example"]);
    assert!(text.contains("NXDOMAIN"), "{text}");
    let text = dig(&a, &["+ignore", "+bufsize=1232", "TXT", "big.example"]);
    assert!(text.contains("flags: qr") && text.contains(" tc"), "truncated over UDP: {text}");
    let text = dig(&a, &["TXT", "big.example"]);
    assert!(text.matches('x').count() >= 3000 && text.contains("(TCP)"), "whole over TCP: {text}");
    assert!(server.stdout().contains("big.example tcp"), "{}", server.stdout());
}

#[test]
fn forged_answers_are_ignored() {
    let Some(lab) = Lab::open(&["dig"]) else { return };
    let (_internet, switch, a, _server) = begin(&lab, LAB);
    for round in 0..5 {
        assert_eq!(short(&a, &[&format!("spoofed.n{round}.example")]), "203.0.113.7");
    }
    let shown = switch.json(&["network", "show", "lab"]);
    assert!(shown["nat"]["dns"]["spoofed"].as_u64() >= Some(5), "{shown}");
}

#[test]
fn a_server_that_vanishes_is_told_and_comes_back() {
    let Some(lab) = Lab::open(&["dig"]) else { return };
    let (internet, _switch, a, server) = begin(&lab, LAB);
    assert_eq!(short(&a, &["one.example"]), "203.0.113.7");
    // One that hears and says nothing, one that is not there, a host that is gone.
    let text = dig(&a, &["dead.example"]);
    assert!(text.contains("SERVFAIL"), "{text}");
    assert_eq!(short(&a, &["two.example"]), "203.0.113.7", "others are served");
    drop(server);
    let text = dig(&a, &["three.example"]);
    assert!(text.contains("SERVFAIL"), "{text}");
    internet.net.ip(&["link", "set", "in0", "down"]);
    let text = dig(&a, &["four.example"]);
    assert!(text.contains("SERVFAIL"), "{text}");
    internet.net.ip(&["link", "set", "in0", "up"]);
    let _server = name_server(&internet.net, SERVER);
    eventually(Duration::from_secs(10), || match short(&a, &["five.example"]) {
        answer if answer == "203.0.113.7" => Ok(()),
        answer => Err(answer),
    });
}

#[test]
fn the_hosts_resolv_conf_is_followed() {
    let Some(lab) = Lab::open(&["dig"]) else { return };
    let (internet, switch, a, _server) = begin(&lab, HOSTED);
    let _other = name_server(&internet.net, OTHER_SERVER);
    assert_eq!(short(&a, &["TXT", "whoami.example"]), format!("\"{SERVER}\""));
    internet.host.etc("resolv.conf", &format!("search example\nnameserver {OTHER_SERVER}\n"));
    eventually(Duration::from_secs(8), || match short(&a, &["TXT", "whoami.example"]) {
        answer if answer.contains(OTHER_SERVER) => Ok(()),
        answer => Err(answer),
    });
    // A network with servers of its own.
    switch.do_(&format!("network set lab resolver={SERVER}"));
    eventually(Duration::from_secs(8), || match short(&a, &["TXT", "whoami.example"]) {
        answer if answer.contains(SERVER) => Ok(()),
        answer => Err(answer),
    });
}

#[test]
fn many_questions_are_answered() {
    let Some(lab) = Lab::open(&["dnsperf", "dig"]) else { return };
    let (_internet, _switch, a, _server) = begin(&lab, LAB);
    let names = lab.folder().join("names");
    let lines: String = (0..500).map(|number| format!("n{number}.example A\n")).collect();
    std::fs::write(&names, lines).expect("our folder");
    let names = names.to_str().expect("a plain path");
    #[rustfmt::skip]
    let mut dnsperf = a.command(&[
        "dnsperf", "-s", "10.7.0.1", "-d", names, "-l", "3", "-Q", "300", "-q", "50", "-t", "3",
    ]);
    let text = run(&mut dnsperf, Duration::from_secs(20)).ok().text();
    let line = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        line.and_then(|line| line.split(':').nth(1))
            .unwrap_or_else(|| panic!("no {key} in {text}"))
            .trim()
            .to_owned()
    };
    let lost: u32 =
        line("Queries lost").split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!(lost <= 2, "{text}");
    assert!(line("Response codes").contains("NOERROR"), "{text}");
}
