//! Mirrors and live captures.

use super::*;
use std::time::Duration;
use switchd_api::CaptureRequest;
use switchd_api::model::{MirrorDirection, MirrorSpec};
use switchd_api::reply::ErrorCode;

const CONFIG: &str = r#"
[network.lab]
kind = "bridged"
uplink = "eth0"
[network.vm]
kind = "isolated"
[port.vm]
network = "lab"
tap = "vm0"
[port.q]
network = "vm"
tap = "q0"
"#;

fn up() -> (World, Engine) {
    let world = World::new(2);
    let mut engine = world.start(None);
    apply(&mut engine, CONFIG).unwrap();
    (world, engine)
}

fn request(source: &str) -> CaptureRequest {
    CaptureRequest {
        source: source.to_owned(),
        filter: None,
        snaplen: None,
        count: None,
        direction: Some(MirrorDirection::Rx),
        segment: false,
    }
}

fn mirror(source: &str, to: &str) -> MirrorSpec {
    toml::from_str(&format!("source = [{source:?}]\nto = {to:?}")).unwrap()
}

#[test]
fn a_capture_is_stopped_by_its_number() {
    let (world, mut engine) = up();
    let streams: Vec<_> = (0..2).map(|_| engine.start_capture(&request("port:vm")).unwrap()).collect();
    let mirrors = || world.state().workers.iter().map(|worker| worker.mirrors.len()).sum::<usize>();
    engine.stop_capture(streams[0].number).unwrap();
    assert_eq!(mirrors(), 1, "the other one goes on");
    assert_eq!(engine.stop_capture(streams[0].number).unwrap_err().code, ErrorCode::NotFound);
    engine.stop_capture(streams[1].number).unwrap();
    assert_eq!(mirrors(), 0);
}

#[test]
fn a_capture_ends_with_its_reader() {
    let (world, mut engine) = up();
    let stream = engine.start_capture(&request("port:vm")).unwrap();
    assert_eq!(world.state().workers.iter().map(|worker| worker.mirrors.len()).sum::<usize>(), 1);
    assert!(world.get().saved.as_ref().unwrap().mirror.is_empty());
    engine.tick(world.pass(Duration::from_millis(200)));
    assert!(!engine.captures.is_empty());
    drop(stream);
    let due = engine.next_deadline().unwrap() - world.get().now;
    engine.tick(world.pass(due));
    assert_eq!(world.state().workers.iter().map(|worker| worker.mirrors.len()).sum::<usize>(), 0);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_capture_ends_with_its_port() {
    let (world, mut engine) = up();
    let _stream = engine.start_capture(&request("q")).unwrap();
    engine.detach_port("q").unwrap();
    assert!(engine.captures.is_empty());
    assert!(world.state().workers.iter().all(|worker| worker.mirrors.is_empty()));
}

#[test]
fn bare_names_are_resolved_if_only_one_thing_bears_them() {
    let (_, mut engine) = up();
    let mut streams = Vec::new();
    for source in ["port:vm", "network:vm", "q", "lab", "uplink:eth0", "port:uplink:eth0"] {
        streams.push(engine.start_capture(&request(source)).unwrap_or_else(|e| panic!("{source}: {e:?}")));
    }
    let both = engine.start_capture(&request("vm")).err().unwrap();
    assert!(both.hint.unwrap().contains("port:vm or network:vm"));
    assert_eq!(engine.start_capture(&request("nobody")).err().unwrap().code, ErrorCode::NotFound);
    assert_eq!(engine.start_capture(&request("port:nobody")).err().unwrap().code, ErrorCode::NotFound);
    let bad = CaptureRequest { filter: Some("bad".to_owned()), ..request("q") };
    let error = engine.start_capture(&bad).err().unwrap();
    assert!(error.message.contains("syntax error"), "{}", error.message);
}

#[test]
fn live_captures_and_mirrors_share_the_bound_of_a_worker() {
    let (_, mut engine) = up();
    let streams: Vec<_> = (0..32).map(|_| engine.start_capture(&request("q")).unwrap()).collect();
    assert_eq!(engine.start_capture(&request("q")).err().unwrap().code, ErrorCode::Conflict);
    let error = engine.create_mirror(name("m"), mirror("port:q", "pcap:q.pcapng")).unwrap_err();
    assert!(error.message.contains("33 mirrors"), "{}", error.message);
    engine.create_mirror(name("m"), mirror("port:vm", "pcap:q.pcapng")).unwrap();
    drop(streams);
    engine.start_capture(&request("q")).unwrap();
}

#[test]
fn a_mirror_whose_file_cannot_be_opened_is_refused() {
    let (world, mut engine) = up();
    world.get().failing_files.insert("m".to_owned());
    let error = engine.create_mirror(name("m"), mirror("port:q", "pcap:m")).unwrap_err();
    assert!(error.message.contains("No space left on device"), "{}", error.message);
    assert!(world.state().files.is_empty());
    assert_eq!(engine.mirror("m").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_mirror_that_begins_to_fail_is_told_once_and_when_it_is_over() {
    let (world, mut engine) = up();
    engine.create_mirror(name("m"), mirror("port:q", "pcap:x.pcapng")).unwrap();
    world.get().failing_files.insert("m".to_owned());
    for _ in 0..3 {
        engine.tick(world.pass(Duration::from_secs(1)));
    }
    assert_eq!(engine.mirror("m").unwrap().state, "failing");
    assert_eq!(engine.mirror("m").unwrap().last_error.unwrap(), "No space left on device");
    world.get().failing_files.clear();
    engine.tick(world.pass(Duration::from_secs(1)));
    let told: Vec<String> = kinds(&engine).into_iter().filter(|kind| kind.starts_with("mirror.")).collect();
    assert_eq!(told, ["mirror.created", "mirror.failing", "mirror.running"]);
    engine.delete_mirror("m").unwrap();
    assert!(world.state().files.is_empty(), "closed when it returns");
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_mirror_ties_its_networks_to_one_worker() {
    let (world, mut engine) = up();
    assert_ne!(engine.network("lab").unwrap().worker, engine.network("vm").unwrap().worker);
    let _stream = engine.start_capture(&request("q")).unwrap();
    engine.create_mirror(name("m"), mirror("network:lab", "port:q")).unwrap();
    assert_eq!(engine.network("lab").unwrap().worker, engine.network("vm").unwrap().worker);
    let mirrors: Vec<usize> = world.state().workers.iter().map(|worker| worker.mirrors.len()).collect();
    assert!(mirrors.contains(&2), "the capture moved along: {mirrors:?}");
    engine.delete_mirror("m").unwrap();
    let picture = engine.topology().unwrap();
    assert_eq!(picture.nodes.len(), 5);
}
