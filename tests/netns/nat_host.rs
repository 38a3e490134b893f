//! NAT networks that go out by the host's own sockets.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;
use switchd_tests::internet::{HOSTED, PORT, SERVER, SERVER6};
use switchd_tests::{Background, Daemon, Internet, Lab, Space, eventually, full, run};

/// With servers outside.
fn begin(lab: &Lab) -> (Internet, Daemon, Space) {
    let mut internet = lab.internet();
    internet.start();
    let (switch, a) = internet.nat(lab, HOSTED);
    (internet, switch, a)
}

#[test]
fn guests_speak_as_the_host() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch, a) = begin(&lab);
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "));
    assert!(a.talk("udp", SERVER, PORT, &["3"]).lines().all(|line| line.starts_with("192.0.2.100 ")));
    assert_eq!(a.pings(SERVER, 10, "0.02").lost(), 0);
    assert_eq!(a.pings("10.7.0.1", 10, "0.02").lost(), 0, "the gateway answers");
    for more in [&[][..], &["-R"]] {
        let rate = a.tcp(&internet.net, "192.0.2.1", 1, more);
        assert!(rate > 100e6, "{more:?}: {rate} bit/s");
    }
    let rate = a.tcp(&internet.net, "192.0.2.1", 1, &["-u", "-b", "20M", "-l", "1400"]);
    assert!(rate > 10e6, "UDP: {rate} bit/s");
    a.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-s", "4000", SERVER]);
    let flows = switch.json(&["flow", "list", "lab"]);
    assert!(flows.as_array().is_some_and(|flows| !flows.is_empty()), "{flows}");
}

#[test]
fn a_file_arrives_whole_both_ways_and_each_side_closes_by_itself() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, _switch, a) = begin(&lab);
    for size in ["0", "1", "70000", "8000000"] {
        // The answer comes after the guest has shut its side.
        let words = a.talk("put", SERVER, PORT, &[size]);
        let (theirs, ours) = words.split_once(' ').expect("two digests");
        assert_eq!(theirs, ours, "{size} bytes outwards");
    }
    let direct = _internet.host.talk("get", SERVER, PORT, &["8000000"]);
    assert_eq!(a.talk("get", SERVER, PORT, &["8000000"]), direct, "inwards");
}

#[test]
fn refusals_and_resets_reach_the_guest() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, _switch, a) = begin(&lab);
    let said = a.talk("connect", SERVER, 9, &[]);
    assert!(said.starts_with("ECONNREFUSED"), "{said}");
    assert_eq!(a.talk("reset", SERVER, PORT, &[]), "ECONNRESET");
    assert_eq!(a.talk("refused", SERVER, 9, &[]), "ECONNREFUSED", "a closed port of UDP");
    // A place that nobody has a way to.
    internet.host.ip(&["route", "add", "unreachable", "203.0.113.0/24"]);
    let said = a.talk("connect", "203.0.113.9", 80, &[]);
    assert!(!said.starts_with("open") && said != "silence", "{said}");
}

#[test]
fn ipv6_goes_out_as_the_host_too() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let mut internet = lab.internet();
    internet.start();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_(&format!("{HOSTED} --subnet6 fd00:7::/64"));
    let a = lab.space("a");
    switch.guest("lab", "a", &a, "10.7.0.20/24");
    a.ip6("eth0");
    a.ip(&["-6", "address", "add", "fd00:7::20/64", "dev", "eth0", "nodad"]);
    a.ip(&["-6", "route", "add", "default", "via", "fd00:7::1"]);
    a.reaches("fd00:7::1");
    a.reaches(SERVER6);
    assert!(a.talk("who", SERVER6, PORT, &[]).starts_with("2001:db8:1::100 "));
    assert!(a.talk("udp", SERVER6, PORT, &["2"]).lines().all(|line| line.starts_with("2001:db8:1::100 ")));
    let words = a.talk("put", SERVER6, PORT, &["3000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours);
    assert!(a.tcp(&internet.net, "2001:db8:1::1", 1, &["-6", "-R"]) > 100e6);
}

#[test]
fn forwards_lead_in_and_a_taken_port_is_named() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch, a) = begin(&lab);
    let web = a.serve("10.7.0.20", 80);
    switch.do_("forward add lab tcp/8080:10.7.0.20:80");
    switch.do_("forward add lab udp/8080-8083:10.7.0.20:80");
    switch.do_("forward add lab 192.0.2.100:tcp/443:10.7.0.20:80");
    let seen = internet.net.talk("who", "192.0.2.100", 8080, &[]);
    assert!(!seen.is_empty(), "{seen}");
    internet.net.talk("who", "192.0.2.100", 443, &[]);
    let words = internet.net.talk("put", "192.0.2.100", 8080, &["2000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours);
    assert_eq!(
        internet
            .net
            .talk("udp", "192.0.2.100", 8080, &["3"])
            .lines()
            .filter(|&line| line != "silence")
            .count(),
        3
    );
    // A port that a program of the host has, one that another forward has.
    let _taken = internet.host.serve("0.0.0.0", 9090);
    let output = switch.ctl(&["forward", "add", "lab", "tcp/9090:10.7.0.20:80"]);
    assert_ne!(output.code, Some(0));
    let said = output.text() + &output.stderr;
    assert!(said.contains("9090") && said.to_lowercase().contains("in use"), "{said}");
    switch.ctl(&["forward", "add", "lab", "tcp/8080:10.7.0.20:81"]).fails(4, &["8080"]);
    switch.ctl(&["forward", "add", "lab", "udp/8082:10.7.0.20:81"]).fails(4, &["8082"]);
    assert_eq!(switch.json(&["forward", "list", "lab"]).as_array().map(Vec::len), Some(3));
    switch.do_("forward delete lab tcp/8080");
    let said = internet.net.talk("connect", "192.0.2.100", 8080, &[]);
    assert!(said.starts_with("ECONNREFUSED"), "the port is given back: {said}");
    drop(web);
}

/// Kilobytes of memory that a process has.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

#[test]
fn a_slow_receiver_costs_no_memory_and_gets_all() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch, a) = begin(&lab);
    let pid = switch.dataplane_pid();
    let size = "60000000";
    let before = memory(pid);
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut command = a.talk_command("slow", SERVER, PORT, &[size]);
        let mut client = Background::start(command.stdin(Stdio::piped()));
        slow.push(client.child().stdin.take().map(|input| (client, input)).expect("its input"));
    }
    for (client, _) in &slow {
        eventually(Duration::from_secs(10), || match client.stdout().contains("waiting") {
            true => Ok(()),
            false => Err(client.stderr()),
        });
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = memory(pid).saturating_sub(before);
    assert!(grown < 30_000, "{grown} KB more, with 240 MB that nobody reads");
    // Others are served meanwhile.
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "));
    let direct = internet.host.talk("get", SERVER, PORT, &[size]);
    for (client, input) in slow {
        drop(input);
        let text = client.finish(Duration::from_secs(15)).ok().text();
        assert_eq!(text.lines().last(), Some(&direct[..]));
    }
}

/// Connections that stand at the same time, and work, both at once and after a while.
fn many(a: &Space, count: usize) -> (String, usize) {
    let mut command = a.talk_command("many", SERVER, PORT, &[&count.to_string()]);
    let mut client = Background::start(command.stdin(Stdio::piped()));
    let mut input = client.child().stdin.take().expect("its input");
    let first = eventually(Duration::from_secs(60), || match client.stdout() {
        text if text.ends_with('\n') => Ok(text.trim().to_owned()),
        text => Err(format!("{text}{}", client.stderr())),
    });
    let _ = input.write_all(b"\n");
    drop(input);
    let text = client.finish(Duration::from_secs(30)).ok().text();
    (first, text.lines().nth(1).and_then(|line| line.parse().ok()).expect("a number"))
}

#[test]
fn many_connections_stand_at_once() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a) = begin(&lab);
    let count = if full() { 9_900 } else { 2_000 };
    let (first, after) = many(&a, count);
    assert_eq!(first, format!("{count} 0"), "connected, still waiting, refused");
    assert_eq!(after, count, "all of them still work");
    switch.assert_accounting();
}

#[test]
fn beyond_the_quota_connections_are_refused_in_plain_words() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a) = begin(&lab);
    let b = lab.space("b");
    switch.nat_guest("lab", "b", &b, "10.7.0.21/24", "10.7.0.1");
    b.reaches(SERVER);
    switch.do_("network set lab flow-quota=100");
    let mut command = a.talk_command("many", SERVER, PORT, &["300"]);
    let mut client = Background::start(command.stdin(Stdio::piped()));
    let first = eventually(Duration::from_secs(20), || match client.stdout() {
        text if text.ends_with('\n') => Ok(text.trim().to_owned()),
        text => Err(format!("{text}{}", client.stderr())),
    });
    let connected: usize = first.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!((90..=100).contains(&connected), "{first}");
    assert!(
        first.contains("ECONN") || first.contains("EHOST") || first.contains("EACCES"),
        "a refusal, not silence: {first}"
    );
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "), "its neighbour is not concerned");
    let told = switch.json(&["events"]).to_string();
    assert!(told.contains("quota"), "{told}");
    drop(client.child().stdin.take());
    client.finish(Duration::from_secs(20)).ok();
    // When they are gone there is room again.
    eventually(Duration::from_secs(10), || {
        let said = a.talk("connect", SERVER, PORT, &[]);
        if said == "open" { Ok(()) } else { Err(said) }
    });
}

/// The same without privileges: everything in a user namespace of an unprivileged user.
#[test]
fn a_user_without_privileges_goes_out_by_sockets() {
    let Some(lab) = Lab::open(&["unshare", "setpriv"]) else { return };
    let home = lab.folder().join("home");
    std::fs::create_dir(&home).expect("our folder");
    for program in ["switchd", "switchctl"] {
        std::fs::copy(switchd_tests::daemon::program(program), home.join(program)).expect("a copy");
    }
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("our folder");
    let path = home.to_str().expect("a plain path");
    // The daemon stands in a namespace with a wire to `net`, as that of a user with an uplink would.
    let script = r#"
set -eu
cd "$1"
mount -t tmpfs tmpfs /run
mkdir -p /run/netns run state
export XDG_RUNTIME_DIR=$1/run XDG_STATE_HOME=$1/state
ip link set lo up
ip netns add net
ip netns add a
ip link add up0 type veth peer name in0 netns net
ip address add 192.0.2.100/24 dev up0
ip link set up0 up
ip -n net link set lo up
ip -n net address add 192.0.2.1/24 dev in0
ip -n net link set in0 up
"$1/switchd" >log 2>&1 &
daemon=$!
trap 'kill $daemon; cat log' EXIT
ctl() { "$home/switchctl" "$@"; }
home=$1
ctl status --wait 15s -q
ctl network create lab --kind nat --subnet 10.7.0.0/24 --egress host
ctl port attach lab a --tap eth0 --netns a
ip -n a link set lo up
ip -n a address add 10.7.0.20/24 dev eth0
ip -n a link set eth0 up
ip -n a route add default via 10.7.0.1
ip netns exec net python3 -c "$2" serve 192.0.2.1 7000 >ready &
server=$!
for i in $(seq 100); do [ -s ready ] && break; sleep 0.1; done
ip netns exec a python3 -c "$2" who 192.0.2.1 7000
ip netns exec a python3 -c "$2" udp 192.0.2.1 7000 1
ip netns exec a python3 -c "$2" put 192.0.2.1 7000 500000
kill $server
kill $daemon
wait $daemon
trap - EXIT
echo WORKS
"#;
    let device = "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";
    #[rustfmt::skip]
    let mut user = switchd_tests::command::command(&[
        "unshare", "-m", "sh", "-c", device, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "--", "unshare", "-Urnm", "sh", "-c", script, "sh", path, switchd_tests::internet::TALK,
    ]);
    let plain = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let output = run(user.env_clear().env("PATH", plain), Duration::from_secs(60)).ok();
    let text = output.text();
    assert!(text.contains("WORKS"), "{text}{}", output.stderr);
    assert_eq!(text.lines().filter(|line| line.starts_with("192.0.2.100 ")).count(), 2, "{text}");
}
