//! The two processes as an operating system sees them: start, crash, restart, end, rights.
//!
//! The daemon runs in a network namespace of the test's own. Without root the tests say so and pass, or
//! fail with SWITCHD_TESTS_REQUIRE=1.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use switchd_port::netlink::{LinkEvent, LinkMonitor, Netlink};

const SWITCHD: &str = env!("CARGO_BIN_EXE_switchd");

/// Runs `work` in a network namespace of its own.
fn isolated(work: impl FnOnce() + Send + 'static) {
    let done = std::thread::spawn(|| {
        if !rustix::process::geteuid().is_root()
            || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err()
        {
            assert!(std::env::var_os("SWITCHD_TESTS_REQUIRE").is_none(), "needs root");
            eprintln!("SKIPPED: needs root, for a network namespace and taps");
            return;
        }
        work();
    });
    done.join().unwrap();
}

struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn start(folder: tempfile::TempDir, arguments: &[&str]) -> Daemon {
        let mut command = Command::new(SWITCHD);
        command.arg("--state-dir").arg(folder.path().join("state"));
        command.arg("--socket").arg(folder.path().join("s.sock"));
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        let child = command.args(arguments).stderr(log).spawn().unwrap();
        let daemon = Daemon { folder, child };
        daemon.until("served", || daemon.try_status().is_some());
        daemon
    }

    fn fresh() -> Daemon {
        Daemon::start(tempfile::tempdir().unwrap(), &[])
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    /// Kills the broker as a power cut would, and gives back the folder.
    fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(10), "not {what} within 10 s:\n{log}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn try_status(&self) -> Option<serde_json::Value> {
        let reply = ask(&self.socket(), "GET", "/v1/status", "")?;
        serde_json::from_str(&reply.1).ok()
    }

    fn status(&self) -> serde_json::Value {
        self.try_status().unwrap()
    }

    fn dataplane(&self) -> i32 {
        self.status()["dataplane_pid"].as_i64().unwrap() as i32
    }

    fn post(&self, path: &str, body: &str) {
        let (code, reply) = ask(&self.socket(), "POST", path, body).unwrap();
        assert!((200..300).contains(&code), "{path} {body}: {code} {reply}");
    }

    /// One isolated network with a tap in the test's namespace.
    fn with_tap(&self, tap: &str) {
        self.post("/v1/networks", r#"{"name":"lab","kind":"isolated"}"#);
        self.post("/v1/ports", &format!(r#"{{"name":"p1","network":"lab","tap":"{tap}"}}"#));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(self.child.id() as i32, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// One HTTP request on the control socket: status code and body.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: switchd\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

fn kill(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Dead, or a zombie that nobody has waited for yet.
fn has_ended(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn index_of(name: &str) -> Option<u32> {
    Netlink::new().unwrap().link(name).unwrap().map(|link| link.index)
}

fn carrier_of(name: &str) -> Option<bool> {
    Netlink::new().unwrap().link(name).unwrap().map(|link| link.carrier)
}

#[test]
fn a_killed_dataplane_is_back_on_the_same_tap_without_a_flap() {
    isolated(|| {
        let daemon = Daemon::fresh();
        daemon.with_tap("t0");
        let index = index_of("t0").unwrap();
        let mut monitor = LinkMonitor::new().unwrap();
        for restarts in 1..=3 {
            let before = daemon.dataplane();
            kill(before);
            daemon.until("restarted", || {
                daemon.try_status().is_some_and(|status| status["dataplane_restarts"] == restarts)
            });
            let status = daemon.status();
            assert_ne!(daemon.dataplane(), before);
            assert_eq!(status["pid"], daemon.child.id());
            assert_eq!((&status["networks"], &status["ports_up"]), (&1.into(), &1.into()));
        }
        assert_eq!(index_of("t0"), Some(index));
        let flaps = monitor.read().unwrap();
        let steady = |event: &LinkEvent| matches!(event, LinkEvent::Present(link) if link.carrier);
        assert!(flaps.iter().all(steady), "{flaps:?}");
    });
}

#[test]
fn clients_queue_while_the_dataplane_starts_again() {
    isolated(|| {
        let daemon = Daemon::fresh();
        for _ in 0..20 {
            kill(daemon.dataplane());
            // The connection is taken by the broker's listener; it is answered, or cut by the death.
            let answered = (0..50).any(|_| daemon.try_status().is_some());
            assert!(answered);
            std::thread::sleep(Duration::from_millis(60));
            daemon.until("served", || daemon.try_status().is_some());
            if daemon.status()["dataplane_restarts"].as_u64() >= Some(3) {
                break;
            }
        }
    });
}

#[test]
fn an_orderly_end_leaves_the_tap_and_nothing_else() {
    isolated(|| {
        let mut daemon = Daemon::fresh();
        daemon.with_tap("t0");
        let dataplane = daemon.dataplane();
        signal(daemon.child.id() as i32, rustix::process::Signal::TERM);
        assert!(daemon.child.wait().unwrap().success());
        assert!(has_ended(dataplane));
        assert!(!daemon.socket().exists());
        assert_eq!(carrier_of("t0"), Some(false));
    });
}

#[test]
fn when_the_broker_dies_the_dataplane_ends_and_the_next_start_takes_the_tap_up() {
    isolated(|| {
        let daemon = Daemon::fresh();
        daemon.with_tap("t0");
        let (index, dataplane) = (index_of("t0").unwrap(), daemon.dataplane());
        let folder = daemon.kill();
        let start = Instant::now();
        while !has_ended(dataplane) {
            assert!(start.elapsed() < Duration::from_secs(5), "the dataplane outlives its broker");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The main thread is gone; the last of the others takes the descriptors with it.
        while carrier_of("t0") == Some(true) {
            assert!(start.elapsed() < Duration::from_secs(5), "somebody holds the tap");
        }
        assert_eq!(index_of("t0"), Some(index));
        let daemon = Daemon::start(folder, &[]);
        assert_eq!(daemon.status()["ports_up"], 1);
        assert_eq!((index_of("t0"), carrier_of("t0")), (Some(index), Some(true)));
    });
}

#[test]
fn the_dataplane_has_no_rights() {
    isolated(|| {
        let daemon = Daemon::fresh();
        daemon.with_tap("t0");
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.dataplane())).unwrap();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
        assert!(line("Uid").split_whitespace().all(|uid| uid != "0"), "{}", line("Uid"));
        assert_eq!((line("NoNewPrivs").as_str(), line("Groups").as_str()), ("1", ""));
        let parts = daemon.status()["sandbox"].clone();
        let held = |part: &str| parts.as_array().unwrap().iter().any(|held| held == part);
        assert!(held("uid") && held("capabilities"), "{parts}");
        assert_eq!(line("Seccomp") == "2", held("seccomp"), "{parts}");
    });
}

#[test]
fn a_second_daemon_is_refused_with_the_first_ones_pid() {
    isolated(|| {
        let daemon = Daemon::fresh();
        let other = daemon.folder.path().join("other.sock");
        let second = Command::new(SWITCHD)
            .arg("--state-dir")
            .arg(daemon.folder.path().join("state"))
            .arg("--socket")
            .arg(other)
            .output()
            .unwrap();
        assert_eq!(second.status.code(), Some(1));
        let text = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(text.contains(&format!("pid {}", daemon.child.id())), "{text}");
    });
}

#[test]
fn a_wrong_configuration_ends_the_start_and_the_check_with_the_place() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.toml");
        std::fs::write(&config, "[network.lab]\nkind = \"isolated\"\nuplnk = \"eth0\"\n").unwrap();
        for check in [true, false] {
            let mut command = Command::new(SWITCHD);
            command.arg("--config").arg(&config).arg("--state-dir").arg(folder.path().join("state"));
            command.arg("--socket").arg(folder.path().join("s.sock"));
            if check {
                command.arg("--check");
            }
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("c.toml:3:1"), "{text}");
            assert_eq!(folder.path().join("state").exists(), !check, "--check touches nothing");
        }
        std::fs::write(&config, "[network.lab]\nkind = \"isolated\"\n").unwrap();
        let good = Command::new(SWITCHD)
            .args(["--check", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(good.success());
    });
}

#[test]
fn it_runs_without_root_in_a_user_namespace() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
        // The build may lie where another user cannot go.
        let program = folder.path().join("switchd");
        std::fs::copy(SWITCHD, &program).unwrap();
        let child = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urnm", "--"])
            .arg(&program)
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("XDG_STATE_HOME", folder.path().join("state"))
            .spawn();
        let Ok(child) = child else {
            assert!(std::env::var_os("SWITCHD_TESTS_REQUIRE").is_none(), "needs setpriv and unshare");
            eprintln!("SKIPPED: needs setpriv and unshare (util-linux)");
            return;
        };
        let daemon = Daemon { folder, child };
        let socket = daemon.folder.path().join("switchd.sock");
        let status = || -> Option<serde_json::Value> {
            serde_json::from_str(&ask(&socket, "GET", "/v1/status", "")?.1).ok()
        };
        daemon.until("served", || status().is_some());
        let status = status().unwrap();
        assert_eq!(status["mode"], "rootless");
        assert!(status["sandbox"].as_array().unwrap().iter().any(|part| part == "capabilities"), "{status}");
    });
}
