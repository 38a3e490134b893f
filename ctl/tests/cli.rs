//! `switchctl` as a program: exit statuses, forms of output, messages. A thread plays the daemon on a unix
//! socket: it takes one request for each canned answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

struct Fake {
    folder: PathBuf,
    requests: Option<JoinHandle<Vec<String>>>,
}

impl Fake {
    /// Answers each connection with the next of `answers` (the whole text of a response), then ends it.
    fn new(answers: Vec<String>) -> Fake {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("switchctl-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("s.sock")).unwrap();
        let serve = move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                requests.push(read_request(&mut stream));
                let _ = stream.write_all(answer.as_bytes());
            }
            requests
        };
        Fake { folder, requests: Some(std::thread::spawn(serve)) }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchctl"));
        command.args(line.split_whitespace()).env("SWITCHD_SOCKET", self.folder.join("s.sock"));
        command.env_remove("NO_COLOR").stdin(Stdio::null()).current_dir(&self.folder);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn requests(mut self) -> Vec<String> {
        self.requests.take().unwrap().join().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn read_request(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut block = [0; 4096];
    loop {
        let count = stream.read(&mut block).unwrap_or(0);
        text.extend_from_slice(&block[..count]);
        let all = String::from_utf8_lossy(&text).into_owned();
        let head = all.find("\r\n\r\n").map(|end| end + 4);
        let length = all
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |value| value.trim().parse::<usize>().unwrap());
        if count == 0 || head.is_some_and(|head| text.len() >= head + length) {
            return all;
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn refusal(code: &str) -> String {
    answer(
        "400 X",
        &format!(r#"{{"code":"{code}","message":"port vm1: it is so","hint":"do it otherwise"}}"#),
    )
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const PORTS: &str = r#"[{"name":"vm1","network":"lab","tap":"e\u001b[31m\nx","state":"down","reason":"bad \u009b1m",
"backend":"tap","mtu":1500,"carrier":false,"addresses_learned":0,"worker":0,"counters":{"rx_frames":18446744073709551615,
"rx_bytes":1,"forwarded":0,"flooded":0,"trapped":0,"dropped_in":{"runt":2},"offered":0,"tx_frames":0,"tx_bytes":0,
"dropped_out":{"link-down":3},"tx_segments":0,"tx_mirrored":0,"mirrored_dropped":0,"mac_moves":0,"learn_refused":0,
"kernel_drops":0,"unreadable":0}}]"#;

#[test]
fn each_refusal_has_its_exit_status_and_its_next_step() {
    for (word, status) in [
        ("invalid", 1),
        ("not-found", 3),
        ("conflict", 4),
        ("denied", 8),
        ("too-large", 1),
        ("unavailable", 1),
        ("timeout", 6),
        ("internal", 1),
    ] {
        let fake = Fake::new(vec![refusal(word)]);
        let output = fake.run("port detach vm1");
        assert_eq!(code(&output), status, "{word}");
        assert_eq!(err(&output), "switchctl: port vm1: it is so\n  try: do it otherwise\n");
        assert!(output.stdout.is_empty());
        assert!(fake.requests()[0].starts_with("DELETE /v1/ports/vm1 HTTP/1.1\r\n"));
    }
}

#[test]
fn an_unreachable_daemon_is_5_and_wait_waits_for_it() {
    let fake = Fake::new(vec![answer("200 OK", "[]")]);
    let missing = fake.command("status").env("SWITCHD_SOCKET", "/nonexistent/s.sock").output().unwrap();
    assert_eq!(code(&missing), 5);
    assert!(err(&missing).contains("/nonexistent/s.sock") && err(&missing).contains("try: "));
    let begin = Instant::now();
    let waited = fake.run("status --wait 300ms --socket none.sock");
    assert_eq!(code(&waited), 5);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    // It comes while it is waited for.
    let (from, to) = (fake.folder.join("s.sock"), fake.folder.join("late.sock"));
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        std::fs::rename(from, to).unwrap();
    });
    assert_eq!(code(&fake.run("--socket late.sock port list --wait 10s")), 0);
    late.join().unwrap();
}

#[test]
fn a_connection_that_breaks_is_5_and_nonsense_is_1() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[", "garbage\r\n\r\n"] {
        let fake = Fake::new(vec![answer.to_owned()]);
        assert_eq!(code(&fake.run("port list")), 5, "{answer:?}");
    }
    let fake = Fake::new(vec![answer("200 OK", "{]")]);
    let output = fake.run("port list");
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("is not understood"));
}

#[test]
fn with_wait_a_broken_read_is_asked_again_and_a_change_is_not() {
    let broken = || "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[".to_owned();
    let fake = Fake::new(vec![String::new(), broken(), answer("200 OK", "[]")]);
    let output = fake.run("port list --wait 10s");
    assert_eq!((code(&output), out(&output).as_str()), (0, "none\n"), "{}", err(&output));
    assert_eq!(fake.requests().len(), 3);
    let fake = Fake::new(vec![broken()]);
    assert_eq!(code(&fake.run("port detach vm1 --wait 10s")), 5);
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn silence_is_6_also_for_streams() {
    for line in ["status --wait 200ms", "events --watch --wait 200ms", "capture lab --wait 200ms"] {
        // A listener that nobody serves: the connection stands, the answer never comes.
        let folder =
            std::env::temp_dir().join(format!("switchctl-silent-{}-{}", std::process::id(), line.len()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("s.sock")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchctl"));
        command.args(line.split(' ')).env("SWITCHD_SOCKET", folder.join("s.sock"));
        let output = command.output().unwrap();
        assert_eq!(code(&output), 6, "{line}: {}", err(&output));
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn nonsense_is_2_and_asks_no_daemon() {
    let fake = Fake::new(vec![]);
    for line in [
        "",
        "bond",
        "forward add lab tcp/80",
        "network create ../x --kind isolated",
        "port list -o dot",
        "port set vm1 admin",
    ] {
        assert_eq!(code(&fake.run(line)), 2, "{line}");
    }
    let output = fake.command("network show").arg("a\x1b[31mb").output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(!err(&output).contains('\x1b'), "{:?}", err(&output));
}

#[test]
fn tables_are_plain_off_a_terminal_and_never_carry_control_characters() {
    for form in ["table", "wide"] {
        let fake = Fake::new(vec![answer("200 OK", PORTS)]);
        let output = fake.run(&format!("port list -o {form}"));
        let text = out(&output);
        assert_eq!((code(&output), text.lines().count()), (0, 2), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains(r"e\u{1b}[31m\nx") && text.contains("18446744073709551615"), "{text}");
        assert_eq!(text.lines().nth(1).unwrap().split_whitespace().next(), Some("vm1"));
    }
}

#[test]
fn json_and_yaml_are_the_answer_with_raw_numbers() {
    let fake = Fake::new(vec![answer("200 OK", PORTS)]);
    let json: serde_json::Value = serde_json::from_slice(&fake.run("port list -o json").stdout).unwrap();
    assert_eq!(json, serde_json::from_str::<serde_json::Value>(PORTS).unwrap());
    let fake = Fake::new(vec![answer("200 OK", PORTS)]);
    let yaml: serde_json::Value = serde_yaml_ng::from_slice(&fake.run("-o yaml port list").stdout).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn changes_say_what_was_done_unless_quiet() {
    let fake = Fake::new(vec![answer("200 OK", "{}"), answer("200 OK", "{}")]);
    assert_eq!(out(&fake.run("network set lab mtu=9000 ageing=")), "network lab changed\n");
    assert_eq!(out(&fake.run("port set vm1 admin=down -q")), "");
    let requests = fake.requests();
    assert!(requests[0].starts_with("PATCH /v1/networks/lab ") && requests[0].contains(r#""ageing":"""#));
    assert!(requests[1].ends_with(r#"{"admin":"down"}"#));
}

#[test]
fn nat_and_bond_commands_ask_for_what_they_say() {
    let fake = Fake::new((0..11).map(|_| answer("200 OK", "[]")).collect());
    for (line, text) in [
        (
            "network create lab --kind nat --subnet 10.7.0.0/24 --egress eth0 --address dhcp --set lease-time=2h",
            "network lab created\n",
        ),
        ("forward add lab tcp/8080:10.7.0.20:80", "tcp/8080 of network lab leads to 10.7.0.20:80\n"),
        ("forward delete lab 192.0.2.9:tcp/8080", "192.0.2.9:tcp/8080 of network lab deleted\n"),
        ("forward list", "none\n"),
        ("floating add lab 192.0.2.50 vm1", "192.0.2.50 of network lab is port vm1's\n"),
        ("floating delete 192.0.2.50", "floating address 192.0.2.50 deleted\n"),
        ("floating list lab", "none\n"),
        ("lease list lab", "none\n"),
        ("flow list lab --limit 7", "none\n"),
        ("bond create bond0 --members eth0,eth1 --mode lacp --rate slow", "bond bond0 created\n"),
        ("bond set bond0 min-links=2", "bond bond0 changed\n"),
    ] {
        let output = fake.run(line);
        assert_eq!((code(&output), out(&output).as_str()), (0, text), "{line}: {}", err(&output));
    }
    let requests = fake.requests();
    let asked = |index: usize, head: &str, body: &str| {
        let request: &str = &requests[index];
        let begins = request.starts_with(&format!("{head} HTTP/1.1\r\n"));
        assert!(begins && request.ends_with(&format!("\r\n\r\n{body}")), "{request}");
    };
    asked(
        0,
        "POST /v1/networks",
        r#"{"address":"dhcp","egress":"eth0","kind":"nat","lease-time":7200,"name":"lab","subnet":"10.7.0.0/24"}"#,
    );
    asked(1, "POST /v1/networks/lab/forwards", r#"{"key":"tcp/8080","to":"10.7.0.20:80"}"#);
    asked(2, "DELETE /v1/networks/lab/forwards/192.0.2.9:tcp%2F8080", "");
    asked(3, "GET /v1/forwards", "");
    asked(4, "POST /v1/networks/lab/floating", r#"{"outside":"192.0.2.50","port":"vm1"}"#);
    asked(5, "DELETE /v1/floating/192.0.2.50", "");
    asked(6, "GET /v1/floating?network=lab", "");
    asked(7, "GET /v1/leases?network=lab", "");
    asked(8, "GET /v1/flows?network=lab&limit=7", "");
    asked(9, "POST /v1/bonds", r#"{"members":["eth0","eth1"],"mode":"lacp","name":"bond0","rate":"slow"}"#);
    asked(10, "PATCH /v1/bonds/bond0", r#"{"min-links":"2"}"#);
}

#[test]
fn rows_of_nat_networks_are_tables_and_json() {
    let lease = r#"[{"network":"lab","address":"10.7.0.20","state":"bound","mac":"02:00:00:00:00:01","port":"vm1",
        "host_name":"web","expires":3599,"reserved":true}]"#;
    let flow = r#"[{"network":"lab","protocol":"tcp","inside":"10.7.0.20:1","outside":"192.0.2.9:1","remote":"1.1.1.1:80",
        "state":"established","port":"vm1","idle":1,"expires":7439,"packets":3,"bytes":4}]"#;
    for (line, reply, cells) in [
        ("lease list", lease, "lab 10.7.0.20 bound 02:00:00:00:00:01 vm1 web 3599"),
        ("flow list", flow, "lab tcp 10.7.0.20:1 192.0.2.9:1 1.1.1.1:80 established vm1 1 7439"),
    ] {
        let fake = Fake::new(vec![answer("200 OK", reply), answer("200 OK", reply)]);
        let text = out(&fake.run(line));
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row.join(" "), cells, "{line}");
        let json: serde_json::Value =
            serde_json::from_slice(&fake.run(&format!("{line} -o json")).stdout).unwrap();
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(reply).unwrap(), "{line}");
    }
}

#[test]
fn diff_tells_by_its_status() {
    let same = r#"{"changes":[],"applied":false}"#;
    let other =
        r#"{"changes":[{"action":"delete","object":"port vm1","details":["tap: a → b"]}],"applied":false}"#;
    for (reply, flags, status, text) in
        [(same, "", 0, "no changes\n"), (other, "", 7, "- port vm1\n    tap: a → b\n"), (other, "-q", 7, "")]
    {
        let fake = Fake::new(vec![answer("200 OK", reply)]);
        std::fs::write(fake.folder.join("a.toml"), "# empty").unwrap();
        let output = fake.run(&format!("diff a.toml {flags}"));
        assert_eq!((code(&output), out(&output).as_str(), err(&output).as_str()), (status, text, ""));
        let requests = fake.requests();
        assert!(
            requests[0].starts_with("POST /v1/config/diff?file=a.toml ") && requests[0].ends_with("# empty")
        );
    }
    assert_eq!(code(&Fake::new(vec![]).run("diff missing.toml")), 1);
}

#[test]
fn a_report_is_printed_once_and_harmless() {
    let body =
        r#"{"code":"invalid","message":"m","hint":"h","report":"first\n second \u001b[31m\n help: h\n"}"#;
    let fake = Fake::new(vec![answer("400 X", body)]);
    let output = fake.command("apply -").output().unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(err(&output), "first\n second \\u{1b}[31m\n help: h\n");
}

#[test]
fn a_capture_is_written_and_leaves_other_files_alone() {
    // A section header block, of section length 0.
    let block = "\n\r\r\n\x1c\0\0\0M<+\x1a\x01\0\0\0\0\0\0\0\0\0\0\0\x1c\0\0\0";
    let fake = Fake::new(vec![answer("200 OK", block), answer("200 OK", block), refusal("not-found")]);
    for _ in 0..2 {
        assert_eq!(code(&fake.run("capture network:lab tcp port 80 -w c.pcapng -c 3")), 0);
    }
    assert_eq!(std::fs::read_to_string(fake.folder.join("c.pcapng")).unwrap(), format!("{block}{block}"));
    assert_eq!(code(&fake.run("capture nope -w new.pcapng")), 3);
    assert!(!fake.folder.join("new.pcapng").exists());
    std::fs::write(fake.folder.join("letter"), "dear").unwrap();
    assert_eq!(code(&fake.run("capture lab -w letter")), 1);
    assert_eq!(std::fs::read_to_string(fake.folder.join("letter")).unwrap(), "dear");
    assert!(fake.requests()[0].contains(r#""filter":"tcp port 80""#));
}

#[test]
fn a_reader_that_goes_ends_it_in_silence() {
    let mut list = String::from("[");
    for _ in 0..2000 {
        list += &PORTS[1..PORTS.len() - 1];
        list += ",";
    }
    list.truncate(list.len() - 1);
    let fake = Fake::new(vec![answer("200 OK", &(list + "]"))]);
    let mut child =
        fake.command("port list -o json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
}

#[test]
fn completion_is_silent_without_a_daemon_and_names_objects_with_one() {
    let ask = |fake: &Fake, words: &[&str]| {
        let mut command = fake.command("");
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        command.env("_CLAP_IFS", "\n").arg("--").args(words).output().unwrap()
    };
    let fake = Fake::new(vec![answer("200 OK", PORTS)]);
    let output = ask(&fake, &["switchctl", "port", "show", "v"]);
    assert_eq!(out(&output), "vm1");
    let output = ask(&fake, &["switchctl", "--socket", "/nonexistent", "port", "show", "v"]);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("", ""));
}

#[test]
fn manual_pages_are_written() {
    let fake = Fake::new(vec![]);
    assert_eq!(code(&fake.run("man pages")), 0);
    let page = std::fs::read_to_string(fake.folder.join("pages/switchctl.1")).unwrap();
    assert!(page.contains("EXIT STATUS"));
}
