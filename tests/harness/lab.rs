//! Network namespaces and the wires between them.
//!
//! Names: `swt-PID-N-NAME`. Taps and veths live inside these namespaces and go with them.

use crate::command::{self, Background, Output, alive, kill};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const PREFIX: &str = "swt-";
/// Folders of files that replace those of /etc in a namespace.
const ETC: &str = "/etc/netns";
const SOON: Duration = Duration::from_secs(20);

/// Everything that a test has made in the kernel.
pub struct Lab {
    id: String,
    folder: Option<tempfile::TempDir>,
    /// Held as long as the lab: shared by tests that stand noise, alone by those that measure time.
    _turn: File,
}

impl Lab {
    /// A lab, or `None` after a loud word when this machine cannot run the test.
    pub fn open(programs: &[&str]) -> Option<Lab> {
        Lab::enter(programs, false)
    }

    /// A lab that no other test disturbs, for tests that measure time.
    pub fn alone(programs: &[&str]) -> Option<Lab> {
        Lab::enter(programs, true)
    }

    fn enter(programs: &[&str], alone: bool) -> Option<Lab> {
        if !needs(&["root"]) || !needs(&["ip", "ping", "python3"]) || !needs(programs) {
            return None;
        }
        let turn = take_turn(alone);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{}-{number}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&id).tempdir().expect("a folder for the lab");
        // The dataplane and unprivileged clients walk through it.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("ours");
        Some(Lab { id, folder: Some(folder), _turn: turn })
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("lives as long as the lab").path()
    }

    /// The full name of a namespace, made or not.
    pub fn name(&self, short: &str) -> String {
        format!("{}{short}", self.id)
    }

    /// Makes a namespace with its loopback up and IPv6 chatter off.
    pub fn space(&self, short: &str) -> Space {
        let name = self.name(short);
        ip(&["netns", "add", &name]);
        let space = Space { name };
        space.run(&[
            "sysctl",
            "-qw",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.default.accept_ra=0",
        ]);
        space.run(&["sysctl", "-qw", "net.ipv6.conf.default.router_solicitations=0"]);
        space.run(&["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
        space.ip(&["link", "set", "lo", "up"]);
        space
    }

    /// A veth pair between two namespaces, both ends up.
    ///
    /// All ends are numbered apart: where the two ends of a pair have the same number, the kernel takes them for
    /// hardware and tells of their carrier at most once a second (`linkwatch_urgent_event`).
    pub fn wire(&self, one: (&Space, &str), two: (&Space, &str)) {
        static NUMBER: AtomicU32 = AtomicU32::new(1000);
        let near = NUMBER.fetch_add(2, Ordering::Relaxed);
        let (near, far) = (near.to_string(), (near + 1).to_string());
        let pair =
            ["link", "add", one.1, "index", &near, "type", "veth", "peer", "name", two.1, "index", &far];
        one.0.ip(&[&pair[..], &["netns", &two.0.name]].concat());
        for (space, name) in [one, two] {
            space.ip(&["link", "set", name, "up"]);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        clear(&self.id);
        if std::thread::panicking() && std::env::var_os("SWITCHD_TESTS_KEEP").is_some() {
            let kept = self.folder.take().map(tempfile::TempDir::keep);
            say(&format!("kept {kept:?}"));
        }
    }
}

/// A network namespace; deleted when dropped.
pub struct Space {
    name: String,
}

impl Space {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command to be run inside.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut all = vec!["ip", "netns", "exec", &self.name];
        all.extend(words);
        command::command(&all)
    }

    /// Runs a command inside that has to succeed soon.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        command::run(&mut self.command(words), SOON).ok()
    }

    /// Runs a command inside that may fail.
    #[track_caller]
    pub fn attempt(&self, words: &[&str]) -> Output {
        command::run(&mut self.command(words), SOON)
    }

    #[track_caller]
    pub fn background(&self, words: &[&str]) -> Background {
        Background::start(&mut self.command(words))
    }

    /// `ip -n NAME …`
    #[track_caller]
    pub fn ip(&self, words: &[&str]) -> Output {
        let mut all = vec!["-n", &self.name];
        all.extend(words);
        ip(&all)
    }

    /// Gives an interface an address (A/LEN) and brings it up.
    #[track_caller]
    pub fn address(&self, interface: &str, address: &str) {
        self.ip(&["address", "add", address, "dev", interface]);
        self.ip(&["link", "set", interface, "up"]);
    }

    /// What the kernel says of an interface (`ip -d -j link show`).
    #[track_caller]
    pub fn link(&self, interface: &str) -> serde_json::Value {
        let text = self.ip(&["-d", "-j", "-s", "link", "show", "dev", interface]).text();
        let list: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
        list[0].clone()
    }

    pub fn has(&self, interface: &str) -> bool {
        let mut ip = command::command(&["ip", "-n", &self.name, "link", "show", "dev", interface]);
        command::run(&mut ip, SOON).code == Some(0)
    }

    #[track_caller]
    pub fn mac(&self, interface: &str) -> String {
        self.link(interface)["address"].as_str().expect("an address").to_owned()
    }

    /// A file under /etc as programs see it that are run inside (`ip netns exec` mounts it); written in place.
    #[track_caller]
    pub fn etc(&self, file: &str, text: &str) {
        let folder = Path::new(ETC).join(&self.name);
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(file), text)).expect("our folder");
    }

    /// Deletes it now, as `ip netns del` does.
    pub fn delete(self) {}
}

impl Drop for Space {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

#[track_caller]
fn ip(words: &[&str]) -> Output {
    let mut all = vec!["ip"];
    all.extend(words);
    command::run(&mut command::command(&all), SOON).ok()
}

fn delete(name: &str) {
    let path = Path::new("/run/netns").join(name);
    if !path.exists() {
        return;
    }
    let quiet = |words: &[&str]| command::command(words).output();
    // Whatever still runs in there was started by the test.
    if let Ok(output) = quiet(&["ip", "netns", "pids", name]) {
        let pids = String::from_utf8_lossy(&output.stdout).into_owned();
        pids.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(|pid| kill(pid, Signal::SIGKILL));
    }
    let _ = quiet(&["ip", "netns", "delete", name]);
    let _ = fs::remove_dir_all(Path::new(ETC).join(name));
}

fn names() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn clear(id: &str) {
    names().iter().filter(|name| name.starts_with(id)).for_each(|name| delete(name));
}

/// Deletes what tests left that did not come to their end.
fn sweep() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.and_then(|pid| pid.parse().ok()).is_some_and(|pid| !alive(pid))
    };
    names().iter().filter(|name| dead(name)).for_each(|name| delete(name));
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(dead) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Tests that measure time run alone, in all processes of this run.
fn take_turn(alone: bool) -> File {
    let path = crate::daemon::target_folder().join("tests-turn.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).expect("a lock file");
    let kind = if alone {
        rustix::fs::FlockOperation::LockExclusive
    } else {
        rustix::fs::FlockOperation::LockShared
    };
    rustix::fs::flock(&file, kind).expect("a lock");
    file
}

/// Whether all of these programs are here (`root`: whether we may make namespaces). Says loudly which test
/// cannot run, and fails instead when `SWITCHD_TESTS_REQUIRE` is set.
#[track_caller]
pub fn needs(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !here(program)).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let text = format!("SKIPPED {test}: needs {}", missing.join(", "));
    if std::env::var_os("SWITCHD_TESTS_REQUIRE").is_some_and(|value| value == "1") {
        panic!("{text}");
    }
    say(&text);
    false
}

/// Past the test runner's capture, which shows nothing of a test that passes.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

fn here(program: &str) -> bool {
    if program == "root" {
        return nix::unistd::geteuid().is_root();
    }
    if program == "scapy" {
        return Path::new("/usr/lib/python3/dist-packages/scapy").exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}
