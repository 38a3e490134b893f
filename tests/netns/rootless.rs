//! Without root: an unprivileged user makes a user namespace and runs everything in it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use switchd_tests::{Lab, command, run};

/// What the user does, in `unshare -Urnm`.
const SCRIPT: &str = r#"
set -eu
cd "$1"
mount -t tmpfs tmpfs /run
mkdir -p /run/netns run state
export XDG_RUNTIME_DIR=$1/run XDG_STATE_HOME=$1/state
ip link set lo up
ip link add up0 type veth peer name lan0
ip link set up0 up
ip link set lan0 up
"$2/switchd" >log 2>&1 &
daemon=$!
trap 'kill $daemon; cat log' EXIT

ctl() { "$bin/switchctl" "$@"; }
bin=$2
ctl status --wait 15s -o json >status.json
ip netns add a
ip netns add b
ctl network create cell --kind isolated
ctl network create office --kind bridged --uplink up0
ctl port attach cell a --tap eth0 --netns a
ctl port attach cell b --tap eth0 --netns b
for n in a b; do ip -n $n link set lo up; done
ip -n a address add 10.1.0.1/24 dev eth0
ip -n b address add 10.1.0.2/24 dev eth0
ip -n a link set eth0 up
ip -n b link set eth0 up
ctl mirror create m --source network:cell --to pcap:m.pcapng
ip netns exec a ping -n -q -c 3 -i 0.2 -W 2 10.1.0.2
ctl port list
ctl mirror delete m
test -s state/switchd/captures/m.pcapng
kill $daemon
wait $daemon
trap - EXIT
echo WORKS
"#;

#[test]
fn everything_works_for_a_user_without_privileges() {
    let Some(lab) = Lab::open(&["unshare", "setpriv"]) else { return };
    // Programs and files where any user may go.
    let home = lab.folder().join("home");
    std::fs::create_dir(&home).expect("our folder");
    for program in ["switchd", "switchctl"] {
        std::fs::copy(switchd_tests::daemon::program(program), home.join(program)).expect("a copy");
    }
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).expect("our folder");
    let path = home.to_str().expect("a plain path");
    // Udev gives everyone /dev/net/tun; not every container does.
    let device = "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";
    let mut user = command::command(&[
        "unshare",
        "-m",
        "sh",
        "-c",
        device,
        "sh",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        "unshare",
        "-Urnm",
        "sh",
        "-c",
        SCRIPT,
        "sh",
        path,
        path,
    ]);
    let output = run(
        user.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()),
        Duration::from_secs(60),
    );
    let output = output.ok();
    assert!(output.text().contains("WORKS"), "{}{}", output.text(), output.stderr);
    let status = std::fs::read_to_string(home.join("status.json")).expect("the status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["mode"], "rootless");
    assert!(status["sandbox"].to_string().contains("seccomp"), "{status}");
}
