//! HTTP over the daemon's socket.

use crate::failure::{Exit, Failure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchd_api::reply::ErrorBody;
use tokio::net::UnixStream;

/// An answer is awaited this long unless `--wait` says otherwise.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_millis(50);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Client {
    socket: PathBuf,
    wait: Option<Duration>,
}

impl Client {
    pub fn new(socket: Option<PathBuf>, wait: Option<Duration>) -> Client {
        Client { socket: socket.unwrap_or_else(default_socket), wait }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(&self.call(Method::GET, path, None, &[]).await?)
    }

    /// Sends a request and returns the body of a successful answer. With `--wait`, what only reads is asked
    /// again when the connection breaks in the middle: the daemon may have been started anew. What changes
    /// something is not: it may have been done.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let deadline = self.deadline();
        self.in_time(async {
            loop {
                match self.once(deadline, &method, path, content_type, body).await {
                    Err(failure)
                        if failure.is_broken() && method == Method::GET && Instant::now() < deadline =>
                    {
                        tokio::time::sleep(PAUSE).await;
                    }
                    other => return other,
                }
            }
        })
        .await
    }

    async fn once(
        &self,
        deadline: Instant,
        method: &Method,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let response = self.begin(deadline, method.clone(), path, content_type, body).await?;
        let body = response.into_body().collect().await.map_err(Failure::broken)?;
        Ok(body.to_bytes().to_vec())
    }

    /// Until when a daemon that is not there is waited for.
    fn deadline(&self) -> Instant {
        Instant::now() + self.wait.unwrap_or_default()
    }

    /// Sends a request; the body of a successful answer is read by the caller, as long as it takes.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Response<Incoming>, Failure> {
        self.in_time(self.begin(self.deadline(), method, path, content_type, body)).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let wait = self.wait.unwrap_or(DEFAULT_WAIT);
        // A daemon that is waited for in vain is unreachable, not slow: `connect` says so just before.
        tokio::time::timeout(wait + GRACE, work).await.unwrap_or_else(|_| {
            let text = format!("{}: no answer within {} s", self.socket.display(), wait.as_secs_f64());
            Err(Failure::new(Exit::Timeout, text).hint(
                "the daemon may carry the request out still: see `switchctl status`, or give it longer with --wait",
            ))
        })
    }

    async fn begin(
        &self,
        deadline: Instant,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect(deadline).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failure::broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "switchd")
            .header("content-type", content_type.unwrap_or("application/json"))
            .header(
                "accept",
                if path.starts_with("/v1/config?form=toml") { "application/toml" } else { "*/*" },
            )
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(Failure::broken)?;
        let response = sender.send_request(request).await.map_err(Failure::broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Failure::broken)?.to_bytes();
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(error) => Failure::refused(error),
            Err(_) => Failure::new(Exit::Failed, format!("the daemon answered {status}")),
        })
    }

    /// With `--wait`, a daemon that is not there yet is waited for.
    async fn connect(&self, deadline: Instant) -> Result<UnixStream, Failure> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                // EAGAIN: it listens, and its queue of connections is full.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if Instant::now() >= deadline => return Err(unreachable(&self.socket, &error)),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(Exit::Failed, format!("the daemon's answer is not understood: {error}"))
    })
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let text = format!("cannot reach switchd at {}: {error}", socket.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::new(Exit::Denied, text)
            .hint("the socket admits root and the group switchd: use sudo, or join that group"),
        _ => Failure::new(Exit::Unreachable, text).hint(
            "start the daemon with `sudo switchd`, or name its socket with --socket or $SWITCHD_SOCKET",
        ),
    }
}

/// `$SWITCHD_SOCKET`; `/run/switchd/switchd.sock` where it exists; else the rootless daemon's socket.
fn default_socket() -> PathBuf {
    if let Some(path) = std::env::var_os("SWITCHD_SOCKET").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let system = PathBuf::from("/run/switchd/switchd.sock");
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !system.exists() => PathBuf::from(dir).join("switchd.sock"),
        _ => system,
    }
}
