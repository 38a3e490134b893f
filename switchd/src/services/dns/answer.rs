//! What is to become of a query. Pure: bytes in, a decision out.
//!
//! Own names and addresses are answered with authority; single labels and the special names of RFC 6761 and
//! RFC 7686 never leave the host. Everything else goes to the upstream as it came, but for its id. A reply
//! that does not fit the client is cut down to its question, with TC set (RFC 2181 9).

use super::names::{Known, Names};
use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds that a name of the network's may be kept: leases come and go.
const TTL: u32 = 30;
/// What we say that we take over UDP (RFC 9715 asks for 1400 at most).
const OUR_PAYLOAD: u16 = 1232;
/// Over UDP without EDNS (RFC 1035 4.2.1).
pub const PLAIN_PAYLOAD: usize = 512;
const HEADER: usize = 12;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send this; the name says what it was, for the counters.
    Answer(Vec<u8>, &'static str),
    /// Ask the upstream. A reply of up to so many bytes fits the client over UDP.
    Forward { fits: usize },
    /// Say nothing.
    Ignore(&'static str),
}

pub fn decide(query: &[u8], names: &Names) -> Decision {
    // A response is never answered: two forwarders could go on for ever.
    match query.get(2) {
        None => return Decision::Ignore("dns-malformed"),
        Some(flags) if flags & 0x80 != 0 => return Decision::Ignore("dns-malformed"),
        Some(_) => {}
    }
    let Ok(message) = Message::from_vec(query) else {
        return match malformed(query) {
            Some(reply) => Decision::Answer(reply, "dns-malformed"),
            None => Decision::Ignore("dns-malformed"),
        };
    };
    if message.metadata.op_code != OpCode::Query {
        return reply(&message, ResponseCode::NotImp, "dns-refused");
    }
    let [question] = message.queries.as_slice() else {
        return reply(&message, ResponseCode::FormErr, "dns-malformed");
    };
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return reply(&message, ResponseCode::BADVERS, "dns-refused");
    }
    if question.query_class() != DNSClass::IN
        || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return reply(&message, ResponseCode::Refused, "dns-refused");
    }
    let name = question.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    if let Some(known) = special(name) {
        return local(&message, names, known);
    }
    if name.ends_with(".arpa")
        && let Ok(net) = question.name().parse_arpa_name()
        && net.prefix_len() == net.max_prefix_len()
        && let Some(found) = names.find_address(net.addr())
    {
        let target = found.and_then(|name| Name::from_ascii(format!("{name}.")).ok());
        return pointer(&message, names, target);
    }
    match names.find(name) {
        Known::Elsewhere => {
            let fits = message.edns.as_ref().map_or(PLAIN_PAYLOAD, |edns| edns.max_payload().into());
            Decision::Forward { fits: fits.max(PLAIN_PAYLOAD) }
        }
        // The root and top-level domains have records of their own; hosts have not.
        Known::Nobody
            if name.is_empty()
                || !name.contains('.')
                    && name != names.domain()
                    && matches!(
                        question.query_type(),
                        RecordType::NS | RecordType::SOA | RecordType::DS | RecordType::DNSKEY
                    ) =>
        {
            Decision::Forward { fits: PLAIN_PAYLOAD.max(usize::from(message.max_payload())) }
        }
        known => local(&message, names, known),
    }
}

/// RFC 6761 6.3 and 6.4, RFC 7686 2.
fn special(name: &str) -> Option<Known> {
    let under = |zone: &str| name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
    if under("localhost") {
        let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Some(Known::Addresses(addresses));
    }
    (under("invalid") || under("onion")).then_some(Known::Nobody)
}

fn local(query: &Message, names: &Names, known: Known) -> Decision {
    let mut answer = response(query, ResponseCode::NoError);
    let question = &query.queries[0];
    match known {
        Known::Addresses(addresses) => {
            for address in addresses {
                let data = match (question.query_type(), address) {
                    (RecordType::A | RecordType::ANY, IpAddr::V4(v4)) => RData::A(A(v4)),
                    (RecordType::AAAA | RecordType::ANY, IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
            }
        }
        Known::Nobody | Known::Elsewhere => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    finish(answer, names)
}

fn pointer(query: &Message, names: &Names, target: Option<Name>) -> Decision {
    let mut answer = response(query, ResponseCode::NoError);
    let question = &query.queries[0];
    match target {
        Some(target) if matches!(question.query_type(), RecordType::PTR | RecordType::ANY) => {
            answer.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::PTR(PTR(target))));
        }
        Some(_) => {}
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    finish(answer, names)
}

/// Without answers, the SOA says how long that may be believed (RFC 2308 3).
fn finish(mut answer: Message, names: &Names) -> Decision {
    answer.metadata.authoritative = true;
    if answer.answers.is_empty()
        && let Ok(zone) = Name::from_ascii(format!("{}.", names.domain()))
        && let Ok(server) = Name::from_ascii(format!("{}.{}.", super::names::GATEWAY, names.domain()))
    {
        let soa = SOA::new(server, zone.clone(), 1, 3600, 600, 86_400, TTL);
        answer.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
    }
    encode(&answer, "dns-local")
}

fn response(query: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.checking_disabled = query.metadata.checking_disabled;
    answer.metadata.response_code = code;
    answer.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_PAYLOAD).set_version(0).set_rcode_high(code.high());
        answer.set_edns(edns);
    }
    answer
}

fn reply(query: &Message, code: ResponseCode, what: &'static str) -> Decision {
    encode(&response(query, code), what)
}

fn encode(answer: &Message, what: &'static str) -> Decision {
    match answer.to_vec() {
        Ok(bytes) => Decision::Answer(bytes, what),
        Err(_) => Decision::Ignore("dns-malformed"),
    }
}

/// FORMERR for what has a header at least.
fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let &[high, low, flags, _, ..] = query.get(..HEADER)? else { return None };
    Some(vec![high, low, 0x80 | flags & 0x79, 0x80 | 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// "The name server failed", for a query whose upstream does not answer.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(query).ok()?;
    response(&message, ResponseCode::ServFail).to_vec().ok()
}

/// The reply as it is, or, when it is longer than `fits`, its question alone with TC set.
pub fn fit(reply: Vec<u8>, fits: usize) -> Vec<u8> {
    if reply.len() <= fits {
        return reply;
    }
    let cut = Message::from_vec(&reply).ok().and_then(|message| {
        let mut short = message.truncate();
        short.metadata.truncation = true;
        short.to_vec().ok()
    });
    cut.filter(|short| short.len() <= fits).unwrap_or_else(|| {
        let mut header = reply[..HEADER.min(reply.len())].to_vec();
        if let [_, _, flags, _, counts @ ..] = header.as_mut_slice() {
            *flags |= 0x02;
            counts.fill(0);
        }
        header
    })
}

/// Does the reply belong to the query that was sent: id, response bit, and the question, byte for byte but
/// for the case of letters?
pub fn belongs(reply: &[u8], query: &[u8]) -> bool {
    let question = question_end(query).and_then(|end| query.get(HEADER..end));
    let (Some(question), Some(flags)) = (question, reply.get(2)) else { return false };
    let same = reply.get(HEADER..HEADER + question.len());
    flags & 0x80 != 0
        && reply.get(..2) == query.get(..2)
        && same.is_some_and(|same| same.eq_ignore_ascii_case(question))
}

/// Behind the only question of a message; its name is not compressed.
pub fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length if length & 0xc0 == 0 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
    (at + 5 <= message.len()).then_some(at + 5)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
