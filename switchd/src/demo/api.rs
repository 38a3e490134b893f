//! The demo's way to the daemon: the same socket and the same paths as for anyone else.

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Api {
    runtime: Runtime,
    socket: PathBuf,
}

impl Api {
    /// Waits until the daemon answers.
    pub fn connect(socket: PathBuf, alive: impl Fn() -> bool) -> Result<Api> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let api = Api { runtime, socket };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match api.get("/v1/status") {
                Ok(_) => return Ok(api),
                Err(error) if Instant::now() > deadline || !alive() => {
                    return Err(error.context("the daemon does not answer"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> Result<()> {
        self.call(Method::POST, path, Some(body)).map(drop)
    }

    pub fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).map(drop)
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let context = format!("{method} {path}");
        let exchange = async {
            let stream = tokio::net::UnixStream::connect(&self.socket).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "switchd")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))?;
            let response = sender.send_request(request).await?;
            let good = response.status().is_success();
            let body = response.into_body().collect().await?.to_bytes();
            let value = serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null);
            if !good {
                bail!("{}", value["message"].as_str().unwrap_or("refused without a reason"));
            }
            Ok(value)
        };
        let bounded = async { tokio::time::timeout(PATIENCE, exchange).await };
        self.runtime.block_on(bounded).context("no answer in time").and_then(|answer| answer).context(context)
    }
}
