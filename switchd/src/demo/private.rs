//! The NAT networks: a guest of each gets its address by DHCP, resolves a name and downloads from outside.
//!
//! `lab` leaves by the bond under an address of its own, `cafe` as the host, through the host's sockets.

use super::api::Api;
use super::stage::{self, Guest};
use super::{LAN, Row, dhcp, traffic};
use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// A server beyond the LAN, in the "internet" that the LAN's namespace stands for too.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NAME: &str = "files.example.";
/// The host's own way there.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const PROVIDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const LAB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const DOWNLOAD: Duration = Duration::from_millis(700);

/// Makes the internet, with a name server, and both networks.
pub fn set_up(api: &Api, lan: &Guest) -> Result<()> {
    lan.own(INTERNET)?;
    stage::veth("wan0", "eth1", lan.name)?;
    lan.configure("eth1", PROVIDER)?;
    stage::configure("wan0", Some(HOST))?;
    stage::route(INTERNET, 32, PROVIDER)?;
    lan.run(serve_names)??;
    api.post(
        "/v1/networks",
        json!({
            "name": "lab", "kind": "nat", "subnet": "10.7.0.0/24", "egress": "bond0",
            "address": format!("{LAB}/24"), "gateway": LAN.to_string(), "resolver": INTERNET.to_string(),
        }),
    )?;
    api.post(
        "/v1/networks",
        json!({
            "name": "cafe", "kind": "nat", "subnet": "10.8.0.0/24", "egress": "host",
            "resolver": INTERNET.to_string(),
        }),
    )
}

/// A name server that knows one name.
fn serve_names() -> Result<()> {
    // Replies must come from the address that was asked.
    let socket = UdpSocket::bind((INTERNET, 53))?;
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let Ok(query) = Message::from_vec(&bytes[..length]) else { continue };
            let mut answer = query.clone().into_response();
            if let Some(question) = query.queries.first() {
                let data = RData::A(A(INTERNET));
                answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
            }
            if let Ok(bytes) = answer.to_vec() {
                let _ = socket.send_to(&bytes, from);
            }
        }
    });
    Ok(())
}

fn resolve(server: Ipv4Addr) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect((server, 53))?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(NAME)?, RecordType::A));
    socket.send(&query.to_vec()?)?;
    let mut bytes = [0; 1500];
    let length = socket.recv(&mut bytes).context("the name server does not answer")?;
    let answer = Message::from_vec(&bytes[..length])?;
    let found = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    });
    found.with_context(|| format!("{NAME} has no address: {}", answer.metadata.response_code))
}

/// One guest's way from nothing to a download.
pub fn play(guest: &Guest, lan: &Guest, seen_as: Seen) -> Result<Vec<Row>> {
    let mac = guest.mac("eth0")?;
    let lease = guest.run(move || dhcp::lease("eth0", mac))??;
    guest.configure("eth0", lease.address)?;
    guest.route(Ipv4Addr::UNSPECIFIED, 0, lease.router)?;
    let server = lease.dns;
    let address = guest.run(move || resolve(server))??;
    let (source, port) = lan.run(|| traffic::source(DOWNLOAD))??;
    let gigabits = guest.run(move || traffic::download(address, port))??;
    let from = lan.run(move || source.client())??;
    let expected = match seen_as {
        Seen::Lab => LAB,
        Seen::Host => HOST,
    };
    if from != expected {
        bail!("{} was seen from outside as {from}, not as {expected}", guest.name);
    }
    let (name, how) = match seen_as {
        Seen::Lab => ("lab1, NAT by an address of its own", "by the bond"),
        Seen::Host => ("cafe1, NAT as the host", "by the host's sockets"),
    };
    Ok(vec![
        Row::new(
            format!("{name}: DHCP, DNS"),
            format!("{} from {}; {} is {address}", lease.address, lease.router, NAME.trim_end_matches('.')),
        ),
        Row::new(format!("  download {how}, TCP"), format!("{gigabits:.2} Gbit/s, seen outside as {from}")),
    ])
}

/// As whom a guest is seen from outside.
#[derive(Clone, Copy)]
pub enum Seen {
    Lab,
    Host,
}
