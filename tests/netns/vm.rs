//! A guest with a kernel of its own: QEMU holds the queue of its tap, switchd the host's side.

use std::path::PathBuf;
use std::time::Duration;
use switchd_tests::{Background, Daemon, Lab, Space, command, eventually, run};

/// A boot under software emulation.
const BOOT: Duration = Duration::from_secs(90);

/// Kernel and initrd, made once and kept below the build folder.
pub fn image() -> PathBuf {
    let folder = switchd_tests::daemon::target_folder().join("peers");
    let mut make = command::command(&["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/harness/guest.sh")]);
    run(make.arg(&folder), Duration::from_secs(180)).ok();
    folder
}

fn boot(host: &Space, tap: &str, address: &str, target: &str) -> Background {
    let image = image();
    let file = |name: &str| image.join(name).to_str().expect("a plain path").to_owned();
    let append =
        format!("console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable ip={address} ping={target}");
    let tap = format!("tap,id=n0,ifname={tap},script=no,downscript=no");
    host.background(&[
        "qemu-system-x86_64",
        "-M",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-m",
        "256",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-kernel",
        &file("vmlinuz"),
        "-initrd",
        &file("initrd.gz"),
        "-append",
        &append,
        "-serial",
        "stdio",
        "-netdev",
        &tap,
        "-device",
        "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,romfile=",
    ])
}

pub fn pings(vm: &Background, count: usize) {
    eventually(BOOT, || match vm.stdout().matches("bytes from").count() {
        seen if seen >= count => Ok(()),
        seen => Err(format!("{seen} answers at the guest:\n{}{}", vm.stdout(), vm.stderr())),
    });
}

#[test]
fn a_vm_that_holds_its_tap_is_a_guest_like_any_other() {
    let Some(lab) = Lab::alone(&["qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb"]) else {
        return;
    };
    let (host, a) = (lab.space("host"), lab.space("a"));
    host.ip(&["tuntap", "add", "dev", "vm0", "mode", "tap", "vnet_hdr"]);
    host.ip(&["link", "set", "vm0", "up"]);
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.do_("port attach cell vm --netdev vm0");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    let vm = boot(&host, "vm0", "10.1.0.5/24", "10.1.0.1");
    pings(&vm, 3);
    a.reaches("10.1.0.5");
    assert_eq!(a.pings("10.1.0.5", 20, "0.05").lost(), 0);
    switch.wait_port("vm", "up");
    // The host's own stack does not hear the guest.
    host.address("vm0", "10.1.0.200/24");
    a.does_not_reach("10.1.0.200");
    // The VM ends, and starts anew: the tap stays, its carrier goes and comes.
    drop(vm);
    switch.wait_port("vm", "down");
    let vm = boot(&host, "vm0", "10.1.0.5/24", "10.1.0.1");
    pings(&vm, 3);
    a.reaches("10.1.0.5");
    drop(vm);
    // QEMU makes the tap itself: it is gone with QEMU, and bound again when it reappears.
    host.ip(&["link", "delete", "vm0"]);
    let gone = switch.wait_port("vm", "down");
    assert!(gone["reason"].as_str().is_some_and(|reason| reason.contains("vm0")), "{gone}");
    let vm = boot(&host, "vm0", "10.1.0.5/24", "10.1.0.1");
    eventually(BOOT, || if host.has("vm0") { Ok(()) } else { Err("no tap".into()) });
    host.ip(&["link", "set", "vm0", "up"]);
    pings(&vm, 3);
    a.reaches("10.1.0.5");
    switch.wait_port("vm", "up");
    drop(vm);
}
