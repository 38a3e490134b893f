//! Programs with a time bound, and programs in the background that end with their guard.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub command: String,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same, provided that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code, Some(0), "`{}` failed:\n{}{}", self.command, self.text(), self.stderr);
        self
    }

    /// The same, provided that it failed with this code and said all of these words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Output {
        let all = format!("{}{}", self.text(), self.stderr);
        assert_eq!(self.code, Some(code), "`{}` exited otherwise:\n{all}", self.command);
        for word in words {
            assert!(all.contains(word), "`{}` does not say {word:?}:\n{all}", self.command);
        }
        self
    }
}

/// `program arguments…` as a command; the first word is the program.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs to the end, at most `limit`; then it is killed, and the test fails.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Output {
    run_with_input(command, &[], limit)
}

#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Output {
    let text = describe(command);
    let (mut out, mut err) = (scratch(), scratch());
    command.stdout(out.try_clone().expect("a descriptor")).stderr(err.try_clone().expect("a descriptor"));
    if !input.is_empty() {
        let mut given = scratch();
        given.write_all(input).and_then(|()| given.seek(SeekFrom::Start(0))).expect("a scratch file");
        command.stdin(given);
    }
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{text}`: {error}"));
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`{text}` did not end within {limit:?}:\n{}", read_back(&mut err));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut stdout = Vec::new();
    out.seek(SeekFrom::Start(0)).and_then(|_| out.read_to_end(&mut stdout)).expect("a scratch file");
    Output { code: status.code(), stdout, stderr: read_back(&mut err), command: text }
}

fn scratch() -> File {
    tempfile::tempfile().expect("a scratch file")
}

fn read_back(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs beside the test. Killed, by its id, when dropped.
pub struct Background {
    child: Child,
    out: File,
    err: File,
    text: String,
}

impl Background {
    #[track_caller]
    pub fn start(command: &mut Command) -> Background {
        let (out, err) = (scratch(), scratch());
        command.stdout(out.try_clone().expect("a descriptor")).stderr(err.try_clone().expect("a descriptor"));
        Background::spawn(command, out, err)
    }

    /// With its standard output somewhere else.
    #[track_caller]
    pub fn start_into(command: &mut Command, stdout: impl Into<Stdio>) -> Background {
        let (out, err) = (scratch(), scratch());
        command.stdout(stdout).stderr(err.try_clone().expect("a descriptor"));
        Background::spawn(command, out, err)
    }

    #[track_caller]
    fn spawn(command: &mut Command, out: File, err: File) -> Background {
        let text = describe(command);
        let child = command.spawn().unwrap_or_else(|error| panic!("`{text}`: {error}"));
        Background { child, out, err, text }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The standard input, where one was asked for.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn stdout(&self) -> String {
        read_shared(&self.out)
    }

    pub fn stderr(&self) -> String {
        read_shared(&self.err)
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.child.id(), signal);
    }

    /// Waits for its end, at most `limit`.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Output {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                let stdout = self.stdout().into_bytes();
                return Output {
                    code: status.code(),
                    stdout,
                    stderr: self.stderr(),
                    command: self.text.clone(),
                };
            }
            assert!(Instant::now() < end, "`{}` did not end within {limit:?}:\n{}", self.text, self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads a file from its beginning without moving the offset that its writer shares.
fn read_shared(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().map_or(0, |meta| meta.len() as usize)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Sends a signal to one process that the test started.
pub fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
}

pub fn alive(pid: u32) -> bool {
    // A zombie has ended, unless its first thread only has.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    threads > 1 || (threads == 1 && !zombie)
}
