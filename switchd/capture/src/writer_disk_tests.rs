//! A disk that is full: a small tmpfs in a mount namespace of our own.

use super::*;
use std::process::Command;

const INSIDE: &str = "SWITCHD_TEST_OWN_MOUNTS";

/// Runs the test again in its own mount namespace. True: we are inside.
fn inside_own_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = |what: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "--propagation", "private"]).args(what);
        command
    };
    if !unshare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        not_run(test, "unshare --mount is not possible here");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let name = format!("writer::tests::disk::{test}");
    let mut command = unshare(&[exe.to_str().unwrap(), "--exact", &name, "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// A folder on a tmpfs of `size`; it goes with the namespace.
fn small_disk(size: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let option = format!("size={size}");
    let status =
        Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(folder.path()).status();
    assert!(status.unwrap().success());
    folder
}

#[test]
fn a_full_disk_loses_whole_packets_counts_them_and_resumes_in_the_same_section() {
    if !inside_own_mounts("a_full_disk_loses_whole_packets_counts_them_and_resumes_in_the_same_section") {
        return;
    }
    let mut bench = Bench::on(small_disk("1m"));
    fs::write(bench.at("ballast"), vec![1; 600_000]).unwrap();
    let mut producer = bench.capture("m", "lab.pcapng", Rotation::default());
    let mut pushed = 0;
    while bench.writer.status("m").unwrap().state != State::Failing {
        bench.push(&mut producer, pushed % 3, 500);
        pushed += 1;
        assert!(pushed < 1000, "the disk does not fill");
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = bench.writer.status("m").unwrap();
    assert!(status.last_error.as_ref().unwrap().contains("No space left on device"), "{status:?}");
    // What the file holds while the disk is full is whole.
    let held = read(bench.at("lab.pcapng")).packets();
    assert!(held > 1000);
    bench.push(&mut producer, 0, 500);
    bench.until("m", |now| now.counters.lost >= status.counters.lost + 500);

    fs::remove_file(bench.at("ballast")).unwrap();
    bench.until("m", |status| status.state == State::Running);
    bench.push(&mut producer, 1, 300);
    drop(producer);
    let status = bench.writer.remove("m").unwrap();
    let read = read(bench.at("lab.pcapng"));
    read.assert_exact();
    assert_eq!(read.sections.len(), 1);
    assert_eq!(read.packets(), held + 300);
    assert_eq!(read.packets(), status.counters.copied);
    assert_eq!(read.dropped(), status.counters.lost);
    assert_eq!(status.counters.seen, read.packets() + read.dropped());
}

#[test]
fn a_disk_that_is_full_from_the_start_and_at_the_end_is_no_catastrophe() {
    if !inside_own_mounts("a_disk_that_is_full_from_the_start_and_at_the_end_is_no_catastrophe") {
        return;
    }
    let mut bench = Bench::on(small_disk("64k"));
    assert!(fs::write(bench.at("ballast"), vec![1; 100_000]).is_err(), "the disk is not full");
    let mut producer = bench.capture("m", "lab.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 10);
    bench.until("m", |status| status.state == State::Failing && status.counters.lost == 10);
    drop(producer);
    let status = bench.writer.remove("m").unwrap();
    assert!(status.last_error.unwrap().contains("No space left on device"));
    assert_eq!(fs::read(bench.at("lab.pcapng")).unwrap(), b"");

    fs::remove_file(bench.at("ballast")).unwrap();
    let mut producer = bench.capture("m", "lab.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 10);
    drop(producer);
    bench.writer.remove("m").unwrap();
    let read = read(bench.at("lab.pcapng"));
    read.assert_exact();
    assert_eq!(read.packets(), 10);
}

#[test]
fn a_disk_that_is_lazily_unmounted_is_noticed_and_the_folder_beneath_is_written() {
    if !inside_own_mounts("a_disk_that_is_lazily_unmounted_is_noticed_and_the_folder_beneath_is_written") {
        return;
    }
    let folder = small_disk("1m");
    let mut alone = Alone::on(folder.path(), "m.pcapng");
    alone.packet();
    assert_eq!(alone.pass(11).state, State::Running);
    assert!(Command::new("umount").arg("-l").arg(folder.path()).status().unwrap().success());
    alone.packet();
    let status = alone.pass(11);
    let told = status.last_error.unwrap();
    assert!(status.state == State::Failing && told.contains("unmounted"), "{told}");
    assert_eq!(alone.pass(1).state, State::Running);
    alone.packet();
    alone.pass(11);
    let read = read(folder.path().join("m.pcapng"));
    read.assert_exact();
    assert_eq!(read.packets(), 1);
}

#[test]
fn a_disk_that_is_full_while_rotating_loses_nothing_that_was_written() {
    if !inside_own_mounts("a_disk_that_is_full_while_rotating_loses_nothing_that_was_written") {
        return;
    }
    let mut bench = Bench::on(small_disk("256k"));
    let rotation = Rotation { size: Some(20_000), ..Rotation::default() };
    let mut producer = bench.capture("m", "lab.pcapng", rotation);
    bench.push(&mut producer, 0, 3000);
    bench.until("m", |status| status.state == State::Failing);
    // Room for more, but not in the file that could not be finished.
    for name in bench.names().iter().take(4) {
        fs::remove_file(bench.at(name)).unwrap();
    }
    bench.until("m", |status| status.state == State::Running);
    bench.push(&mut producer, 0, 100);
    drop(producer);
    let status = bench.writer.remove("m").unwrap();
    let (mut packets, mut dropped) = (0, 0);
    for name in bench.names() {
        let read = read(bench.at(&name));
        read.assert_exact();
        packets += read.packets();
        dropped += read.dropped();
    }
    assert!(packets > 1000 && dropped > 0);
    assert_eq!(dropped, status.counters.lost);
    assert_eq!(status.counters.seen, 3100);
}
