//! Old or new, never a mix, never neither.

use super::*;
use crate::document::sealed;
use crate::simulated::Simulated;
use proptest::prelude::*;
use std::fs;
use switchd_api::model::{Admin, Kind, NetworkSpec, PortSpec};
use switchd_api::name::Name;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A network with `ports` ports.
fn desired(ports: usize) -> Desired {
    let mut desired = Desired::default();
    let network = NetworkSpec {
        kind: Kind::Isolated,
        uplink: None,
        vlan: None,
        mtu: Some(9000),
        ageing: None,
        mac_limit: None,
        fdb: BTreeMap::from([("02:00:00:00:00:01@5".into(), "vm0".into())]),
        ..NetworkSpec::default()
    };
    desired.network.insert(name("a.b"), network);
    for port in 0..ports {
        let spec = PortSpec {
            network: name("a.b"),
            tap: Some(format!("tap\"{port}")),
            netns: None,
            netdev: None,
            mac: None,
            vlan: Some("trunk=10,native=1".into()),
            admin: Admin::Down,
            mac_limit: None,
            ..PortSpec::on(name("a.b"))
        };
        desired.port.insert(name(&format!("vm{port}")), spec);
    }
    desired
}

fn counter() -> impl FnMut() -> [u8; 6] {
    let mut next = 0u8;
    move || {
        next += 1;
        [0xff, 0, 0, 0, 0, next]
    }
}

fn reopen(dir: &Path) -> Loaded {
    Store::open(dir).unwrap().1
}

#[test]
fn what_was_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!(loaded, Loaded::default());
    for ports in [3, 0, 5] {
        store.save_desired(&desired(ports)).unwrap();
        let loaded = reopen(dir.path());
        assert_eq!(loaded.desired, Some(desired(ports)));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    let text = fs::read_to_string(dir.path().join("desired.toml.prev")).unwrap();
    assert!(text.starts_with("# switchd state 1, ") && !text.contains("vm0\"]"), "{text}");
}

#[test]
fn an_empty_configuration_that_was_saved_is_not_the_same_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&Desired::default()).unwrap();
    assert_eq!(reopen(dir.path()).desired, Some(Desired::default()));
}

#[test]
fn files_are_private_and_no_temporary_one_stays() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            entry.file_name().into_string().unwrap()
        })
        .collect();
    names.sort();
    assert_eq!(names, ["desired.toml", "desired.toml.prev"]);
}

#[test]
fn a_file_cut_at_any_length_gives_the_one_before_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    let path = dir.path().join("desired.toml");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = reopen(dir.path());
        assert_eq!(loaded.desired, Some(desired(1)), "cut at {length}");
        assert_eq!(loaded.warnings.len(), 1, "cut at {length}");
        assert!(loaded.warnings[0].contains("desired.toml, line "), "{:?}", loaded.warnings);
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    let path = dir.path().join("desired.toml");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        fs::write(&path, &bytes).unwrap();
        let loaded = reopen(dir.path());
        assert_eq!((loaded.desired, loaded.warnings.len()), (Some(desired(1)), 1), "byte {at}");
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(b"[port]\n");
    fs::write(&path, &longer).unwrap();
    assert_eq!(reopen(dir.path()).desired, Some(desired(1)));
}

#[test]
fn a_damaged_file_is_set_aside_by_the_next_save() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    let edited = fs::read_to_string(path("desired.toml")).unwrap().replace("9000", "1400");
    fs::write(path("desired.toml"), &edited).unwrap();
    let (mut store, loaded) = Store::open(dir.path()).unwrap();
    assert!(loaded.warnings[0].contains("line 1: the checksum does not match: the text was changed"));
    store.save_desired(&desired(3)).unwrap();
    assert_eq!(fs::read_to_string(path("desired.toml.damaged")).unwrap(), edited);
    assert_eq!(reopen(dir.path()), Loaded { desired: Some(desired(3)), warnings: vec![] });
    // The good one before it was not thrown away for the damaged one.
    fs::write(path("desired.toml"), "junk").unwrap();
    assert_eq!(reopen(dir.path()).desired, Some(desired(1)));
}

/// Every file's name is a folder's, with something in it, once or twice.
#[test]
fn a_folder_in_a_files_place_is_set_aside_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let folder_at = |name: &str| {
        if path(name).is_file() {
            fs::remove_file(path(name)).unwrap();
        }
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("within"), name).unwrap();
    };
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    for (round, aside) in [(3, "desired.toml.damaged"), (4, "desired.toml.damaged-2")] {
        folder_at("desired.toml");
        let (mut store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.desired, Some(desired(1)), "the one before");
        let told =
            format!("{}: cannot read it: Is a directory (os error 21); ", path("desired.toml").display());
        assert!(loaded.warnings.len() == 1 && loaded.warnings[0].starts_with(&told), "{:?}", loaded.warnings);
        store.save_desired(&desired(round)).unwrap();
        assert_eq!(fs::read_to_string(path(aside).join("within")).unwrap(), "desired.toml");
        assert_eq!(reopen(dir.path()), Loaded { desired: Some(desired(round)), warnings: vec![] });
    }
    // While the daemon runs: the file itself, the one before, the one being written.
    let (mut store, _) = Store::open(dir.path()).unwrap();
    for (round, name, aside) in [
        (5, "desired.toml", "desired.toml.damaged-3"),
        (6, "desired.toml.prev", "desired.toml.prev.damaged"),
        (7, "desired.toml.new", "desired.toml.new.damaged"),
    ] {
        folder_at(name);
        store.save_desired(&desired(round)).unwrap();
        assert_eq!(fs::read_to_string(path(aside).join("within")).unwrap(), name);
        assert_eq!(reopen(dir.path()), Loaded { desired: Some(desired(round)), warnings: vec![] });
    }
    assert!(path("desired.toml.prev").is_file());
}

#[test]
fn messages_call_the_folder_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let name = Path::new("/var/lib/named");
    let open = || Store::open_as(dir.path(), name);
    let (mut store, _) = open().unwrap();
    store.save_desired(&desired(1)).unwrap();
    store.save_desired(&desired(2)).unwrap();
    fs::write(dir.path().join("desired.toml"), "junk").unwrap();
    let (_, loaded) = open().unwrap();
    assert_eq!(loaded.desired, Some(desired(1)));
    assert!(loaded.warnings[0].starts_with("/var/lib/named/desired.toml, line 1: "), "{:?}", loaded.warnings);
    fs::write(dir.path().join("desired.toml.prev"), "junk").unwrap();
    let error = open().err().expect("nothing good is left").to_string();
    assert!(error.starts_with("/var/lib/named/desired.toml, line 1: "), "{error}");
    fs::write(dir.path().join("leases.redb"), "junk").unwrap();
    let (_, warning) = crate::leases::LeaseStore::open_as(dir.path(), name).unwrap();
    assert!(warning.is_some_and(|warning| warning.starts_with("/var/lib/named/leases.redb: ")));
    assert!(dir.path().join("leases.redb.damaged").exists());
}

fn error_of(current: &str, prev: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("desired.toml"), current).unwrap();
    if let Some(prev) = prev {
        fs::write(dir.path().join("desired.toml.prev"), prev).unwrap();
    }
    let error = Store::open(dir.path()).err().expect("it is refused").to_string();
    error.replace(&dir.path().display().to_string(), "STATE")
}

#[test]
fn when_both_are_bad_the_error_names_file_line_and_what_to_do() {
    let error = error_of("", Some("junk"));
    assert!(
        error.starts_with(
            "STATE/desired.toml, line 1: the file is empty \
             (and STATE/desired.toml.prev, line 1: the line with the checksum is missing or damaged); if the \
             text is right, remove its first line"
        ),
        "{error}"
    );
    let good = sealed("[network.lab]\nkind = \"isolated\"\nmtu = 1400\n");
    let error = error_of(&good.replace("mtu = 1400", "mtu = 14oo"), None);
    assert!(
        error.starts_with("STATE/desired.toml, line 4: the text was changed and is broken here: "),
        "{error}"
    );
    assert!(error.contains("(and there is no STATE/desired.toml.prev)"), "{error}");
    let error = error_of(&good[..good.len() - 5], None);
    assert!(error.starts_with("STATE/desired.toml, line 4: the file ends after 38 of 43 bytes"), "{error}");
    // Whole, but of a version that knows more.
    let error = error_of(&sealed("[network.lab]\nkind = \"isolated\"\ncolour = 3\n"), None);
    assert!(error.starts_with("STATE/desired.toml, line 4: unknown field `colour`"), "{error}");
}

#[test]
fn strange_files_give_errors_and_do_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("desired.toml");
    fs::write(&path, b"# \xff\n").unwrap();
    assert!(Store::open(dir.path()).err().unwrap().to_string().contains("line 1: this is not UTF-8 text"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(Store::open(dir.path()).err().unwrap().to_string().contains("Is a directory (os error 21)"));
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let error = Store::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("desired.toml: cannot read it: ") && error.contains("(os error 40)"), "{error}");
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    fifo.unwrap();
    assert!(Store::open(dir.path()).err().unwrap().to_string().contains("it is not a regular file"));
}

/// Saves 1, 2 and then 3 with a failure at every operation of the last save, and looks at what is left.
fn with_failures(hard_links: bool, crash: bool, look: impl Fn(&Simulated, Result<(), StoreError>)) {
    let dir = Path::new("/state");
    let prepare = || {
        let fs = Simulated::new(hard_links);
        let (mut store, _) = Store::open_on(fs.clone(), dir).unwrap();
        for ports in [1, 2] {
            store.assign("vm0", |_| false, counter()).unwrap();
            store.save_desired(&desired(ports)).unwrap();
        }
        store.assign("vm2", |_| false, counter()).unwrap();
        (fs, store)
    };
    let (fs, mut store) = prepare();
    fs.fail_at(None, false);
    store.save_desired(&desired(3)).unwrap();
    let operations = fs.operations();
    assert!(operations >= 8, "{operations} operations");
    for number in 0..operations {
        let (fs, mut store) = prepare();
        fs.fail_at(Some(number), crash);
        let result = store.save_desired(&desired(3));
        look(&fs, result);
        if !crash {
            // The next save is whole again, whatever failed.
            fs.fail_at(None, false);
            store.save_desired(&desired(4)).unwrap();
            let (_, loaded) = Store::open_on(fs.after_kill(), dir).unwrap();
            assert_eq!(loaded, Loaded { desired: Some(desired(4)), warnings: vec![] });
        }
    }
}

#[test]
fn a_kill_or_an_error_at_any_operation_leaves_old_or_new() {
    for hard_links in [true, false] {
        for crash in [true, false] {
            with_failures(hard_links, crash, |fs, result| {
                let (store, loaded) = Store::open_on(fs.after_kill(), Path::new("/state")).unwrap();
                let new = loaded.desired == Some(desired(3));
                assert!(new || loaded.desired == Some(desired(2)), "{:?}", fs.names());
                assert!(new || result.is_err(), "it was said to be saved");
                assert!(!new || store.identity("vm2").is_some(), "saved, but its address is lost");
                assert!(store.identity("vm0").is_some());
            });
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_leaves_old_or_new() {
    for hard_links in [true, false] {
        with_failures(hard_links, true, |fs, result| {
            for left in fs.after_power_cut() {
                let (store, loaded) = Store::open_on(left.clone(), Path::new("/state")).unwrap();
                let new = loaded.desired == Some(desired(3));
                assert!(new || loaded.desired == Some(desired(2)), "{:?}", left.names());
                assert!(new || result.is_err(), "it was said to be saved");
                assert!(!new || store.identity("vm2").is_some(), "saved, but its address is lost");
                assert!(store.identity("vm0").is_some());
            }
        });
    }
}

#[test]
fn a_power_cut_during_the_very_first_save_leaves_nothing_or_all() {
    for number in 0..8 {
        let fs = Simulated::new(true);
        let (mut store, _) = Store::open_on(fs.clone(), Path::new("/state")).unwrap();
        fs.fail_at(Some(number), true);
        let result = store.save_desired(&desired(1));
        for left in fs.after_power_cut() {
            let (_, loaded) = Store::open_on(left, Path::new("/state")).unwrap();
            let new = loaded.desired == Some(desired(1));
            assert!(new || (loaded.desired.is_none() && result.is_err()), "{:?}", loaded.desired);
        }
    }
}

#[test]
fn the_same_text_is_not_written_again() {
    let fs = Simulated::new(true);
    let (mut store, _) = Store::open_on(fs.clone(), Path::new("/state")).unwrap();
    store.save_desired(&desired(1)).unwrap();
    fs.fail_at(None, false);
    store.save_desired(&desired(1)).unwrap();
    assert_eq!(fs.operations(), 0);
}

#[test]
fn an_address_is_kept_while_the_port_is_and_released_after() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let mut random = counter();
    let first = store.assign("vm0", |_| false, &mut random).unwrap();
    assert_eq!(first, [2, 0, 0, 0, 0, 1]);
    assert_eq!(store.assign("vm0", |_| false, &mut random).unwrap(), first);
    store.save_desired(&desired(1)).unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.identity("vm0"), Some(first));
    // Detached and attached again: another one.
    store.save_desired(&desired(0)).unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    assert!(store.identities().is_empty());
    let second = store.assign("vm0", |_| false, &mut random).unwrap();
    assert_ne!(second, first);
}

#[test]
fn an_address_in_use_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let in_use = |mac: [u8; 6]| mac[5] <= 3;
    assert_eq!(store.assign("a", in_use, counter()).unwrap(), [2, 0, 0, 0, 0, 4]);
    assert_eq!(store.assign("b", in_use, counter()).unwrap(), [2, 0, 0, 0, 0, 5]);
    let error = store.assign("c", |_| true, || [7; 6]).unwrap_err();
    assert_eq!(error.to_string(), "no free MAC address was found in 256 tries");
    assert_eq!(store.identity("c"), None);
}

#[test]
fn damaged_identities_fall_back_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identities.toml");
    fs::write(dir.path().join("identities.toml.prev"), sealed("\"vm0\" = \"02:00:00:00:00:09\"\n")).unwrap();
    for bad in [
        "vm0 = \"01:00:00:00:00:09\"\n",
        "vm0 = \"02:00\"\n",
        "vm0 = 3\n",
        "\"../x\" = \"02:00:00:00:00:09\"\n",
    ] {
        fs::write(&path, sealed(bad)).unwrap();
        let (store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(store.identity("vm0"), Some([2, 0, 0, 0, 0, 9]));
        assert!(loaded.warnings[0].ends_with("taps made since get new addresses"), "{:?}", loaded.warnings);
    }
    fs::write(dir.path().join("identities.toml.prev"), "").unwrap();
    let error = Store::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("identities.toml, line ") && error.contains("move both files away"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_content_makes_loading_panic(current: Vec<u8>, prev: Vec<u8>) {
        let fs = Simulated::new(true);
        fs.write(Path::new("/state/desired.toml"), &current).unwrap();
        fs.write(Path::new("/state/desired.toml.prev"), &prev).unwrap();
        let is_error = Store::open_on(fs, Path::new("/state")).is_err();
        prop_assert!(is_error, "random bytes carry no checksum");
    }
}

#[test]
fn stations_of_our_own_keep_their_addresses_as_long_as_they_are_configured() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let text = "[network.lab]\nkind = \"nat\"\nsubnet = \"10.7.0.0/24\"\n\
        [bond.b0]\nmembers = [\"eth1\"]\nmode = \"lacp\"\n[port.vm0]\nnetwork = \"lab\"\ntap = \"t0\"\n";
    let desired: Desired = toml::from_str(text).unwrap();
    let keys = ["vm0", "gateway:lab", "egress:lab", "bond:b0"];
    let mut random = counter();
    let chosen: std::collections::BTreeSet<[u8; 6]> =
        keys.iter().map(|key| store.assign(key, |_| false, &mut random).unwrap()).collect();
    assert_eq!(chosen.len(), keys.len(), "no two are the same");
    store.save_desired(&desired).unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    assert!(keys.iter().all(|key| store.identity(key).is_some_and(|mac| chosen.contains(&mac))));
    let mut less = desired.clone();
    less.network.values_mut().for_each(|spec| spec.kind = switchd_api::Kind::Isolated);
    less.bond.clear();
    store.save_desired(&less).unwrap();
    assert_eq!(store.identities().keys().collect::<Vec<_>>(), ["vm0"]);
}
