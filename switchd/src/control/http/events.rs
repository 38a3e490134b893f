//! `/v1/events`: what happened, as server-sent events or as one JSON array.
//!
//! The engine keeps the last events and numbers them. A stream begins with those after `since`, then follows.
//! A reader that is too slow loses the oldest ones, never delays anybody, and sees a gap in `seq`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use switchd_api::reply::Event;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::body::{Query, flag};
use super::error::Reply;
use super::router::{App, Streaming};

/// A comment this often shows a silent stream's ends that the other one lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Begin with the kept events after this number (0: all that are kept). Without it a stream begins with
    /// what happens next, and an array has all that are kept. A number beyond the newest one comes from an
    /// earlier run of the daemon: all are given.
    since: Option<u64>,
    /// `1` (default): a stream that goes on. `0`: one JSON array of what is kept.
    #[serde(default = "yes", deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    follow: bool,
}

fn yes() -> bool {
    true
}

/// Events. `seq` grows by one: a gap means that events were lost to a reader too slow, or that they are no
/// longer kept. The field `Last-Event-ID` counts as `since`.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "As `since`, sent by EventSource")),
    responses((status = 200, description = "Each `data` field is one Event; `id` is its `seq`",
        content((Event = "text/event-stream"), (Vec<Event> = "application/json")))))]
pub async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Reply<Response> {
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let since = query.since.or(resumed);
    if !query.follow {
        return Ok(Answer(kept(app.engine.lock().await.events_since(None), since)).into_response());
    }
    let place = app.stream()?;
    let engine = app.engine.lock().await;
    let live = engine.subscribe();
    let all = engine.events_since(None);
    drop(engine);
    let last = all.last().map_or(0, |event| event.seq);
    let replay = if since.is_some() { kept(all, since) } else { Vec::new() };
    let follow = Follow { replay: replay.into(), live, last, _place: place };
    let stream = Sse::new(follow.messages()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = stream.into_response();
    response.extensions_mut().insert(Streaming);
    Ok(response)
}

/// Those of `all` that a reader who has seen `since` lacks.
fn kept(mut all: Vec<Event>, since: Option<u64>) -> Vec<Event> {
    let newest = all.last().map_or(0, |event| event.seq);
    if let Some(since) = since.filter(|&since| since <= newest) {
        all.retain(|event| event.seq > since);
    }
    all
}

struct Follow {
    replay: VecDeque<Event>,
    live: Receiver<Event>,
    /// Newest event at the time of the subscription: what the channel has up to it is in the replay.
    last: u64,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.replay.pop_front() {
            return Some(event);
        }
        loop {
            match self.live.recv().await {
                Ok(event) if event.seq > self.last => return Some(event),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn messages(self) -> impl Stream<Item = Result<Message, Infallible>> {
        stream::unfold(self, |mut follow| async move {
            let event = follow.next().await?;
            let message = Message::default().id(event.seq.to_string());
            // An Event is plain data: it always has a JSON form.
            let message = message.json_data(&event).unwrap_or_default();
            Some((Ok(message), follow))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Semaphore, broadcast};

    fn event(seq: u64) -> Event {
        Event { seq, time: 1, kind: "port.up".into(), object: "port vm1".into(), message: "up".into() }
    }

    fn seqs(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn a_replay_begins_after_the_last_seen_number() {
        let all: Vec<Event> = (5..9).map(event).collect();
        assert_eq!(seqs(&kept(all.clone(), None)), [5, 6, 7, 8]);
        assert_eq!(seqs(&kept(all.clone(), Some(0))), [5, 6, 7, 8]);
        assert_eq!(seqs(&kept(all.clone(), Some(6))), [7, 8]);
        assert_eq!(seqs(&kept(all.clone(), Some(8))), [0u64; 0]);
        // From an earlier run, whose numbers went further.
        assert_eq!(seqs(&kept(all, Some(100))), [5, 6, 7, 8]);
    }

    #[tokio::test]
    async fn nothing_is_told_twice_and_a_slow_reader_sees_a_gap() {
        let (sender, live) = broadcast::channel(4);
        let place = std::sync::Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        sender.send(event(2)).unwrap();
        let mut follow = Follow { replay: vec![event(1), event(2)].into(), live, last: 2, _place: place };
        sender.send(event(3)).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(follow.next().await.unwrap().seq);
        }
        assert_eq!(seen, [1, 2, 3]);
        for seq in 4..20 {
            sender.send(event(seq)).unwrap();
        }
        assert_eq!(follow.next().await.unwrap().seq, 16, "the channel holds four");
        drop(sender);
        while follow.next().await.is_some() {}
    }
}
