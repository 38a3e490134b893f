//! One connection: what it is doing, until when it may, and its end.
//!
//! ```text
//!   accept ─► Waiting ─first byte─► Head ─head complete─► Body ─body complete─► Working ─► (Streaming) ─►
//!             ▲───────────────────────────────────── reply sent ──────────────────────────────────────────┘
//! ```
//! Each phase has its time ([`Limits`]); a phase that is over time ends the connection (for a body its reader
//! says so, with a reply). Working lasts as long as the engine takes; a reply that nobody reads stalls the
//! socket, which is seen here. A stream may stall for ever: what feeds it is bounded.
//!
//! At the end the daemon's half is closed first and what still comes is read and thrown away for a moment
//! (bounded in time and bytes), so that a client in the middle of a large body finds the reply, not a reset.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Limits;
use super::access::Peer;
use super::router::Streaming;

/// Largest head of a request, in bytes; also the buffer that a connection can make us hold.
const HEAD_MAX: usize = 64 << 10;
/// Bytes thrown away after the last reply.
const LINGER_MAX: u64 = 80 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between requests; `true`: before the first one.
    Waiting(bool),
    Head,
    Body,
    Working,
    Streaming,
}

#[derive(Debug)]
struct Times {
    phase: Phase,
    since: Instant,
    /// The peer's buffer is full since then.
    stalled: Option<Instant>,
}

impl Times {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

/// What a connection is doing; shared with the listener, which may end it to make room.
#[derive(Debug)]
pub(super) struct Activity {
    times: Mutex<Times>,
    evict: Notify,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Arc<Activity> {
        let times = Times { phase: Phase::Waiting(true), since: now, stalled: None };
        Arc::new(Activity { times: Mutex::new(times), evict: Notify::new() })
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when we wait for the client; `None` while it waits for us.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let times = self.times();
        matches!(times.phase, Phase::Waiting(_) | Phase::Head | Phase::Body).then_some(times.since)
    }

    pub(super) fn evict(&self) {
        self.evict.notify_one();
    }

    fn enter(&self, phase: Phase) {
        self.times().enter(phase);
    }

    fn received(&self) {
        let mut times = self.times();
        if matches!(times.phase, Phase::Waiting(_)) {
            times.enter(Phase::Head);
        }
    }

    fn stalled(&self, stalled: bool) {
        let mut times = self.times();
        times.stalled = stalled.then(|| times.stalled.unwrap_or_else(Instant::now));
    }

    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let times = self.times();
        let phase = match times.phase {
            Phase::Waiting(true) | Phase::Head => Some(times.since + limits.head),
            Phase::Waiting(false) => Some(times.since + limits.idle),
            Phase::Body | Phase::Working => None,
            Phase::Streaming => return None,
        };
        let stall = times.stalled.map(|since| since + limits.stall);
        phase.into_iter().chain(stall).min()
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: UnixStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    activity: Arc<Activity>,
    mut shutdown: watch::Receiver<bool>,
) {
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = hyper::service::service_fn({
        let activity = activity.clone();
        move |request| -> Pin<Box<dyn Future<Output = _> + Send>> {
            Box::pin(answer(request, peer.clone(), router.clone(), activity.clone()))
        }
    });
    let mut conn = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX)
        .half_close(false)
        .serve_connection(io, service);
    let mut stopping = false;
    {
        let mut clock = pin!(sleep_until(Instant::now() + limits.head));
        let mut evicted = pin!(activity.evict.notified());
        loop {
            let run = std::future::poll_fn(|cx| {
                if conn.poll_without_shutdown(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if evicted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                let Some(deadline) = activity.deadline(&limits) else { return Poll::Pending };
                if clock.deadline() != deadline {
                    clock.as_mut().reset(deadline);
                }
                clock.as_mut().poll(cx).map(|()| false)
            });
            tokio::select! {
                complete = run => {
                    if complete {
                        break;
                    }
                    return;
                }
                _ = shutdown.wait_for(|&stop| stop), if !stopping => {
                    stopping = true;
                    Pin::new(&mut conn).graceful_shutdown();
                    let streaming = activity.times().phase == Phase::Streaming;
                    if streaming {
                        return;
                    }
                }
            }
        }
    }
    activity.enter(Phase::Waiting(false));
    let mut stream = conn.into_parts().io.into_inner().stream;
    tokio::select! {
        _ = timeout(limits.linger, linger(&mut stream)) => {}
        () = activity.evict.notified() => {}
        _ = shutdown.wait_for(|&stop| stop) => {}
    }
}

/// Says that we are done, and reads until the peer is.
async fn linger(stream: &mut UnixStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut waste = vec![0; 64 << 10];
    let mut total = 0;
    while total < LINGER_MAX {
        match stream.read(&mut waste).await? {
            0 => break,
            n => total += n as u64,
        }
    }
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    router: Router,
    activity: Arc<Activity>,
) -> Result<Response<Answer>, std::convert::Infallible> {
    activity.enter(Phase::Body);
    let arriving = activity.clone();
    let mut request = request.map(|body| Body::new(Arriving { body, activity: arriving }));
    request.extensions_mut().insert(peer);
    let service = TowerToHyperService::new(router);
    let mut response = hyper::service::Service::call(&service, request).await?;
    if response.extensions_mut().remove::<Streaming>().is_some() {
        activity.enter(Phase::Streaming);
    }
    Ok(response.map(|body| Answer { body, _end: End(activity) }))
}

/// A request's body; nobody waits for the client once it has been read or given up.
struct Arriving {
    body: Incoming,
    activity: Arc<Activity>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut times = self.activity.times();
        if times.phase == Phase::Body {
            times.enter(Phase::Working);
        }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body; its end is the end of the work.
struct Answer {
    body: Body,
    _end: End,
}

struct End(Arc<Activity>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.enter(Phase::Waiting(false));
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells what passes.
struct Watched {
    stream: UnixStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, data);
        self.activity.stalled(result.is_pending());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits::DEFAULT;

    #[tokio::test(start_paused = true)]
    async fn every_phase_has_its_time() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert_eq!(activity.deadline(&LIMITS), Some(start + LIMITS.head), "no byte yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.received();
        assert_eq!(activity.deadline(&LIMITS), Some(Instant::now() + LIMITS.head));
        let first = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.received();
        assert_eq!(activity.deadline(&LIMITS), Some(first + LIMITS.head), "one byte a second buys no time");
        activity.enter(Phase::Body);
        assert_eq!(activity.idle_since(), Some(Instant::now()), "a body that does not come makes room");
        activity.enter(Phase::Working);
        assert_eq!(activity.deadline(&LIMITS), None);
        assert_eq!(activity.idle_since(), None, "a request at work is never evicted");
        drop(End(activity.clone()));
        assert_eq!(activity.deadline(&LIMITS), Some(Instant::now() + LIMITS.idle));
        assert_eq!(activity.idle_since(), Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_stalls_is_timed_from_its_last_progress_but_a_stream_is_not() {
        let activity = Activity::new(Instant::now());
        activity.enter(Phase::Working);
        activity.stalled(true);
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.stalled(true);
        assert_eq!(activity.deadline(&LIMITS), Some(since + LIMITS.stall));
        activity.stalled(false);
        assert_eq!(activity.deadline(&LIMITS), None);
        activity.enter(Phase::Streaming);
        activity.stalled(true);
        assert_eq!(activity.deadline(&LIMITS), None);
    }
}
