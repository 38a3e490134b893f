//! `switchd demo`, as a new user runs it: with root and without, to its end and interrupted.

use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use switchd_tests::peers::tshark;
use switchd_tests::{Background, Lab, command, eventually, run};

/// A folder that any user may write, with a copy of the only program that the demo needs.
fn copy(lab: &Lab) -> PathBuf {
    let home = lab.folder().join("home");
    std::fs::create_dir(&home).expect("our folder");
    std::fs::copy(switchd_tests::daemon::program("switchd"), home.join("switchd")).expect("a copy");
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).expect("our folder");
    home
}

fn demo(home: &PathBuf, before: &[&str], more: &[&str]) -> Command {
    let mut words = before.to_vec();
    let program = home.join("switchd");
    words.extend([program.to_str().expect("a plain path"), "demo"]);
    words.extend(more);
    let mut command = command::command(&words);
    command.current_dir(home).env("TMPDIR", home);
    command
}

const NOBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// Processes that run the copied program.
fn left(home: &std::path::Path) -> Vec<String> {
    let program = home.join("switchd");
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let runs = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)
    };
    processes.filter(runs).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn world() -> String {
    let links =
        run(&mut command::command(&["ip", "-o", "link", "show"]), Duration::from_secs(10)).ok().text();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
    names.filter(|name| !name.starts_with("swt")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_shows_its_table_and_leaves_a_capture_only() {
    let Some(lab) = Lab::alone(&["tshark", "setpriv"]) else { return };
    let home = copy(&lab);
    for before in [&[][..], &NOBODY] {
        let (begun, links) = (Instant::now(), world());
        let output = run(&mut demo(&home, before, &[]), Duration::from_secs(40)).ok();
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let text = output.text();
        for word in [
            "bridged",
            "isolated",
            "nat",
            "bit/s",
            "RTT",
            "rx frames",
            "LACP",
            "pulled",
            "lost",
            "DHCP",
            "files.example is 198.51.100.1",
            "seen outside as 192.0.2.50",
            "seen outside as 203.0.113.2",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        let path =
            text.split_whitespace().find(|word| word.ends_with(".pcapng")).expect("the capture's path");
        assert!(path.starts_with('/'), "{path} is not absolute");
        let packets = tshark(std::path::Path::new(path), "icmp || tcp", &["frame.number"]).len();
        assert!(packets > 100, "{packets} packets in {path}");
        let _ = std::fs::remove_file(path);
        eventually(Duration::from_secs(3), || match left(&home) {
            processes if processes.is_empty() => Ok(()),
            processes => Err(format!("still running: {processes:?}")),
        });
        assert_eq!(world(), links, "interfaces stayed behind");
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let Some(lab) = Lab::open(&[]) else { return };
    let home = copy(&lab);
    for (more, delay) in [(&[][..], 300), (&[], 900), (&["--keep"], 0)] {
        let demo = Background::start(&mut demo(&home, &[], more));
        std::thread::sleep(Duration::from_millis(delay));
        if !more.is_empty() {
            eventually(Duration::from_secs(30), || match demo.stdout().contains("switchctl") {
                true => Ok(()),
                false => Err(format!("--keep prints no commands to try:\n{}", demo.stdout())),
            });
        }
        demo.signal(Signal::SIGINT);
        demo.finish(Duration::from_secs(10));
        eventually(Duration::from_secs(3), || match left(&home) {
            processes if processes.is_empty() => Ok(()),
            processes => Err(format!("still running: {processes:?}")),
        });
    }
    let files: Vec<_> =
        std::fs::read_dir(&home).expect("our folder").flatten().map(|entry| entry.file_name()).collect();
    let stray =
        files.iter().filter(|name| *name != "switchd" && !name.to_string_lossy().ends_with(".pcapng"));
    assert_eq!(stray.count(), 0, "{files:?}");
}
