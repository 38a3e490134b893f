//! Guests with a kernel of their own behind NAT: addresses by DHCP, a file from outside and one from each
//! other, and all of it again after a crash of the switch.

use crate::vhost::boot_with;
use crate::vm::pings;
use std::time::Duration;
use switchd_tests::internet::{HOSTED, PORT, SERVER};
use switchd_tests::{Background, Daemon, Lab, eventually};

const PATIENCE: Duration = Duration::from_secs(120);

fn says(guest: &Background, words: &str) -> String {
    eventually(PATIENCE, || {
        let text = guest.stdout();
        let line = text.lines().find_map(|line| line.split_once(words));
        line.map(|(_, rest)| rest.trim().to_owned())
            .ok_or_else(|| format!("no {words:?}:\n{text}{}", guest.stderr()))
    })
}

#[test]
fn two_kernels_get_addresses_and_files_through_nat_and_outlive_a_crash() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb"];
    let Some(lab) = Lab::alone(&programs) else { return };
    let mut internet = lab.internet();
    internet.start();
    let mut switch = Daemon::start(&lab, &internet.host);
    switch.do_(HOSTED);
    let socket = |name: &str| lab.folder().join(name).to_str().expect("a plain path").to_owned();
    let (one, two) = (socket("vh0"), socket("vh1"));
    let [first, second] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
    switch.do_(&format!("port attach lab a --vhost-user {one} --server --mac {first} --reserve 10.7.0.20"));
    switch.do_(&format!("port attach lab b --vhost-user {two} --mac {second} --reserve 10.7.0.21"));
    let asks = format!("get={SERVER}/{PORT}/3000000");
    let chardev = format!("path={one},reconnect=1");
    let a =
        boot_with(&internet.host, &chardev, first, &format!("ip=dhcp ping=10.7.0.21 {asks} echo=10.7.0.21"));
    let chardev = format!("path={two},server=on,wait=off");
    let b = boot_with(&internet.host, &chardev, second, &format!("ip=dhcp ping=10.7.0.20 {asks}"));
    assert!(says(&a, "ADDRESS ").starts_with("10.7.0.20"));
    assert!(says(&b, "ADDRESS ").starts_with("10.7.0.21"));
    let direct = internet.host.talk("get", SERVER, PORT, &["3000000"]);
    for guest in [&a, &b] {
        let digest = says(guest, "GOT ");
        assert!(direct.ends_with(digest.trim_end_matches(" -").trim()), "{digest} is not {direct}");
    }
    assert_eq!(says(&a, "ECHO "), "the same");
    pings(&a, 3);
    pings(&b, 3);
    let leases = switch.json(&["lease", "list", "lab"]).to_string();
    assert!(leases.contains(first) && leases.contains(second), "{leases}");
    let seen = [&a, &b].map(|guest| guest.stdout().matches("bytes from").count());
    switch.crash();
    switch.restart();
    switch.wait_port("a", "up");
    switch.wait_port("b", "up");
    pings(&a, seen[0] + 5);
    pings(&b, seen[1] + 5);
    for port in ["a", "b"] {
        assert_eq!(switch.count(port, "unreadable"), 0);
    }
    drop((a, b));
}
