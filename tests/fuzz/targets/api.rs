//! Any bodies of API requests, one a line: the creation of a network, a port, a mirror, and a PATCH map that
//! is tried on each. Nothing panics; what `validate` accepts is exported and read back as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::Path;
use switchd_api::model::{Desired, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::{Name, Named};

#[allow(dead_code, unused_imports)]
#[path = "../../../switchd/src/config/mod.rs"]
mod config;

const BASE: &str = r#"
[network.lab]
kind = "bridged"
uplink = "eth0"
[port.vm1]
network = "lab"
tap = "vm1"
"#;

fn judge(desired: &Desired) {
    let captures = Path::new("/captures");
    match config::validate(desired, captures) {
        Ok(_) => {
            let text = config::export(desired);
            assert_eq!(config::parse_toml(&text, "export", captures).as_ref(), Ok(desired));
        }
        Err(problems) => {
            let body = config::error_body(&problems);
            let mut texts = problems.iter().map(|problem| problem.to_string()).chain([body.message]);
            assert!(texts.all(|text| text.len() < 2000 && text.chars().all(|c| !c.is_control())));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let base: Desired = toml::from_str(BASE).expect("the base is valid");
    let name: Name = "m".parse().expect("a name");
    for line in input.split(|&byte| byte == b'\n').take(8) {
        if let Ok(Named { name, spec }) = serde_json::from_slice::<Named<NetworkSpec>>(line) {
            let mut desired = base.clone();
            desired.network.insert(name, spec);
            judge(&desired);
        }
        if let Ok(Named { name, spec }) = serde_json::from_slice::<Named<PortSpec>>(line) {
            let mut desired = base.clone();
            desired.port.insert(name, spec);
            judge(&desired);
        }
        if let Ok(Named { name, spec }) = serde_json::from_slice::<Named<MirrorSpec>>(line) {
            let mut desired = base.clone();
            desired.mirror.insert(name, spec);
            judge(&desired);
        }
        if let Ok(desired) = serde_json::from_slice::<Desired>(line) {
            judge(&desired);
            let _ = config::changes(&config::plan(&base, &desired));
        }
        let Ok(keys) = serde_json::from_slice::<BTreeMap<String, String>>(line) else { continue };
        let mut desired = base.clone();
        for (name, spec) in &base.network {
            match config::set_network(name, spec, &keys) {
                Ok(spec) => drop(desired.network.insert(name.clone(), spec)),
                Err(problem) => assert!(problem.to_string().chars().all(|c| !c.is_control())),
            }
        }
        for (name, spec) in &base.port {
            if let Ok(spec) = config::set_port(name, spec, &keys) {
                desired.port.insert(name.clone(), spec);
            }
        }
        let mirror = MirrorSpec {
            source: vec!["port:vm1".into()],
            direction: None,
            to: "pcap:m".into(),
            filter: None,
            snaplen: None,
            segment: false,
            rotate_size: None,
            rotate_time: None,
            rotate_count: None,
        };
        if let Ok(spec) = config::set_mirror(&name, &mirror, &keys) {
            desired.mirror.insert(name.clone(), spec);
        }
        judge(&desired);
    }
});
