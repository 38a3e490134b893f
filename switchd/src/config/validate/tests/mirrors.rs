//! Rules of mirrors and capture files.

use super::*;

#[test]
fn a_mirror_has_sources_that_exist() {
    let source =
        |list: &[&str]| mirror(|spec| spec.source = list.iter().map(|&text| text.to_owned()).collect());
    assert_eq!(source(&[]), ["mirror m: source 0: a mirror has 1 to 64 sources"]);
    assert_eq!(
        source(&["port:vm1", "port:vm1"]),
        ["mirror m: source.1 \"port:vm1\": this source is named twice"]
    );
    assert_eq!(source(&["port:vm9"]), ["mirror m: source.0 \"port:vm9\": there is no such port"]);
    assert_eq!(source(&["network:x"]), ["mirror m: source.0 \"network:x\": there is no such network"]);
    assert_eq!(
        source(&["port:uplink:eth7"]),
        ["mirror m: source.0 \"port:uplink:eth7\": no network has this uplink"]
    );
    assert_eq!(
        source(&["port:gateway:lab"]),
        ["mirror m: source.0 \"port:gateway:lab\": a gateway is no port that can be watched"]
    );
    assert_eq!(
        source(&["port:member:eth1"]),
        ["mirror m: source.0 \"port:member:eth1\": a member is watched with its bond"]
    );
    assert_eq!(source(&["bond:b"]), ["mirror m: source.0 \"bond:b\": there is no such bond"]);
    for odd in ["vm1", "uplink:eth0", "", "port"] {
        assert_eq!(
            source(&[odd]),
            [format!("mirror m: source.0 {odd:?}: expected port:NAME, network:NAME or bond:NAME")]
        );
    }
}

#[test]
fn a_mirror_has_a_target_that_exists() {
    let to = |to: &str| mirror(|spec| spec.to = to.to_owned());
    assert_eq!(to("port:vm9"), ["mirror m: to \"port:vm9\": there is no such port"]);
    assert_eq!(to("network:lab"), ["mirror m: to \"network:lab\": expected pcap:FILE or port:NAME"]);
    assert_eq!(to(""), ["mirror m: to \"\": expected pcap:FILE or port:NAME"]);
}

#[test]
fn capture_files_stay_beneath_the_capture_directory() {
    let path = |text: &str| {
        let checked = check(|desired| desired.mirror.get_mut("m").unwrap().to = format!("pcap:{text}"));
        checked.map(|plan| plan.mirrors["m"].to.clone()).map_err(|problems| problems[0].message.clone())
    };
    for (text, file) in [
        ("a.pcapng", "a.pcapng"),
        ("deep/./b//c.pcapng", "deep/b/c.pcapng"),
        ("/var/lib/switchd/captures/x/y", "x/y"),
        ("...", "..."),
        ("ü :.pcapng", "ü :.pcapng"),
    ] {
        assert_eq!(path(text), Ok(Target::Capture(file.into())), "{text:?}");
    }
    let long = "x".repeat(256);
    for (text, rule) in [
        ("", "a capture file's path has 1 to 1024 bytes"),
        ("../x", "a path has no .. in it"),
        ("a/../../x", "a path has no .. in it"),
        ("/var/lib/switchd/captures/../x", "a path has no .. in it"),
        ("/etc/passwd", "an absolute path must lie beneath the capture directory"),
        ("/var/lib/switchd/captures2/x", "an absolute path must lie beneath the capture directory"),
        ("/var/lib/switchd/captures", "this is a folder, not a file"),
        ("a/", "this is a folder, not a file"),
        (".", "this is a folder, not a file"),
        ("a\nb", "a path has no control characters"),
        ("a\0b", "a path has no control characters"),
        (&long, "a file or folder name has at most 255 bytes"),
    ] {
        assert_eq!(path(text), Err(rule.to_owned()), "{text:?}");
    }
}

#[test]
fn two_mirrors_do_not_write_one_file() {
    let problems = check(|desired| {
        desired.mirror.insert(name("n"), mirror_to("pcap:./m.pcapng", &["port:vm2"]));
    })
    .unwrap_err();
    assert_eq!(problems[0].to_string(), "mirror n: to \"pcap:./m.pcapng\": mirror m writes m.pcapng already");
    assert_eq!(problems[0].code, ErrorCode::Conflict);
}

#[test]
fn mirrors_do_not_feed_themselves() {
    assert_eq!(
        mirror(|spec| spec.to = "port:vm1".into()),
        ["mirror m: to \"port:vm1\": the target is among the mirror's own sources"]
    );
    let two = refused(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1"]));
        desired.mirror.insert(name("b"), mirror_to("port:vm1", &["port:vm2"]));
    });
    assert_eq!(
        two,
        [
            "mirror a: to \"port:vm2\": copies would come round again by mirror b",
            "mirror b: to \"port:vm1\": copies would come round again by mirror a"
        ]
    );
    let three = refused(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1"]));
        desired.mirror.insert(name("b"), mirror_to("port:pc", &["port:vm2"]));
        desired.mirror.insert(name("c"), mirror_to("port:vm1", &["port:pc"]));
    });
    assert_eq!(three.len(), 3, "{three:?}");
    assert!(three[0].ends_with("copies would come round again by mirror b or c"), "{three:?}");
    // A chain without an end that closes it, and a network that the target stands in: fine.
    let fine = check(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1", "network:lab"]));
        desired.mirror.insert(name("b"), mirror_to("port:pc", &["port:vm2"]));
    });
    assert!(fine.is_ok(), "{fine:?}");
}

#[test]
fn rotation_is_for_files_and_counts_need_a_cause() {
    assert_eq!(
        mirror(|spec| spec.rotate_count = Some(3)),
        ["mirror m: rotate-count 3: there is nothing to count without rotate-size or rotate-time"]
    );
    assert_eq!(
        mirror(|spec| (spec.rotate_count, spec.rotate_time) = (Some(0), Some("1h".into()))),
        ["mirror m: rotate-count 0: the number of files kept is 1 to 100000"]
    );
    assert_eq!(
        mirror(|spec| spec.rotate_size = Some("10X".into())),
        ["mirror m: rotate-size \"10X\": expected 1K to 1024G: bytes, or with K, M or G, as in 10M"]
    );
    assert_eq!(
        mirror(|spec| spec.rotate_time = Some("1y".into())),
        ["mirror m: rotate-time \"1y\": expected 1s to 366d: seconds, or with s, m, h or d, as in 5m"]
    );
    let to_port = mirror(|spec| {
        spec.to = "port:pc".into();
        (spec.snaplen, spec.segment, spec.rotate_size) = (Some(100), true, Some("1M".into()));
    });
    let expected = ["snaplen", "segment", "rotate-size"]
        .map(|key| format!("mirror m: {key}: this is only for a mirror to a file"));
    assert_eq!(to_port, expected);
}

#[test]
fn filters_are_bounded_text() {
    assert_eq!(
        mirror(|spec| spec.filter = Some("x".repeat(4097))),
        ["mirror m: filter of 4097 bytes: a filter has at most 4096 bytes"]
    );
    assert_eq!(
        mirror(|spec| spec.filter = Some("tcp\0".into())),
        ["mirror m: filter \"tcp\\0\": a filter has no control characters"]
    );
}
