//! Live captures: mirrors that last as long as their reader, and are not saved.
//!
//! A capture is a mirror named `live:N`, which no user's mirror can be named. It ends when its reader goes or
//! stops it, when its count is reached, or when its source is deleted. A slow reader loses copies, which the stream's
//! statistics blocks count. Bounds: [`MAX_LIVE`] at a time, and with the mirrors 32 on a worker.

use super::Engine;
use super::errors::{conflict, hinted, invalid, not_found};
use super::execute::{key, mirror_of, worker_refused};
use super::resolve;
use super::target::Tape;
use super::troubles::Object;
use crate::config;
use crate::worker::command::{Command, Sink};
use std::collections::BTreeMap;
use switchd_api::model::{CaptureRequest, Desired, MirrorSpec};
use switchd_api::reply::{ErrorBody, ErrorCode};
use tokio::sync::mpsc;

pub const MAX_LIVE: usize = 32;

/// A live capture. Dropping it removes the temporary mirror within a moment.
pub struct CaptureStream {
    /// For [`Engine::stop_capture`].
    pub number: u64,
    /// Pieces of a pcapng stream; `None` is its end.
    pub bytes: mpsc::Receiver<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct Captures {
    live: BTreeMap<String, Tape>,
    last: u64,
}

fn live(number: u64) -> String {
    format!("live:{number}")
}

impl Captures {
    pub(super) fn tapes(&self) -> impl Iterator<Item = &Tape> {
        self.live.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

impl Engine {
    pub fn start_capture(&mut self, request: &CaptureRequest) -> Result<CaptureStream, ErrorBody> {
        self.end_finished_captures();
        if self.captures.live.len() >= MAX_LIVE {
            return Err(conflict(
                format!("there are {MAX_LIVE} live captures already"),
                "end one of them, or use a mirror to a file: switchctl mirror create",
            ));
        }
        let source = self.source(&request.source)?;
        let tape = self.tape_of(request, source)?;
        let object = Object::Mirror(request.source.clone());
        // It is carried out as a mirror; the user knows of none.
        let mirror = format!("{object}: ");
        let of_capture = |mut error: ErrorBody| {
            if let Some(rest) = error.message.strip_prefix(&mirror) {
                error.message = format!("capture of {}: {rest}", request.source);
            }
            error
        };
        let worker = self.standing.worker_of_tape(&tape).ok_or_else(|| {
            hinted(ErrorCode::Unavailable, format!("{} is not up", request.source), "switchctl status")
        })?;
        let filter = match &tape.filter {
            Some(expression) => Some(self.compile(&object, expression, tape.snaplen).map_err(of_capture)?),
            None => None,
        };
        self.captures.last += 1;
        let number = self.captures.last;
        let name = live(number);
        let opened = self
            .means
            .captures
            .open_live(&name, &tape, request.count)
            .map_err(|message| hinted(ErrorCode::Unavailable, message, "switchctl status"))?;
        let to = Sink::Capture { ring: opened.ring, snaplen: tape.snaplen, segment: tape.segment };
        let mirror = Box::new(mirror_of(&tape, filter, to));
        let added = self.means.workers.run(worker, Command::AddMirror { name: key(&name), mirror });
        if let Err(error) = added {
            self.means.captures.close(&name);
            return Err(of_capture(worker_refused(&object, &error)));
        }
        self.captures.live.insert(name, tape);
        let what = request.filter.as_deref().filter(|filter| !filter.is_empty()).unwrap_or("all frames");
        self.events.tell("capture.started", request.source.clone(), what);
        self.wake.notify_one();
        Ok(CaptureStream { number, bytes: opened.bytes })
    }

    /// Ends it in order: what was copied is sent still, and after it the last statistics.
    pub fn stop_capture(&mut self, number: u64) -> Result<(), ErrorBody> {
        let name = live(number);
        if !self.captures.live.contains_key(&name) {
            let message = format!("there is no live capture {number}");
            return Err(hinted(ErrorCode::NotFound, message, "it may have ended: switchctl events"));
        }
        self.end_capture(&name);
        Ok(())
    }

    /// `port:P`, `network:N`, or a name that only one of them bears.
    fn source(&self, text: &str) -> Result<String, ErrorBody> {
        if let Some(interface) = text.strip_prefix(super::target::UPLINK) {
            return Ok(format!("port:uplink:{interface}"));
        }
        if text.contains(':') {
            return Ok(text.to_owned());
        }
        let is_free = !self.running.port.contains_key(text) && !self.running.network.contains_key(text);
        if is_free && self.running.bond.contains_key(text) {
            return Ok(format!("bond:{text}"));
        }
        match (self.running.port.contains_key(text), self.running.network.contains_key(text)) {
            (true, false) => Ok(format!("port:{text}")),
            (false, true) => Ok(format!("network:{text}")),
            (true, true) => Err(invalid(
                format!("{text} is the name of a port and of a network"),
                format!("say port:{text} or network:{text}"),
            )),
            (false, false) => Err(not_found("port", text)).map_err(|mut error: ErrorBody| {
                error.message.push_str(", and no network of this name");
                error
            }),
        }
    }

    /// The same rules as for a mirror.
    fn tape_of(&self, request: &CaptureRequest, source: String) -> Result<Tape, ErrorBody> {
        let spec = MirrorSpec {
            source: vec![source],
            direction: request.direction,
            to: "pcap:live".to_owned(),
            filter: request.filter.clone(),
            snaplen: request.snaplen,
            segment: request.segment,
            rotate_size: None,
            rotate_time: None,
            rotate_count: None,
        };
        let name: switchd_api::Name = "capture"
            .parse()
            .map_err(|error: switchd_api::name::BadName| super::change::internal(error.to_string()))?;
        let desired = Desired { mirror: BTreeMap::from([(name.clone(), spec)]), ..self.running.clone() };
        let mut validated = self.validated(&desired).map_err(|mut error| {
            error.message = error.message.replacen("mirror capture", "capture", 1);
            error
        })?;
        let plan: config::MirrorPlan = validated
            .mirrors
            .remove(&name)
            .ok_or_else(|| super::change::internal("the capture was lost in validation"))?;
        Ok(resolve::tape(&plan))
    }

    /// Those whose reader has gone or whose count was reached.
    pub(super) fn end_finished_captures(&mut self) {
        if self.captures.live.is_empty() {
            return;
        }
        for name in self.means.captures.finished() {
            self.end_capture(&name);
        }
    }

    /// Those whose source is about to go.
    pub(super) fn end_captures_of(&mut self, wanted: impl Fn(&Tape) -> bool) {
        let live = self.captures.live.iter().filter(|(_, tape)| wanted(tape));
        let names: Vec<String> = live.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.end_capture(name));
    }

    fn end_capture(&mut self, name: &str) {
        let Some(tape) = self.captures.live.remove(name) else { return };
        if let Some(worker) = self.standing.worker_of_tape(&tape) {
            let removed = self.means.workers.run(worker, Command::RemoveMirror { name: key(name) });
            self.complain(name, removed);
        }
        self.means.captures.close(name);
        let ports = tape.ports.iter().map(|(port, _)| format!("port:{port}"));
        let networks = tape.networks.iter().map(|(network, _)| format!("network:{network}"));
        let source = ports.chain(networks).collect::<Vec<_>>().join(", ");
        self.events.tell("capture.ended", source, "nothing more is copied");
    }
}
