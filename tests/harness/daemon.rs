//! The daemon under test: started in a namespace, asked through `switchctl`, ended with its guard.
//!
//! When a test ends well, the accounting invariants are checked on the daemon's own counters.

use crate::command::{Background, Output, alive, command, kill, run};
use crate::lab::{Lab, Space};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Longest time for a command of `switchctl`.
const ANSWER: Duration = Duration::from_secs(40);

/// The folder of build results that this test came from.
pub fn target_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("we run");
        // target/PROFILE/deps/TEST
        test.ancestors().nth(3).expect("cargo's layout").to_owned()
    })
}

/// A program of ours; built when `SWITCHD_BIN_DIR` does not say where the programs are.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("SWITCHD_BIN_DIR") {
            return PathBuf::from(folder);
        }
        let test = std::env::current_exe().expect("we run");
        let profile = test.ancestors().nth(2).expect("cargo's layout").to_owned();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The whole workspace: as the tests were built, so that nothing is built twice.
        build.args(["build", "--quiet", "--workspace"]);
        build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        build.arg("--target-dir").arg(target_folder());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        run(&mut build, Duration::from_secs(1200)).ok();
        profile
    });
    folder.join(name)
}

/// How the daemon is started.
#[derive(Clone)]
pub struct Setup {
    folder: PathBuf,
    space: String,
    arguments: Vec<String>,
}

impl Setup {
    /// With its state, captures and socket in a folder of the lab.
    pub fn new(lab: &Lab, host: &Space, name: &str) -> Setup {
        let folder = lab.folder().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the daemon");
        Setup { folder, space: host.name().to_owned(), arguments: Vec::new() }
    }

    pub fn with(mut self, arguments: &[&str]) -> Setup {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn captures(&self) -> PathBuf {
        self.folder.join("captures")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn command(&self) -> Command {
        let mut command = command(&["ip", "netns", "exec", &self.space]);
        command.arg(program("switchd"));
        command.arg("--state-dir").arg(self.state());
        command.arg("--capture-dir").arg(self.captures());
        command.arg("--socket").arg(self.socket());
        command.args(&self.arguments);
        command
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        let process = Background::start(&mut self.command());
        let daemon = Daemon { setup: self.clone(), process: Some(process), check: true };
        daemon.ctl(&["status", "--wait", "15s", "-q"]).ok();
        daemon
    }
}

pub struct Daemon {
    setup: Setup,
    process: Option<Background>,
    check: bool,
}

impl Daemon {
    /// With default settings, in the host's namespace.
    #[track_caller]
    pub fn start(lab: &Lab, host: &Space) -> Daemon {
        Setup::new(lab, host, "switchd").start()
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Of the broker.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    pub fn dataplane_pid(&self) -> u32 {
        self.json(&["status"])["dataplane_pid"].as_u64().expect("a pid") as u32
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.stdout() + &process.stderr()).unwrap_or_default()
    }

    /// `switchctl WORDS` as a command.
    pub fn ctl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("switchctl"));
        command.arg("--socket").arg(self.setup.socket()).args(words).stdin(std::process::Stdio::null());
        command
    }

    /// Runs `switchctl WORDS`.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Output {
        let begun = std::time::Instant::now();
        let output = run(&mut self.ctl_command(words), ANSWER);
        if std::env::var_os("SWITCHD_TESTS_TRACE").is_some() {
            eprintln!("{:8.3} s  {:?}  {}", begun.elapsed().as_secs_f64(), output.code, words.join(" "));
        }
        output
    }

    /// Runs `switchctl WORDS`, split at blanks, which has to succeed.
    #[track_caller]
    pub fn do_(&self, line: &str) -> Output {
        self.ctl(&line.split_whitespace().collect::<Vec<_>>()).ok()
    }

    /// The answer of `switchctl WORDS -o json`.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        let text = self.ctl(&all).ok().text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}:\n{text}"))
    }

    #[track_caller]
    pub fn port(&self, name: &str) -> Value {
        self.json(&["port", "show", name])
    }

    /// One counter of a port, or one of its drop reasons (`in runt`, `out link-down`).
    #[track_caller]
    pub fn count(&self, port: &str, key: &str) -> u64 {
        let counters = &self.port(port)["counters"];
        match key.split_once(' ') {
            Some((direction, reason)) => {
                counters[format!("dropped_{direction}")][reason].as_u64().unwrap_or(0)
            }
            None => counters[key].as_u64().unwrap_or_else(|| panic!("no counter {key}")),
        }
    }

    #[track_caller]
    pub fn mirror(&self, name: &str) -> Value {
        self.json(&["mirror", "show", name])
    }

    /// Waits until a port is up (or down, with its reason).
    #[track_caller]
    pub fn wait_port(&self, name: &str, state: &str) -> Value {
        crate::wait::eventually(Duration::from_secs(10), || {
            let port = self.port(name);
            if port["state"] == state { Ok(port) } else { Err(format!("port {name} is {port}")) }
        })
    }

    /// Attaches a tap in a guest's namespace as `eth0` and gives it an address.
    #[track_caller]
    pub fn guest(&self, network: &str, port: &str, space: &Space, address: &str) {
        self.ctl(&["port", "attach", network, port, "--tap", "eth0", "--netns", space.name()]).ok();
        if !address.is_empty() {
            space.address("eth0", address);
        }
    }

    /// Writes a configuration into the daemon's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.setup.folder.join(name);
        std::fs::write(&path, text).expect("our folder");
        path
    }

    #[track_caller]
    pub fn apply(&self, text: &str, flags: &[&str]) -> Output {
        let path = self.file("apply.toml", text);
        let mut words = vec!["apply", path.to_str().expect("a plain path")];
        words.extend(flags);
        self.ctl(&words)
    }

    /// Ends both processes without a chance to clean up, and starts anew on the same state.
    #[track_caller]
    pub fn crash(&mut self) {
        let dataplane = self.dataplane_pid();
        let broker = self.process.take().expect("it runs");
        kill(broker.pid(), Signal::SIGKILL);
        kill(dataplane, Signal::SIGKILL);
        broker.finish(Duration::from_secs(5));
        crate::wait::eventually(Duration::from_secs(5), || match alive(dataplane) {
            true => Err("the dataplane still runs".to_owned()),
            false => Ok(()),
        });
    }

    /// After the test has killed it by itself.
    pub fn forget(&mut self) {
        self.process = None;
    }

    /// Ends it in an orderly way; returns its exit status.
    #[track_caller]
    pub fn stop(&mut self) -> Output {
        let process = self.process.take().expect("it runs");
        process.signal(Signal::SIGTERM);
        process.finish(Duration::from_secs(10))
    }

    /// Starts it again after `crash` or `stop`.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.process = Some(Background::start(&mut self.setup.command()));
        self.ctl(&["status", "--wait", "15s", "-q"]).ok();
    }

    /// For a test that leaves the daemon unable to answer.
    pub fn unchecked(&mut self) {
        self.check = false;
    }

    /// The invariants of the counters, as they are shown to users.
    #[track_caller]
    pub fn assert_accounting(&self) {
        let sum = |map: &Value| map.as_object().map_or(0, |map| map.values().filter_map(Value::as_u64).sum());
        for port in self.json(&["port", "list"]).as_array().expect("a list") {
            let count = &port["counters"];
            let get = |key: &str| count[key].as_u64().unwrap_or_else(|| panic!("no {key} in {port}"));
            let inwards: u64 = get("forwarded") + get("flooded") + get("trapped") + sum(&count["dropped_in"]);
            assert_eq!(get("rx_frames"), inwards, "what came in by a port does not add up: {port}");
            let outwards: u64 = get("tx_frames") + sum(&count["dropped_out"]);
            assert_eq!(get("offered"), outwards, "what was offered to a port does not add up: {port}");
        }
        for network in self.json(&["network", "list"]).as_array().expect("a list") {
            let get = |key: &str| network["counters"][key].as_u64().expect("a counter");
            let offered = get("forwarded") + get("fanout") + get("originated");
            assert_eq!(get("offered"), offered, "a network does not add up: {network}");
        }
        for mirror in self.json(&["mirror", "list"]).as_array().expect("a list") {
            let get = |key: &str| mirror["counters"][key].as_u64().expect("a counter");
            assert!(
                get("seen") >= get("filtered") + get("copied") + get("lost"),
                "a mirror made copies: {mirror}"
            );
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if std::thread::panicking() {
            let log = process.stdout() + &process.stderr();
            eprintln!(
                "--- the daemon said:\n{}",
                log.lines()
                    .rev()
                    .take(60)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        } else if self.check {
            assert!(process.running(), "the daemon ended by itself:\n{}", process.stderr());
            self.process = Some(process);
            self.assert_accounting();
            let output = self.stop();
            assert_eq!(output.code, Some(0), "the daemon did not end in order:\n{}", output.stderr);
            return;
        }
        process.signal(Signal::SIGTERM);
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while process.running() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
