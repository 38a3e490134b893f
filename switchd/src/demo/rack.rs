//! The bond: a second switchd stands for the rack switch, and one of the two links is pulled under traffic.

use super::api::Api;
use super::stage::{self, Guest, Stage};
use super::traffic::{self, Pings};
use super::{LAN, Row};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Our ends of the links, and the rack's.
const LINKS: [(&str, &str); 2] = [("uplink0", "rack0"), ("uplink1", "rack1")];
const TRANSFER: Duration = Duration::from_millis(1600);
const PULLED_AFTER: Duration = Duration::from_millis(600);
const PINGS: u32 = 800;
const NEGOTIATED: Duration = Duration::from_secs(10);

/// The rack switch, in a namespace of its own: a bond to us, and the LAN.
pub struct Rack {
    _guest: Guest,
    _api: Api,
}

impl Rack {
    pub fn set_up(stage: &Stage, lan: &Guest) -> Result<Rack> {
        let guest = Guest::new("rack")?;
        for (near, far) in LINKS {
            stage::veth(near, far, guest.name)?;
            guest.run(move || stage::configure(far, None))??;
        }
        let lan_name = lan.name;
        guest.run(move || stage::veth("lan0", "eth0", lan_name))??;
        lan.configure("eth0", LAN)?;
        let api = stage.start_daemon("rack", Some(&guest))?;
        let members: Vec<&str> = LINKS.iter().map(|(_, far)| *far).collect();
        api.post("/v1/bonds", json!({"name": "bond0", "mode": "lacp", "members": members}))?;
        api.post("/v1/networks", json!({"name": "floor", "kind": "bridged", "uplink": "bond0"}))?;
        api.post("/v1/ports", json!({"name": "lan", "network": "floor", "netdev": "lan0"}))?;
        Ok(Rack { _guest: guest, _api: api })
    }
}

/// Our end.
pub fn bond(api: &Api) -> Result<()> {
    let members: Vec<&str> = LINKS.iter().map(|(near, _)| *near).collect();
    api.post("/v1/bonds", json!({"name": "bond0", "mode": "lacp", "members": members}))
}

/// Waits until both links are in the aggregate; how long it took.
pub fn negotiated(api: &Api) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let bond = api.get("/v1/bonds/bond0")?;
        let links = bond["links"].as_array().context("the bond has no members")?;
        if links.iter().all(|link| link["distributing"] == true && link["collecting"] == true) {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > NEGOTIATED {
            bail!("the bond was not negotiated in {} s: {bond}", NEGOTIATED.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sent(bond: &Value) -> Vec<(String, u64)> {
    let links = bond["links"].as_array().into_iter().flatten();
    links
        .filter_map(|link| {
            let bytes = link["counters"]["tx_bytes"].as_u64()?;
            Some((link["interface"].as_str()?.to_owned(), bytes))
        })
        .collect()
}

/// The member that carries most at this moment.
fn busiest(api: &Api) -> Result<String> {
    let before = sent(&api.get("/v1/bonds/bond0")?);
    std::thread::sleep(Duration::from_millis(100));
    let after = sent(&api.get("/v1/bonds/bond0")?);
    let grown = before.iter().zip(&after).map(|((name, old), (_, new))| (new - old, name));
    grown.max().map(|(_, name)| name.clone()).context("the bond has no members")
}

/// A transfer and pings to the LAN while the link under the transfer is pulled.
pub fn pull(api: &Api, office: &[Guest; 2], lan: &Guest) -> Result<Vec<Row>> {
    let (server, port) = lan.run(traffic::sink)??;
    let transfer = office[0].begin(move || traffic::transfer(LAN, port, TRANSFER))?;
    let pings = office[1].begin(|| traffic::ping(LAN, PINGS))?;
    std::thread::sleep(PULLED_AFTER);
    let link = busiest(api)?;
    stage::set_link(&link, false)?;
    let gigabits = office[0].finish(transfer)??;
    let Pings { sent, answered, slowest, .. } = office[1].finish(pings)??;
    lan.run(move || server.stop())?;
    stage::set_link(&link, true)?;
    Ok(vec![
        Row::new(
            "office1 → LAN over the bond, TCP, a link pulled",
            format!("{gigabits:.2} Gbit/s, {link} pulled"),
        ),
        Row::new(
            "office2 → LAN meanwhile, ping",
            format!(
                "{answered}/{sent}, {} lost, slowest {:.1} ms",
                sent - answered,
                slowest.as_secs_f64() * 1e3
            ),
        ),
    ])
}
