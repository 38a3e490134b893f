//! The engine on a world in memory: see [`super::testing`].

mod bonds;
mod captures;
mod confirm;
mod faults;
mod losses;
mod nat;
mod requests;

use super::testing::World;
use super::{Engine, Source};
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::reply::{ApplyReply, ErrorBody, State};

fn toml(text: &str) -> Source {
    Source::Toml { text: text.to_owned(), name: "test.toml".to_owned() }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn apply(engine: &mut Engine, text: &str) -> Result<ApplyReply, ErrorBody> {
    engine.apply(toml(text), false, None)
}

fn kinds(engine: &Engine) -> Vec<String> {
    engine.events_since(None).into_iter().map(|event| event.kind).collect()
}

fn reason(engine: &Engine, port: &str) -> Option<String> {
    let status = engine.port(port).unwrap();
    assert_eq!(status.reason.is_none(), status.state == State::Up);
    status.reason
}
