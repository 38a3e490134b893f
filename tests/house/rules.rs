//! The house rules, held by a test: who may import whom, where `unsafe` may stand, who may transmit, that
//! every file opens with its purpose and stays small enough to hold in the head, that the front door shows the
//! rooms there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this wants two rooms.
const LONGEST: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

fn rust_files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn all_files() -> Vec<(PathBuf, String)> {
    let files: Vec<_> = ["switchd", "ctl", "tests"]
        .iter()
        .flat_map(|room| rust_files(&root().join(room)))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source is text");
            (path.strip_prefix(root()).expect("below the root").to_owned(), text)
        })
        .collect();
    assert!(files.len() > 40, "the walk found only {} files", files.len());
    files
}

/// The crates of ours in a manifest's `[dependencies]`.
fn imports(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("the manifest is there");
    let table = text.split("[dependencies]").nth(1).unwrap_or_default();
    let table = table.split("\n[").next().unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| name.starts_with("switchd")).map(str::to_owned).collect()
}

#[test]
fn imports_go_downwards_only() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("ctl/Cargo.toml", &["switchd-api"][..]),
        ("switchd/wire/Cargo.toml", &[]),
        ("switchd/api/Cargo.toml", &[]),
        ("switchd/dataplane/Cargo.toml", &["switchd-nat", "switchd-proto", "switchd-wire"]),
        ("switchd/capture/Cargo.toml", &["switchd-wire"]),
        ("switchd/nat/Cargo.toml", &["switchd-wire"]),
        ("switchd/proto/Cargo.toml", &["switchd-wire"]),
        ("switchd/port/Cargo.toml", &["switchd-wire"]),
        ("switchd/store/Cargo.toml", &["switchd-api"]),
    ]);
    for (manifest, allowed) in allowed {
        for name in imports(manifest) {
            assert!(allowed.contains(&name.as_str()), "{manifest} must not import {name}");
        }
    }
    assert!(imports("switchd/Cargo.toml").len() >= 6, "the daemon joins everything below it");
}

#[test]
fn unsafe_stands_in_port_only_and_each_block_has_its_argument() {
    for (path, text) in all_files() {
        let in_port = path.starts_with("switchd/port");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let has =
                |word: &str| code.contains(&format!("{word} {{")) || code.contains(&format!("{word} fn"));
            if !has("unsafe") && !code.contains("unsafe impl") {
                continue;
            }
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(in_port || path.starts_with("tests/house"), "{place}: unsafe outside of port");
            if in_port && code.contains("unsafe {") {
                let from = number.saturating_sub(12);
                let argued = lines[from..=number].iter().any(|line| line.contains("SAFETY:"));
                assert!(argued, "{place}: no SAFETY argument");
            }
        }
    }
    for manifest in [
        "switchd",
        "switchd/api",
        "switchd/wire",
        "switchd/nat",
        "switchd/proto",
        "switchd/dataplane",
        "switchd/capture",
        "switchd/store",
        "ctl",
    ] {
        let text =
            fs::read_to_string(root().join(manifest).join("Cargo.toml")).expect("the manifest is there");
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest} does not take the shared lints");
    }
}

#[test]
fn only_the_rim_of_the_worker_sends() {
    for (path, text) in all_files() {
        if !path.starts_with("switchd/src") || path.ends_with("worker/rim.rs") {
            continue;
        }
        let sends =
            ["device.send(", "device.send_run(", "Port::send"].iter().any(|words| text.contains(words));
        assert!(!sends, "{}: a port's send has one caller, worker/rim.rs", path.display());
    }
    let rim = fs::read_to_string(root().join("switchd/src/worker/rim.rs")).expect("the rim is there");
    assert!(
        rim.contains("device.send(") && rim.contains("device.send_run("),
        "the rim no longer sends: this test looks for the wrong words"
    );
}

#[test]
fn every_file_opens_with_its_purpose_and_is_small() {
    for (path, text) in all_files() {
        let opening =
            text.lines().find(|line| !line.starts_with("#!") && !line.is_empty()).unwrap_or_default();
        assert!(opening.starts_with("//!"), "{}: no purpose at the top", path.display());
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{}: {lines} lines, more than {LONGEST}", path.display());
    }
}

/// Every file and folder of ours, from the root.
fn everything(below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(below).expect("the folder is readable").flatten() {
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let path = entry.path();
        let shown = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        found.push(shown);
        if path.is_dir() {
            everything(&path, found);
        }
    }
}

/// `a/{b,c}.rs` is two paths.
fn spread(word: &str) -> Vec<String> {
    match word.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (inner, after))) => {
            inner.split(',').map(|one| format!("{before}{}{after}", one.trim())).collect()
        }
        None => vec![word.to_owned()],
    }
}

#[test]
fn the_front_door_shows_the_rooms_there_are() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the front door");
    let mut all = Vec::new();
    everything(&root(), &mut all);
    let code = text.split('`').skip(1).step_by(2);
    let paths: Vec<String> = code
        .filter(|word| (word.contains('/') || word.ends_with(".rs")) && !word.starts_with('/'))
        .filter(|word| !word.contains([' ', '…']))
        .flat_map(spread)
        .collect();
    assert!(paths.len() > 30, "only {} paths were found", paths.len());
    for path in &paths {
        let end = format!("/{}", path.trim_end_matches('/'));
        assert!(all.iter().any(|found| format!("/{found}").ends_with(&end)), "there is no {path}");
    }
    for parent in ["switchd", "switchd/src"] {
        for entry in fs::read_dir(root().join(parent)).expect("a room").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_room = entry.path().is_dir() && !["src", "tests"].contains(&name.as_str());
            let words = || text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            assert!(
                !is_room || words().any(|word| word == name),
                "the front door does not show {parent}/{name}"
            );
        }
    }
}
