//! Configuration as a whole: apply, diff, export, confirm; what survives a crash; what may ask.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use switchd_tests::command::{alive, kill};
use switchd_tests::{Background, Daemon, Lab, Setup, Space, command, eventually, full, run};

const SOON: Duration = Duration::from_secs(10);

fn office(a: &Space, more: &str) -> String {
    format!(
        "[network.office]\nkind = \"isolated\"\n[port.a]\nnetwork = \"office\"\ntap = \"eth0\"\nnetns = \"{}\"\n{more}",
        a.name()
    )
}

#[test]
fn a_file_is_applied_exported_and_compared() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    let first = office(&a, "");
    let second = office(
        &a,
        &format!(
            "vlan = \"access=10\"\n[port.b]\nnetwork = \"office\"\ntap = \"eth0\"\nnetns = \"{}\"\n[mirror.m]\nsource = [\"network:office\"]\nto = \"pcap:m.pcapng\"\n",
            b.name()
        ),
    );
    let plan = switch.apply(&first, &["--dry-run"]).ok().text();
    assert!(plan.contains("+ network office") && plan.contains("+ port a"), "{plan}");
    assert_eq!(
        switch.json(&["network", "list"]).as_array().map(Vec::len),
        Some(0),
        "a dry run changes nothing"
    );
    switch.apply(&first, &[]).ok();
    assert!(a.has("eth0"));
    let file = switch.file("second.toml", &second);
    let path = file.to_str().expect("a plain path");
    let diff = switch.ctl(&["diff", path]).fails(7, &["~ port a", "+ port b", "+ mirror m", "access=10"]);
    assert!(!diff.text().contains("network office"), "{}", diff.text());
    switch.apply(&second, &[]).ok();
    switch.ctl(&["diff", path]).ok();
    // What is exported is taken back unchanged.
    let exported = switch.do_("export").text();
    let again = switch.file("exported.toml", &exported);
    switch.ctl(&["diff", again.to_str().expect("a plain path")]).ok();
    let nothing = switch.apply(&exported, &[]).ok().text();
    assert!(nothing.contains("no changes"), "{nothing}");
    assert_eq!(switch.do_("export").text(), exported);
    // What the file does not name is deleted.
    switch.apply(&first, &[]).ok();
    assert!(!b.has("eth0"));
    switch.ctl(&["mirror", "show", "m"]).fails(3, &["m"]);
    switch.apply("", &[]).ok();
    assert!(!a.has("eth0"));
}

#[test]
fn what_cannot_come_up_is_rolled_back_as_a_whole() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.apply(&office(&a, ""), &[]).ok();
    let before = switch.do_("export").text();
    let bad = office(
        &a,
        &format!(
            "[network.new]\nkind = \"isolated\"\n[port.b]\nnetwork = \"new\"\ntap = \"eth0\"\nnetns = \"{}\"\n[port.c]\nnetwork = \"new\"\nnetdev = \"nothere0\"\n",
            b.name()
        ),
    );
    switch.apply(&bad, &[]).fails(1, &["nothere0"]);
    assert_eq!(switch.do_("export").text(), before);
    assert!(!b.has("eth0"), "a tap of the failed apply stayed");
    switch.ctl(&["network", "show", "new"]).fails(3, &["new"]);
    switch.ctl(&["port", "attach", "office", "x", "--netdev", "nothere0"]).fails(1, &["nothere0"]);
    switch
        .ctl(&["port", "attach", "office", "x", "--tap", "t0", "--netns", "nowhere"])
        .fails(1, &["nowhere"]);
    switch
        .ctl(&["network", "create", "x", "--kind", "bridged", "--uplink", "nothere0"])
        .fails(1, &["nothere0"]);
    assert_eq!(switch.do_("export").text(), before);
}

#[test]
fn an_unconfirmed_apply_rolls_back() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a) = (lab.space("host"), lab.space("a"));
    let mut switch = Daemon::start(&lab, &host);
    switch.apply(&office(&a, ""), &[]).ok();
    let old = switch.do_("export").text();
    let new = office(&a, "mac-limit = 5\n[network.more]\nkind = \"isolated\"\n");
    // Time passes.
    switch.apply(&new, &["--confirm", "2s"]).ok();
    switch.ctl(&["network", "show", "more"]).ok();
    assert!(switch.json(&["status"])["confirm_within"].as_u64().is_some());
    eventually(SOON, || match switch.do_("export").text() {
        text if text == old => Ok(()),
        text => Err(text),
    });
    switch.ctl(&["confirm"]).fails(4, &["confirm"]);
    // A crash of the dataplane, a crash of both, an orderly end: all within the window.
    for round in 0..3 {
        switch.apply(&new, &["--confirm", "60s"]).ok();
        match round {
            0 => {
                let dataplane = switch.dataplane_pid();
                kill(dataplane, Signal::SIGKILL);
                eventually(SOON, || if alive(dataplane) { Err("it lives".into()) } else { Ok(()) });
                switch.ctl(&["status", "--wait", "10s"]).ok();
            }
            1 => {
                switch.crash();
                switch.restart();
            }
            _ => {
                switch.stop().ok();
                switch.restart();
            }
        }
        eventually(SOON, || match switch.do_("export").text() {
            text if text == old => Ok(()),
            text => Err(format!("round {round}: {text}")),
        });
        switch.wait_port("a", "up");
    }
    // Nothing differs: nothing waits, and a script's confirmation ends well.
    switch.apply(&office(&a, ""), &["--confirm", "60s"]).ok();
    assert!(switch.json(&["status"])["confirm_within"].is_null());
    let said = switch.do_("confirm").text();
    assert!(said.contains("nothing to confirm"), "{said}");
    switch.ctl(&["confirm"]).fails(4, &["confirm"]);
    // Confirmed in time: it stays.
    switch.apply(&new, &["--confirm", "3s"]).ok();
    switch.do_("confirm");
    std::thread::sleep(Duration::from_secs(4));
    switch.ctl(&["network", "show", "more"]).ok();
    switch.crash();
    switch.restart();
    switch.ctl(&["network", "show", "more"]).ok();
}

#[test]
fn a_crash_amid_changes_leaves_the_old_or_the_new_state() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    let mut switch = Daemon::start(&lab, &host);
    let version = |number: u32| {
        let mut text = String::new();
        for network in 0..4 {
            text += &format!("[network.n{network}]\nkind = \"isolated\"\nageing = {}\n", 100 + number);
        }
        text
    };
    let seed: u64 =
        std::env::var("SWITCHD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_123);
    let rounds = if full() { 60 } else { 8 };
    let (mut random, mut number) = (seed, 0);
    switch.apply(&version(0), &[]).ok();
    for round in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let end = Instant::now() + Duration::from_millis(20 + (random >> 33) % 150);
        let mut acknowledged = number;
        // Changes follow each other until the daemon is gone under one of them.
        let pids = (switch.pid(), switch.dataplane_pid());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            kill(pids.0, Signal::SIGKILL);
            kill(pids.1, Signal::SIGKILL);
        });
        loop {
            let output = switch.apply(&version(number + 1), &[]);
            number += 1;
            if output.code != Some(0) {
                break;
            }
            acknowledged = number;
        }
        killer.join().expect("the killer");
        eventually(SOON, || if alive(pids.0) || alive(pids.1) { Err("it lives".into()) } else { Ok(()) });
        switch.forget();
        switch.restart();
        let networks = switch.json(&["network", "list"]);
        let versions: std::collections::BTreeSet<u64> = networks
            .as_array()
            .expect("a list")
            .iter()
            .map(|network| network["ageing"].as_u64().expect("as applied") - 100)
            .collect();
        assert_eq!(networks.as_array().map(Vec::len), Some(4), "round {round}, seed {seed}: {networks}");
        assert_eq!(versions.len(), 1, "round {round}, seed {seed}: half of a change: {versions:?}");
        let found = versions.into_iter().next().expect("one") as u32;
        assert!(
            found == acknowledged || found == number,
            "round {round}, seed {seed}: {found}, though {acknowledged} was acknowledged and {number} was tried"
        );
        number = found;
    }
}

#[test]
fn damaged_state_files_are_told_and_nothing_is_lost() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create one --kind isolated");
    switch.do_("network create two --kind isolated");
    switch.stop().ok();
    let file = switch.setup().state().join("desired.toml");
    let good = std::fs::read(&file).expect("the saved state");
    // Half written: the file before it is taken, and it is said.
    std::fs::write(&file, &good[..good.len() / 2]).expect("our folder");
    switch.restart();
    switch.ctl(&["network", "show", "one"]).ok();
    let events = switch.events("state.damaged");
    assert!(
        events.len() == 1 && events[0].contains(&file.display().to_string()),
        "it is not said that the state was damaged: {events:?}"
    );
    let log = switch.log();
    let line = log.lines().find(|line| line.contains("desired.toml"));
    assert!(line.is_some_and(|line| line.contains("ERROR")), "not told as an error: {log}");
    switch.stop().ok();
    // A folder in its place: told in the same way, and set aside when the file is written anew.
    std::fs::remove_file(&file).expect("our folder");
    std::fs::create_dir(&file).expect("our folder");
    std::fs::write(file.join("within"), b"kept").expect("our folder");
    switch.restart();
    switch.ctl(&["network", "show", "one"]).ok();
    let events = switch.events("state.damaged");
    let told = format!("{}: cannot read it: Is a directory (os error 21)", file.display());
    assert!(events.len() == 1 && events[0].contains(&told), "it does not name path and error: {events:?}");
    switch.do_("network create three --kind isolated");
    let aside = switch.setup().state().join("desired.toml.damaged");
    assert_eq!(std::fs::read(aside.join("within")).expect("it is kept aside"), b"kept");
    switch.crash();
    switch.restart();
    switch.ctl(&["network", "show", "three"]).ok();
    assert!(switch.events("state.damaged").is_empty(), "the new file is whole");
    switch.stop().ok();
    // Nothing of it is readable: it does not start over an empty state as if nothing had been.
    for entry in std::fs::read_dir(switch.setup().state()).expect("our folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("desired") && entry.path().is_file() {
            std::fs::write(entry.path(), b"\0\xff garbage \x1b[31m").expect("our folder");
        }
    }
    let output = run(&mut switch.setup().command(), SOON);
    let said = output.fails(1, &[&file.display().to_string()]);
    assert!(!said.stderr.contains(['\u{1b}', '\0']), "escapes are passed on: {:?}", said.stderr);
}

#[test]
fn bad_files_are_refused_with_their_span() {
    let Some(lab) = Lab::open(&["ip"]) else { return };
    let host = lab.space("host");
    let switch = Daemon::start(&lab, &host);
    host.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
    switch.do_("network create keep --kind isolated");
    let before = switch.do_("export").text();
    let cases: &[(&str, &[&str])] = &[
        ("[network.a]\nkind = \"isolated\"\nuplnk = \"up0\"\n", &["uplnk", "apply.toml"]),
        ("[network.a]\nkind = \"isolated\"\n[network.a]\nkind = \"isolated\"\n", &["network a:", "twice"]),
        ("[network.a]\nkind = \"wan\"\n", &["wan", "bridged", "isolated"]),
        ("[network.a]\nkind = \"isolated\"\nuplink = \"up0\"\n", &["uplink", "isolated"]),
        ("[network.a]\nkind = \"bridged\"\nuplink = \"up0\"\nvlan = 4095\n", &["4095"]),
        (
            "[network.a]\nkind = \"bridged\"\nuplink = \"up0\"\nvlan = 7\n[network.b]\nkind = \"bridged\"\nuplink = \"up0\"\nvlan = 7\n",
            &["7", "up0"],
        ),
        (
            "[network.a]\nkind = \"bridged\"\nuplink = \"up0\"\n[port.p]\nnetwork = \"a\"\nnetdev = \"up0\"\n",
            &["up0"],
        ),
        ("[network.\"a\\nb\"]\nkind = \"isolated\"\n", &["name"]),
        ("[network.\"../a\"]\nkind = \"isolated\"\n", &["../a"]),
        ("[network.\"\\u001b[31m\"]\nkind = \"isolated\"\n", &["name"]),
        ("[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"b\"\ntap = \"t0\"\n", &["b", "port"]),
        ("[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\n", &["tap", "netdev"]),
        (
            "[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\ntap = \"an-interface-name-that-is-too-long\"\n",
            &["tap"],
        ),
        (
            "[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\ntap = \"t0\"\nnetns = \"../../etc\"\n",
            &["netns"],
        ),
        (
            "[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\ntap = \"t0\"\nmac = \"01:00:00:00:00:01\"\n",
            &["01:00:00:00:00:01"],
        ),
        (
            "[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\ntap = \"t0\"\n[port.q]\nnetwork = \"a\"\ntap = \"t0\"\n",
            &["t0"],
        ),
        ("[network.a]\nkind = \"isolated\"\nmtu = 9217\n", &["9217", "9216"]),
        ("[mirror.m]\nsource = [\"port:nobody\"]\nto = \"pcap:m.pcapng\"\n", &["nobody"]),
        (
            "[network.a]\nkind = \"isolated\"\n[mirror.m]\nsource = [\"network:a\"]\nto = \"pcap:../../m.pcapng\"\n",
            &["to"],
        ),
        ("[network.a\nkind = \"isolated\"\n", &["apply.toml"]),
        ("kind = ", &["apply.toml"]),
        ("\u{0}\u{1}\u{2}", &["apply.toml"]),
    ];
    let mut wrong = Vec::new();
    for (text, words) in cases {
        for flags in [&[][..], &["--dry-run"]] {
            let output = switch.apply(text, flags);
            let said = words.iter().all(|word| output.stderr.contains(word));
            let clean = !output.stderr.contains("\u{1b}[31m");
            if !matches!(output.code, Some(1 | 3 | 4)) || !said || !clean {
                wrong.push(format!(
                    "{text:?} {flags:?} exits {:?}, should say {words:?}:\n{}",
                    output.code, output.stderr
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let with_span = switch.apply(cases[0].0, &[]).stderr;
    assert!(
        with_span.contains('3') && with_span.contains("uplnk = \"up0\""),
        "the line is shown: {with_span}"
    );
    assert_eq!(switch.do_("export").text(), before, "a bad file changes nothing");
    let path = switch.setup().folder().join("missing.toml");
    switch.ctl(&["apply", path.to_str().expect("a plain path")]).fails(1, &["missing.toml"]);
    // The same file checked without a daemon.
    let bad = switch.file("check.toml", cases[0].0);
    let mut check =
        switch.setup().clone().with(&["--check", "--config", bad.to_str().expect("a plain path")]).command();
    run(&mut check, SOON).fails(1, &["uplnk"]);
}

#[test]
fn commands_with_bad_names_and_duplicates_have_their_exit_codes() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a) = (lab.space("host"), lab.space("a"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create one --kind isolated");
    switch.ctl(&["network", "create", "one", "--kind", "isolated"]).fails(4, &["one"]);
    for name in ["../x", "a\nb", "a b", "A", "", ".x", "-", "ü", "a\u{1b}[31m", &"x".repeat(33)] {
        let output = switch.ctl(&["network", "create", "--kind", "isolated", "--", name]);
        assert!(matches!(output.code, Some(1 | 2)), "{name:?}: {:?} {}", output.code, output.stderr);
        assert!(!output.stderr.contains("\u{1b}[31m"), "escapes are passed on: {:?}", output.stderr);
        let shown = switch.ctl(&["network", "show", "--", name]);
        assert!(matches!(shown.code, Some(1..=3)), "{name:?}: {:?} {}", shown.code, shown.stderr);
    }
    switch.ctl(&["network", "create", "x", "--kind", "wan"]).fails(2, &["wan", "bridged", "isolated"]);
    switch.ctl(&["network", "create", "x", "--kind", "nat"]).fails(1, &["network x", "subnet"]);
    switch.ctl(&["network", "create", "x"]).fails(2, &["--kind"]);
    switch.ctl(&["network", "frobnicate"]).fails(2, &["frobnicate"]);
    switch.ctl(&["network", "show", "nothere"]).fails(3, &["nothere"]);
    switch.ctl(&["network", "delete", "nothere"]).fails(3, &["nothere"]);
    switch.ctl(&["port", "detach", "nothere"]).fails(3, &["nothere"]);
    switch.ctl(&["port", "attach", "nothere", "p", "--tap", "t0"]).fails(3, &["nothere"]);
    switch.guest("one", "p", &a, "");
    switch.ctl(&["port", "attach", "one", "p", "--tap", "t1"]).fails(4, &["p"]);
    switch.ctl(&["port", "attach", "one", "q", "--tap", "eth0", "--netns", a.name()]).fails(4, &["eth0"]);
    switch.ctl(&["network", "delete", "one"]).fails(4, &["one", "p"]);
    let mut nobody = switch.ctl_command(&["--socket", "/nonexistent/s", "status"]);
    let nobody = {
        nobody.args(["--wait", "100ms"]);
        run(&mut nobody, SOON)
    };
    assert!(matches!(nobody.code, Some(2 | 5)), "{nobody:?}");
    let mut unreachable = std::process::Command::new(switchd_tests::daemon::program("switchctl"));
    run(unreachable.args(["--socket", "/nonexistent/s", "status"]), SOON).fails(5, &["/nonexistent/s"]);
}

#[test]
fn the_socket_stands_abuse() {
    let Some(lab) = Lab::open(&["curl", "python3", "setpriv"]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "a", &a, "10.1.0.1/24");
    switch.guest("lab", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    let pings = a.background(&["ping", "-n", "-q", "-i", "0.01", "10.1.0.2"]);
    let socket = switch.setup().socket();
    let socket = socket.to_str().expect("a plain path");
    // 64 MB of body, of header and of garbage; half-open connections; 1,000 at once.
    let script = r#"
import socket, sys, time
path = sys.argv[1]
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    return s
def push(s, start, total):
    try:
        s.sendall(start)
        for _ in range(total // 65536):
            s.sendall(b"x" * 65536)
    except OSError:
        pass
    try:
        return s.recv(4096)
    except OSError:
        return b""
answer = push(connect(), b"PUT /v1/config HTTP/1.1\r\nHost: s\r\nContent-Type: application/toml\r\nContent-Length: 67108864\r\n\r\n", 64 << 20)
print("declared", answer.split(b"\r\n")[0].decode())
answer = push(connect(), b"PUT /v1/config HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000000\r\n", 64 << 20)
print("chunked", answer.split(b"\r\n")[0].decode())
answer = push(connect(), b"GET /v1/status HTTP/1.1\r\nX: ", 64 << 20)
print("header", answer.split(b"\r\n")[0].decode())
answer = push(connect(), b"", 1 << 20)
print("garbage", answer.split(b"\r\n")[0].decode())
held = []
for n in range(1000):
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try:
        s.connect(path)
        s.send(b"GET /v1/status HT" if n % 2 else b"")
    except OSError:
        pass
    held.append(s)
print("held", len(held), flush=True)
time.sleep(3)
"#;
    let mut abuse = command::command(&["python3", "-c", script, socket]);
    let abuse = Background::start(&mut abuse);
    eventually(Duration::from_secs(60), || match abuse.stdout().contains("held") {
        true => Ok(()),
        false => Err(abuse.stdout() + &abuse.stderr()),
    });
    // Amid a thousand connections that say nothing, who has something to say is heard.
    switch.ctl(&["status", "--wait", "20s"]).ok();
    let said = abuse.finish(Duration::from_secs(30)).ok().text();
    assert!(said.contains("declared HTTP/1.1 413") && said.contains("chunked HTTP/1.1 413"), "{said}");
    assert!(!said.contains("200 OK"), "{said}");
    pings.signal(Signal::SIGINT);
    let ping = switchd_tests::peers::Ping::parse(&pings.finish(SOON).text()).expect("ping's summary");
    assert!(ping.lost() <= 1, "traffic suffered: {ping:?}");
    // Who is not in the group is not heard, and told so.
    let mut stranger =
        command::command(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    // What lies below a private home could not even be executed by others.
    let program = lab.folder().join("switchctl");
    std::fs::copy(switchd_tests::daemon::program("switchctl"), &program).expect("our folder");
    stranger.arg(program).args(["--socket", socket, "status"]);
    run(&mut stranger, SOON).fails(8, &["denied"]);
    let answer = command::command(&["curl", "-s", "--unix-socket", socket, "http://s/v1/openapi.json"]);
    let mut answer = answer;
    let openapi: serde_json::Value = serde_json::from_str(&run(&mut answer, SOON).ok().text()).expect("JSON");
    assert!(openapi["paths"]["/v1/networks"].is_object());
    let mut metrics = command::command(&["curl", "-s", "--unix-socket", socket, "http://s/metrics"]);
    let metrics = run(&mut metrics, SOON).ok().text();
    for name in ["switchd_worker_busy_cycles_total", "switchd_worker_frames_total"] {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
}

#[test]
fn events_are_told_as_they_happen() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a) = (lab.space("host"), lab.space("a"));
    let switch = Daemon::start(&lab, &host);
    let watch = Background::start(&mut switch.ctl_command(&["events", "--watch", "-o", "json"]));
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "a", &a, "");
    switch.do_("port detach a");
    let kinds = eventually(SOON, || {
        let text = watch.stdout();
        if text.contains("port.detached") { Ok(text) } else { Err(text) }
    });
    let sequence: Vec<u64> = kinds
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON")["seq"]
                .as_u64()
                .expect("seq")
        })
        .collect();
    assert!(sequence.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequence:?}");
    assert!(kinds.contains("network.created") && kinds.contains("port.attached"), "{kinds}");
    // The rest of the commands say something sensible.
    for line in [
        "topology",
        "topology -o dot",
        "topology -o svg",
        "top --count 1",
        "completion bash",
        "status -o yaml",
        "network list -o wide",
    ] {
        assert!(!switch.do_(line).text().trim().is_empty(), "{line}");
    }
    assert!(switch.do_("topology -o dot").text().contains("lab"));
}

#[test]
fn a_config_file_seeds_an_empty_state_only() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    let setup = Setup::new(&lab, &host, "switchd");
    let file = setup.folder().join("seed.toml");
    std::fs::write(&file, "[network.seed]\nkind = \"isolated\"\n").expect("our folder");
    let setup = setup.with(&["--config", file.to_str().expect("a plain path")]);
    let mut switch = setup.start();
    switch.ctl(&["network", "show", "seed"]).ok();
    assert_eq!(switch.json(&["status"])["config_differs"], false);
    switch.do_("network create more --kind isolated");
    switch.do_("network delete seed");
    switch.stop().ok();
    switch.restart();
    switch.ctl(&["network", "show", "seed"]).fails(3, &["seed"]);
    switch.ctl(&["network", "show", "more"]).ok();
    assert_eq!(switch.json(&["status"])["config_differs"], true, "a difference is reported");
}
