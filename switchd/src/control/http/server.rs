//! The listener: how many connections, and which one goes when there are too many.
//!
//! Accepting never stops, so nobody waits in the backlog behind clients that do nothing. At the bound, the
//! connection that has made us wait for longest (for a request, its head or its body) is closed for the new
//! one; when all of them are at work, the new one is told 503 and closed. So file descriptors stay below the
//! bound plus a handful that are closing, and a `switchctl` gets in past any number of idle connections.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::access::Peer;
use super::connection::{self, Activity};

/// How much of what one client, or all of them, may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Event and capture streams at a time.
    pub streams: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// From the first byte of a request (or the connection, for the first one) to the end of its head.
    pub head: Duration,
    /// For a body to arrive.
    pub body: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// A reply makes no progress because the client does not read.
    pub stall: Duration,
    /// For what a client still sends after the last reply.
    pub linger: Duration,
}

impl Limits {
    pub const DEFAULT: Limits = Limits {
        connections: 256,
        streams: 64,
        body_bytes: 1 << 20,
        head: Duration::from_secs(5),
        body: Duration::from_secs(10),
        idle: Duration::from_secs(30),
        stall: Duration::from_secs(10),
        linger: Duration::from_secs(1),
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that has been silent for this long is idle, not just new.
const PATIENCE: Duration = Duration::from_millis(2);
/// For requests at work when the daemon is told to end.
const GRACE: Duration = Duration::from_secs(2);

const BUSY: &str = concat!(
    r#"{"code":"unavailable","message":"all connections of the daemon are at work","#,
    r#""hint":"try again; end event and capture streams that nobody needs"}"#
);

/// Serves `router` on `listener` until `stop`. Requests at work are finished (up to 2 s), streams are cut.
///
/// # Errors
/// The listener cannot be used at all. Single failed accepts are logged and survived.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (stopper, shutdown) = watch::channel(false);
    let mut table = Table { connections: HashMap::new(), next: 0 };
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = tasks.join_next() => {
                table.ended(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                table.evict();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let groups = switchd_port::sys::peer::groups(&stream).unwrap_or_default().into();
        let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), groups };
        if table.connections.len() >= limits.connections {
            if !table.idle_for(PATIENCE) {
                // Those that were just accepted may have a request for us: let them show it.
                tokio::time::sleep(PATIENCE).await;
            }
            let evicted = table.evict();
            // The evicted task closes its socket before the next accept.
            tokio::task::yield_now().await;
            if !evicted {
                debug!(uid = peer.uid, "refused a connection: all are at work");
                refuse(stream);
                continue;
            }
        }
        let (id, activity) = table.add();
        let work = connection::serve(stream, peer, router.clone(), limits, activity, shutdown.clone());
        tasks.spawn(async move {
            work.await;
            id
        });
    }
    stopper.send_replace(true);
    let _ = tokio::time::timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}

struct Table {
    connections: HashMap<u64, Arc<Activity>>,
    next: u64,
}

impl Table {
    fn add(&mut self) -> (u64, Arc<Activity>) {
        let activity = Activity::new(Instant::now());
        self.next += 1;
        self.connections.insert(self.next, activity.clone());
        (self.next, activity)
    }

    fn ended(&mut self, ended: Result<u64, tokio::task::JoinError>) {
        match ended {
            Ok(id) => {
                self.connections.remove(&id);
            }
            // A panic of a handler: its activity has no other holder any more.
            Err(error) => {
                warn!(%error, "a connection's task has failed");
                self.connections.retain(|_, activity| Arc::strong_count(activity) > 1);
            }
        }
    }

    /// The connection that has been idle for longest.
    fn idlest(&self) -> Option<(Instant, u64)> {
        self.connections.iter().filter_map(|(&id, activity)| Some((activity.idle_since()?, id))).min()
    }

    fn idle_for(&self, time: Duration) -> bool {
        self.idlest().is_some_and(|(since, _)| since.elapsed() >= time)
    }

    /// Ends the connection that has been idle for longest; false if none is idle.
    fn evict(&mut self) -> bool {
        let Some((_, id)) = self.idlest() else { return false };
        if let Some(activity) = self.connections.remove(&id) {
            activity.evict();
        }
        true
    }
}

/// One write into an empty socket buffer; whoever does not read it loses nothing but the reason.
fn refuse(stream: UnixStream) {
    let reply = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{BUSY}",
        BUSY.len()
    );
    // Not through tokio, which would first wait to be told that the socket is writable.
    if let Ok(stream) = stream.into_std() {
        let _ = (&stream).write_all(reply.as_bytes());
    }
}
