//! The broker against a dataplane that is a few lines of this file, in namespaces of their own.

use super::captures::Captures;
use super::channel::{self, ChannelError};
use super::devices::Devices;
use super::grants::Grants;
use super::host::Host;
use super::kept::Kept;
use super::messages::*;
use super::*;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use switchd_port::netlink::{LinkEvent, LinkMonitor, Netlink};

fn round_trip<T>(message: T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(decode::<T>(&encode(&message).unwrap()).unwrap(), message);
}

#[test]
fn messages_survive_the_way() {
    round_trip(Request::OpenTap(tap("vm1.0", Some("guest"))));
    round_trip(Request::Retain { taps: vec![("a".into(), None)], netdevs: vec!["b".into()], more: true });
    round_trip(Reply::Refused(Refused { errno: Some(16), message: "busy".into() }));
    round_trip(Reply::Netdev {
        index: 3,
        macs: vec![[2; 6]],
        mtu: 1500,
        carrier: true,
        speed: 10_000,
        full_duplex: true,
    });
    round_trip(Request::Listen(ListenRequest { protocol: Protocol::Udp, address: [0; 4].into(), port: 53 }));
    round_trip(Notice::Link {
        name: "eth0".into(),
        index: 2,
        up: true,
        carrier: false,
        mac: Some([1; 6]),
        mtu: 9000,
        gone: false,
    });
}

#[test]
fn damaged_messages_are_errors() {
    let good = encode(&Request::Link { name: "eth0".into() }).unwrap();
    for len in 0..good.len() {
        assert!(decode::<Request>(&good[..len]).is_err(), "{len}");
    }
    assert!(matches!(decode::<Request>(&[&good[..], &[0]].concat()), Err(CodecError::Trailing(1))));
    assert!(decode::<Request>(&[0xff; 64]).is_err());
    assert!(matches!(encode(&vec![0u64; MESSAGE_MAX + 1]), Err(CodecError::TooLong(_))));
}

#[test]
fn descriptors_travel_beside_a_message() {
    let (a, b) = channel::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    channel::send(&a, &7u8, &[file.as_fd(), a.as_fd()], true).unwrap();
    let (value, fds) = channel::receive::<u8>(&b, true).unwrap();
    assert_eq!((value, fds.len()), (7, 2));
    let opened = std::fs::File::from(fds.into_iter().next().unwrap()).metadata().unwrap();
    assert_eq!(opened.ino(), file.metadata().unwrap().ino());
    assert!(matches!(channel::receive::<u8>(&b, false), Err(ChannelError::WouldBlock)));
    drop(a);
    assert!(matches!(channel::receive::<u8>(&b, true), Err(ChannelError::Ended)));
}

#[test]
fn a_largest_message_fits_into_the_socket() {
    let (a, b) = channel::pair().unwrap();
    let most = Request::Retain {
        taps: vec![("t".repeat(15), Some("n".repeat(200))); RETAIN_PART],
        netdevs: vec!["d".repeat(15); RETAIN_PART],
        more: false,
    };
    channel::send(&a, &most, &[], false).unwrap();
    assert_eq!(channel::receive::<Request>(&b, false).unwrap().0, most);
}

fn tap(name: &str, netns: Option<&str>) -> TapRequest {
    TapRequest { name: name.into(), netns: netns.map(Into::into), mtu: 1500, mac: [2, 0, 0, 0, 0, 9] }
}

fn netdev(name: &str, role: Role) -> NetdevRequest {
    NetdevRequest { name: name.into(), role, mtu: 1500 }
}

/// Runs `work` on a thread in a network namespace of its own; says so when it cannot.
fn isolated(work: impl FnOnce() + Send + 'static) {
    let done = std::thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err()
            || !rustix::process::geteuid().is_root()
        {
            assert!(std::env::var_os("SWITCHD_TESTS_REQUIRE").is_none(), "needs root");
            eprintln!("SKIPPED: needs root, for a network namespace and taps");
            return;
        }
        work();
    });
    done.join().unwrap();
}

type Shared = Arc<Mutex<Grants>>;

/// A broker for the calling thread's namespace.
fn broker() -> (tempfile::TempDir, Shared) {
    let folder = tempfile::tempdir().unwrap();
    let captures = Captures::new(folder.path().join("captures"), None);
    let (devices, host) = (Devices::new().unwrap(), Host::new().unwrap());
    (folder, Arc::new(Mutex::new(Grants { devices, captures, host, kept: Kept::default() })))
}

/// A dataplane of the given generation; the broker's side ends when the client is dropped.
fn connect(grants: &Shared, generation: u32) -> BrokerClient {
    let (near, far) = channel::pair().unwrap();
    let grants = grants.clone();
    std::thread::spawn(move || {
        loop {
            let mut fds = [PollFd::new(&near, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            if grants.lock().unwrap().serve(&near, generation).ended {
                return;
            }
        }
    });
    BrokerClient::new(far).unwrap()
}

fn sh(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

struct Named(String);

impl Named {
    fn add(what: &str) -> Named {
        let name = format!("br-{what}-{}", std::process::id());
        sh(&format!("ip netns add {name}"));
        Named(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ =
            Command::new("ip").args(["netns", "del", &self.0]).stderr(std::process::Stdio::null()).status();
    }
}

fn index_of(name: &str) -> Option<u32> {
    Netlink::new().unwrap().link(name).unwrap().map(|link| link.index)
}

fn is_guarded(name: &str) -> bool {
    let guards = switchd_port::host_guard::guarded(&mut Netlink::new().unwrap()).unwrap();
    guards.iter().any(|guard| guard.name == name)
}

#[test]
fn a_restarted_dataplane_gets_the_same_tap_without_a_carrier_change() {
    isolated(|| {
        let (_folder, grants) = broker();
        let first = connect(&grants, 0);
        let grant = first.open_tap(tap("vm1.0", None)).unwrap();
        assert!(!grant.reattached);
        assert_eq!(index_of("vm1.0"), Some(grant.index));
        let mut monitor = LinkMonitor::new().unwrap();
        // The dataplane dies, with all its descriptors.
        drop((first, grant.fd));
        let second = connect(&grants, 1);
        let again = second.open_tap(tap("vm1.0", None)).unwrap();
        assert!(again.reattached);
        assert_eq!(again.index, grant.index);
        let flaps = monitor.read().unwrap();
        assert!(
            !flaps.iter().any(|event| match event {
                LinkEvent::Present(link) => link.name == "vm1.0" && !link.carrier,
                _ => true,
            }),
            "{flaps:?}"
        );
        // What was deleted underneath is made anew.
        sh("ip link del vm1.0");
        let third = second.open_tap(tap("vm1.0", None)).unwrap();
        assert!(!third.reattached);
        assert_ne!(third.index, grant.index);
        second.close_tap("vm1.0", None).unwrap();
        assert_eq!(index_of("vm1.0"), None);
    });
}

#[test]
fn a_tap_stands_in_its_namespace_and_leaves_it_free_to_go() {
    isolated(|| {
        let guest = Named::add("tap");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let grant = client.open_tap(tap("eth0", Some(&guest.0))).unwrap();
        assert!(!grant.reattached);
        sh(&format!("ip -n {} link show eth0 | grep -q LOWER_UP", guest.0));
        assert!(client.kernel_counters("eth0", Some(&guest.0)).unwrap().contains_key("rx_packets"));
        client.set_tap_mtu("eth0", Some(&guest.0), 9000).unwrap();
        sh(&format!("ip -n {} link show eth0 | grep -q 'mtu 9000'", guest.0));
        // As a daemon that was killed leaves it: persistent, taken up from inside.
        drop(grant.fd);
        grants.lock().unwrap().devices = Devices::new().unwrap();
        let again = client.open_tap(tap("eth0", Some(&guest.0))).unwrap();
        assert!(again.reattached);
        let name = guest.0.clone();
        drop(guest);
        let notices = changes(&grants, |notices| !notices.is_empty());
        assert_eq!(notices, [Notice::NetnsGone(name.clone())]);
        // The last descriptor that leads into it: with it the namespace and the tap are gone.
        drop(again.fd);
        let refused = client.open_tap(tap("eth0", Some(&name))).unwrap_err();
        assert!(refused.message.contains("ip netns add"), "{}", refused.message);
        sh(&format!("ip netns add {name}"));
        let _guest = Named(name.clone());
        let notices = changes(&grants, |notices| !notices.is_empty());
        assert_eq!(notices, [Notice::NetnsAppeared(name.clone())]);
        assert!(!client.open_tap(tap("eth0", Some(&name))).unwrap().reattached);
    });
}

/// Waits for the poll event of the namespace watch, as the broker's loop does.
fn changes(grants: &Shared, enough: impl Fn(&[Notice]) -> bool) -> Vec<Notice> {
    let start = Instant::now();
    let mut notices = Vec::new();
    while !enough(&notices) && start.elapsed() < Duration::from_secs(5) {
        let mut grants = grants.lock().unwrap();
        {
            let mut fds = [PollFd::from_borrowed_fd(grants.devices.namespaces.descriptor(), PollFlags::PRI)];
            let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut fds, Some(&second)).unwrap();
        }
        notices.extend(grants.devices.namespace_changes());
    }
    notices
}

#[test]
fn interfaces_of_others_are_left_alone() {
    isolated(|| {
        sh("ip link add veth0 type veth peer name veth1 && ip tuntap add dev held mode tap");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let refused = client.open_tap(tap("veth0", None)).unwrap_err();
        assert!(refused.message.contains("veth"), "{}", refused.message);
        assert!(index_of("veth0").is_some());
        // Closing what was never granted deletes nothing.
        client.close_tap("veth0", None).unwrap();
        client.close_tap("held", None).unwrap();
        assert!(index_of("veth0").is_some() && index_of("held").is_some());
        let refused = client.open_tap(tap("held", None)).unwrap_err();
        assert!(refused.message.contains("switchd did not make"), "{}", refused.message);
        sh("ip link set held alias switchd");
        let control = switchd_port::sys::tun::open_control().unwrap();
        switchd_port::sys::tun::attach(&control, "held").unwrap();
        let refused = client.open_tap(tap("held", None)).unwrap_err();
        assert!(refused.message.contains("another program holds it"), "{}", refused.message);
        for bad in ["tap%d", "a\nb", "../x", "", "sixteen-bytes-xx"] {
            assert!(client.open_tap(tap(bad, None)).is_err(), "{bad:?}");
            assert!(client.open_netdev(netdev(bad, Role::Port)).is_err(), "{bad:?}");
            assert!(client.link(bad).is_err(), "{bad:?}");
        }
        for bad in ["..", "../../etc", "a b", ""] {
            assert!(client.open_tap(tap("t", Some(bad))).is_err(), "{bad:?}");
        }
        assert!(client.open_tap(TapRequest { mtu: 9217, ..tap("t", None) }).is_err());
        assert!(client.open_tap(TapRequest { mac: [1; 6], ..tap("t", None) }).is_err());
    });
}

#[test]
fn a_netdev_is_granted_once_and_given_back() {
    isolated(|| {
        sh("ip link set lo up && ip link add vm0 type veth peer name vm1 && ip link set vm1 up");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        assert!(client.open_netdev(netdev("lo", Role::Port)).is_err());
        let missing = client.open_netdev(netdev("nothere", Role::Port)).unwrap_err();
        assert_eq!(missing.errno, Some(rustix::io::Errno::NODEV.raw_os_error()));
        let grant = client.open_netdev(netdev("vm0", Role::Port)).unwrap();
        assert_eq!((grant.macs.len(), grant.mtu), (1, 1500));
        assert!(is_guarded("vm0"));
        sh("ip link show vm0 | grep -q ,UP");
        assert!(client.open_netdev(netdev("vm0", Role::Uplink)).is_err());
        let mtu = NetdevRequest { mtu: 9000, ..netdev("vm0", Role::Port) };
        assert!(client.open_netdev(mtu).unwrap_err().message.contains("1500"));
        // The same queue for the next dataplane: what waits in it is not lost.
        drop((grant.fd, client));
        let client = connect(&grants, 1);
        client.open_netdev(netdev("vm0", Role::Port)).unwrap();
        client.close_netdev("vm0").unwrap();
        assert!(!is_guarded("vm0"));
        sh("! ip link show vm0 | grep -q ,UP");
        // An uplink keeps the host's stack.
        client.open_netdev(netdev("vm0", Role::Uplink)).unwrap();
        assert!(!is_guarded("vm0"));
        client.open_tap(tap("own", None)).unwrap();
        assert!(client.open_netdev(netdev("own", Role::Port)).is_err());
    });
}

#[test]
fn what_is_not_retained_is_released() {
    isolated(|| {
        sh("ip link add vm0 type veth peer name vm1");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let taps: Vec<_> = (0..4).map(|n| client.open_tap(tap(&format!("t{n}"), None)).unwrap()).collect();
        let port = client.open_netdev(netdev("vm0", Role::Port)).unwrap();
        drop((client, taps, port));
        let client = connect(&grants, 1);
        client.retain(&[("t1".into(), None), ("t3".into(), None)], &[]).unwrap();
        assert_eq!(["t0", "t1", "t2", "t3"].map(|name| index_of(name).is_some()), [false, true, false, true]);
        assert!(!is_guarded("vm0"));
    });
}

#[test]
fn links_that_were_asked_for_are_told() {
    isolated(|| {
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        assert!(client.link("vm0").is_err());
        sh("ip link add vm0 type veth peer name vm1 && ip link set vm0 up && ip link set vm1 up");
        let told = || grants.lock().unwrap().devices.link_changes().unwrap();
        let notices = told();
        assert!(
            matches!(notices.last(), Some(Notice::Link { name, up: true, carrier: true, gone: false, .. }) if name == "vm0"),
            "{notices:?}"
        );
        assert!(notices.iter().all(|notice| matches!(notice, Notice::Link { name, .. } if name == "vm0")));
        sh("ip link set vm0 down && ip link set vm0 name other");
        assert!(matches!(told().last(), Some(Notice::Link { name, gone: true, .. }) if name == "vm0"));
        sh("ip link set other name vm0");
        assert!(matches!(told().last(), Some(Notice::Link { gone: false, .. })));
        sh("ip link del vm0");
        assert!(matches!(told().last(), Some(Notice::Link { gone: true, .. })));
    });
}

#[test]
fn captures_are_granted_beneath_their_directory_only() {
    isolated(|| {
        let (folder, grants) = broker();
        let client = connect(&grants, 0);
        let grant = client.open_capture("lab/a.pcapng").unwrap();
        assert_eq!((grant.existed, grant.len), (false, 0));
        assert_eq!(grant.path, folder.path().join("captures/lab/a.pcapng"));
        assert!(client.open_capture("../a.pcapng").is_err());
        assert!(client.open_capture("/etc/passwd").is_err());
        assert!(client.remove_capture("lab/b.pcapng").is_err());
        client.remove_capture("lab/a.pcapng").unwrap();
        assert!(!grant.path.exists());
    });
}

#[test]
fn the_hosts_addresses_and_the_routes_that_overlap_are_told_with_their_changes() {
    isolated(|| {
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let prefix = |address: [u8; 4], len| Prefix { address: address.into(), len };
        let wanted = [prefix([10, 7, 0, 0], 24)];
        assert_eq!(client.host_net(&wanted).unwrap(), (Vec::new(), Vec::new()));
        sh("ip link add vm0 type veth peer name vm1 && ip link set vm0 up && ip link set vm1 up");
        sh(
            "ip addr add 10.0.0.1/8 dev vm0 && ip addr add 192.0.2.1/24 dev vm1 && ip route add default via 10.0.0.9",
        );
        let told = |grants: &Shared, now| grants.lock().unwrap().host.changes(now);
        let now = Instant::now();
        assert_eq!(told(&grants, now), Some(Notice::HostChanged));
        let (addresses, routes) = client.host_net(&wanted).unwrap();
        let mut held: Vec<_> = addresses
            .iter()
            .filter(|row| row.prefix.address.is_ipv4())
            .map(|row| format!("{} {}", row.interface, row.prefix))
            .collect();
        held.sort();
        assert_eq!(held, ["vm0 10.0.0.1/8", "vm1 192.0.2.1/24"]);
        assert_eq!(
            routes,
            [HostRoute { prefix: prefix([10, 0, 0, 0], 8), interface: Some("vm0".into()) }],
            "neither the default route nor one that has nothing to do with it"
        );
        // Changes in a row are one notice a second.
        sh("ip addr add 192.0.2.2/24 dev vm1");
        assert_eq!(told(&grants, now), None);
        let due = grants.lock().unwrap().host.due().unwrap();
        assert_eq!(due, now + super::host::LEAST);
        assert_eq!(told(&grants, due), Some(Notice::HostChanged));
        assert_eq!(grants.lock().unwrap().host.due(), None);
    });
}

#[test]
fn ping_sockets_are_given_and_raw_ones_where_nobody_may_have_one() {
    isolated(|| {
        use rustix::net::{SocketType, sockopt};
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        for (range, kind) in [("1 0", SocketType::RAW), ("0 2147483647", SocketType::DGRAM)] {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap();
            for v6 in [false, true] {
                let socket = client.ping_socket(v6).unwrap();
                assert_eq!(sockopt::socket_type(&socket).unwrap(), kind, "{range}, v6: {v6}");
            }
        }
    });
}

#[test]
fn low_ports_are_listened_on_for_the_dataplane() {
    isolated(|| {
        sh("ip link set lo up");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let request = ListenRequest { protocol: Protocol::Tcp, address: [0; 4].into(), port: 80 };
        let socket = client.listen(request).unwrap();
        let near = std::net::TcpStream::connect("127.0.0.1:80").unwrap();
        assert!(std::net::TcpListener::from(socket).accept().is_ok());
        drop(near);
    });
}

#[test]
fn what_a_dataplane_keeps_is_there_for_the_next_one() {
    let (_folder, grants) = broker();
    let first = connect(&grants, 0);
    assert_eq!(first.kept("bond:b0").unwrap(), None);
    first.keep("bond:b0", &[1, 2, 3]).unwrap();
    drop(first);
    let second = connect(&grants, 1);
    assert_eq!(second.kept("bond:b0").unwrap(), Some(vec![1, 2, 3]));
    assert!(second.keep("bond:b0", &vec![0; 100_000]).is_err());
    assert_eq!(second.kept("bond:b0").unwrap(), None, "an old state is worse than none");
}

#[test]
fn a_veth_says_its_speed() {
    isolated(|| {
        sh("ip link add vm0 type veth peer name vm1 && ip link set vm0 up && ip link set vm1 up");
        let (_folder, grants) = broker();
        let client = connect(&grants, 0);
        let grant = client.open_netdev(netdev("vm0", Role::Uplink)).unwrap();
        assert_eq!((grant.speed, grant.full_duplex), (10_000, true));
        let link = client.link("vm1").unwrap();
        assert_eq!((link.speed, link.full_duplex), (10_000, true));
        client.open_tap(tap("t0", None)).unwrap();
        assert_eq!(client.link("t0").unwrap().speed, 10_000);
    });
}

#[test]
fn a_broker_that_ends_is_told_from_one_that_refuses() {
    let (near, far) = channel::pair().unwrap();
    let client = BrokerClient::new(far).unwrap();
    drop::<OwnedFd>(near);
    let refused = client.link("eth0").unwrap_err();
    assert!(refused.message.contains("broker"), "{}", refused.message);
}
