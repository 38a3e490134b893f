//! The rtnetlink client and the link monitor against the kernel.

mod common;

use common::*;
use std::time::{Duration, Instant};
use switchd_port::netlink::{Change, Link, LinkEvent, LinkMonitor, Netlink};
use switchd_port::netns;
use switchd_port::sys::ethtool::Carriers;

fn link(netns: &Netns, name: &str) -> Option<Link> {
    Netlink::in_netns(netns.fd(), |netlink| netlink.link(name)).unwrap()
}

#[test]
fn links_are_listed_and_found_by_name_and_index() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    here.link("v0", |netlink, index| {
        netlink.change(index, &Change { mac: Some(mac(7)), mtu: Some(1400), ..Change::default() })
    });
    let links = Netlink::in_netns(here.fd(), |netlink| netlink.links()).unwrap();
    assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo", "v0"]);
    let lo = &links[0];
    assert!(lo.up && !lo.ethernet && lo.mac.is_none() && lo.own_macs().is_empty());
    let v0 = &links[1];
    assert_eq!((v0.mac, v0.mtu, v0.up, v0.carrier), (Some(mac(7)), 1400, true, true));
    assert_eq!((v0.kind.as_deref(), v0.master, v0.operstate), (Some("veth"), None, 6));
    assert_eq!(v0.own_macs(), [mac(7)]);
    assert_eq!(link(&here, "v0").as_ref(), Some(v0));
    let by_index = Netlink::in_netns(here.fd(), |netlink| netlink.link_by_index(v0.index)).unwrap();
    assert_eq!(by_index.as_ref(), Some(v0));
    for missing in ["v1", "", "no/name", "much-too-long-for-a-name"] {
        assert_eq!(link(&here, missing), None, "{missing:?}");
    }
    assert_eq!(Netlink::in_netns(here.fd(), |netlink| netlink.link_by_index(4242)).unwrap(), None);
}

#[test]
fn carrier_follows_the_far_end() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    there.link("v1", |netlink, index| netlink.set_up(index, false));
    let v0 = link(&here, "v0").unwrap();
    assert!(v0.up && !v0.carrier, "{v0:?}");
    // The short question has the same answer, at once.
    let carriers = netns::in_netns(here.fd(), Carriers::new).unwrap().unwrap();
    assert!(!carriers.has_link("v0").unwrap());
    for (end, name, up) in
        [(&there, "v1", true), (&here, "v0", false), (&here, "v0", true), (&there, "v1", false)]
    {
        end.link(name, |netlink, index| netlink.set_up(index, up));
        assert_eq!(carriers.has_link("v0").unwrap(), up, "after {name} {up}");
    }
    assert!(carriers.has_link("v9").is_err());
}

#[test]
fn a_moved_interface_has_its_new_name_unless_that_is_taken() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    let index = here.index("v0");
    let error =
        Netlink::in_netns(here.fd(), |netlink| netlink.move_to(index, there.fd(), Some("v1"))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    assert!(link(&here, "v0").is_none() && link(&there, "v0").is_some());
    there.link("v0", |netlink, index| netlink.move_to(index, here.fd(), None));
    here.link("v0", |netlink, index| netlink.move_to(index, there.fd(), Some("v2")));
    assert!(link(&here, "v0").is_none() && link(&there, "v2").is_some());
    there.link("v2", |netlink, index| netlink.rename(index, "v3"));
    assert!(link(&there, "v2").is_none() && link(&there, "v3").is_some());
    there.link("v3", |netlink, index| netlink.delete(index));
    assert!(link(&there, "v1").is_none(), "the pair goes as one");
}

#[test]
fn counters_count_frames_and_bytes() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    here.address("v0", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    let counters = || Netlink::in_netns(here.fd(), |netlink| netlink.counters("v0")).unwrap().unwrap();
    let before = counters();
    let socket = here.run(|| std::net::UdpSocket::bind("10.9.0.1:0").unwrap());
    for _ in 0..3 {
        socket.send_to(&[0; 58], "10.9.0.2:9").unwrap();
    }
    let after = counters();
    assert_eq!(after["tx_packets"] - before["tx_packets"], 3);
    assert_eq!(after["tx_bytes"] - before["tx_bytes"], 300);
    assert_eq!(Netlink::in_netns(here.fd(), |netlink| netlink.counters("none")).unwrap(), None);
}

#[test]
fn addresses_of_both_families_are_added_once() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    here.address("v0", "10.9.0.1", None);
    assert!(here.run(|| std::net::UdpSocket::bind("10.9.0.1:0")).is_ok());
    let index = here.index("v0");
    let add = |address: &str, prefix| {
        let address = address.parse().unwrap();
        Netlink::in_netns(here.fd(), |netlink| netlink.add_address(index, address, prefix))
    };
    assert_eq!(add("10.9.0.1", 24).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    here.run(|| std::fs::write("/proc/sys/net/ipv6/conf/v0/disable_ipv6", "0")).unwrap();
    add("fd00::1", 64).unwrap();
    assert_eq!(add("fd00::1", 64).unwrap_err().raw_os_error(), Some(libc::EEXIST));
}

/// Reads until `done` says so of all that was read, or two seconds have gone.
fn read_until(monitor: &mut LinkMonitor, done: impl Fn(&[LinkEvent]) -> bool) -> Vec<LinkEvent> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut events = Vec::new();
    while !done(&events) {
        assert!(Instant::now() < end, "{events:?}");
        events.extend(monitor.read().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    events
}

#[test]
fn the_monitor_tells_of_links_that_come_change_and_go() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let mut monitor = here.run(|| LinkMonitor::new().unwrap());
    assert_eq!(monitor.read().unwrap(), []);
    veth(&here, "v0", &there, "v1");
    let index = here.index("v0");
    let present = |want: fn(&Link) -> bool| {
        move |events: &[LinkEvent]| {
            events
                .iter()
                .any(|event| matches!(event, LinkEvent::Present(link) if link.name == "v0" && want(link)))
        }
    };
    read_until(&mut monitor, present(|link| link.up && link.carrier));
    there.link("v1", |netlink, index| netlink.set_up(index, false));
    read_until(&mut monitor, present(|link| link.up && !link.carrier));
    here.link("v0", |netlink, index| netlink.set_mac(index, mac(5)));
    read_until(&mut monitor, present(|link| link.mac == Some(mac(5))));
    here.link("v0", |netlink, index| netlink.delete(index));
    let gone = LinkEvent::Gone { index, name: "v0".into() };
    read_until(&mut monitor, |events| events.contains(&gone));
}

#[test]
fn an_overrun_ends_in_the_whole_present_state() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let mut monitor = here.run(|| LinkMonitor::new().unwrap());
    veth(&here, "v0", &there, "v1");
    // Some ten thousand notices, more than any buffer that we may ask for without privilege.
    here.link("v0", |netlink, index| {
        for turn in 0..10_000u32 {
            netlink.set_mtu(index, 1000 + turn % 2)?;
        }
        netlink.set_mtu(index, 1234)
    });
    let events = monitor.read().unwrap();
    assert!(monitor.overruns() > 0);
    let Some(LinkEvent::Resync(links)) = events.first() else { panic!("{:?}", events.first()) };
    assert_eq!(links.iter().map(|link| (link.name.as_str(), link.mtu)).next_back(), Some(("v0", 1234)));
    here.link("v0", |netlink, index| netlink.delete(index));
    read_until(&mut monitor, |events| events.iter().any(|event| matches!(event, LinkEvent::Gone { .. })));
}

#[test]
fn work_in_another_namespace_leaves_the_caller_where_it_is() {
    if !root() {
        return;
    }
    let inside = Netns::new();
    let at = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = at();
    assert_ne!(inside.run(at), before);
    assert_eq!(at(), before);
    assert_eq!(netns::open("no-such-namespace").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    for bad in ["", ".", "..", "../netns/x", "a/b"] {
        assert_eq!(netns::open(bad).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{bad:?}");
    }
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let refused = netns::in_netns(std::os::fd::AsFd::as_fd(&file), || ()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}
