//! The API over a real unix socket in a temporary folder.

mod abuse;
mod requests;
mod served;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{App, Limits, Policy, router, serve};
use crate::control::engine::{Shared, testing};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Lets in whoever runs the tests.
pub fn policy() -> Policy {
    Policy { owner: rustix::process::getuid().as_raw(), group: 0, mode: 0o600 }
}

/// Short times, so that a test does not wait for long.
pub const QUICK: Limits = Limits {
    head: Duration::from_millis(300),
    body: Duration::from_millis(300),
    idle: Duration::from_millis(600),
    stall: Duration::from_millis(300),
    linger: Duration::from_millis(300),
    ..Limits::DEFAULT
};

pub struct Server {
    pub engine: Shared,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start(limits: Limits) -> Server {
        let engine = testing::engine();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let router = router(App::new(engine.clone(), policy(), limits));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(serve(listener, router, limits, stopped));
        Server { engine, path, stop: Some(stop), task, _folder: folder }
    }

    pub async fn connect(&self) -> UnixStream {
        connect(&self.path).await
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request(head, body).as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path} HTTP/1.1\r\nContent-Type: application/json"), body).await
    }

    /// Sockets that the server holds: they bear its path.
    pub fn sockets(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        table.lines().filter(|line| line.ends_with(self.path.to_str().unwrap())).count()
    }

    /// Waits for the server's end.
    pub async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
    }
}

/// Waits for room in the backlog.
async fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other => return other.unwrap(),
        }
    }
}

pub fn request(head: &str, body: &str) -> String {
    format!("{head}\r\nHost: switchd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads to the end of the connection, which must come within 5 s.
    pub async fn read(stream: &mut UnixStream) -> Answer {
        let mut bytes = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        Answer::parse(&String::from_utf8(bytes).unwrap())
    }

    pub fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not a reply: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    /// It is an `ErrorBody` with this status and code; gives the message.
    pub fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        body["message"].as_str().unwrap().to_owned()
    }
}
