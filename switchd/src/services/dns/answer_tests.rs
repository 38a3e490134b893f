//! Decisions about queries.

use super::super::names::Host;
use super::*;
use hickory_proto::op::{MessageType, Query};
use switchd_nat::{Prefix4, Prefix6};

fn names() -> Names {
    let v4 = Prefix4 { address: "10.7.0.1".parse().unwrap(), len: 24 };
    let v6 = Prefix6 { address: "fd00:7::1".parse().unwrap(), len: 64 };
    let mut names = Names::new("lab", v4, Some(v6));
    let host = |address: &str| Host {
        address: address.parse().unwrap(),
        port: "vm1".into(),
        mac: None,
        hostname: None,
    };
    names.set_hosts(&[host("10.7.0.20"), host("fd00:7::20")]);
    names
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn answered(message: &Message) -> Message {
    match decide(&message.to_vec().unwrap(), &names()) {
        Decision::Answer(bytes, _) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn own_names_are_answered_with_authority() {
    let answer = answered(&query("VM1.lab.", RecordType::A));
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(data(&answer), ["10.7.0.20"]);
    assert_eq!(data(&answered(&query("vm1.", RecordType::AAAA))), ["fd00:7::20"]);
    assert_eq!(data(&answered(&query("gateway.lab.", RecordType::A))), ["10.7.0.1"]);
}

#[test]
fn a_name_without_such_a_record_is_no_error() {
    let answer = answered(&query("vm1.lab.", RecordType::MX));
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    assert_eq!(answer.authorities.len(), 1, "an SOA for negative caching");
}

#[test]
fn unknown_names_of_the_domain_and_single_labels_stay_here() {
    for name in ["nobody.lab.", "nobody.", "host.onion.", "a.invalid."] {
        let answer = answered(&query(name, RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(data(&answered(&query("localhost.", RecordType::A))), ["127.0.0.1"]);
}

#[test]
fn addresses_have_names_back() {
    assert_eq!(data(&answered(&query("20.0.7.10.in-addr.arpa.", RecordType::PTR))), ["vm1.lab."]);
    let nobody = answered(&query("21.0.7.10.in-addr.arpa.", RecordType::PTR));
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    let elsewhere = query("1.1.1.1.in-addr.arpa.", RecordType::PTR).to_vec().unwrap();
    assert_eq!(decide(&elsewhere, &names()), Decision::Forward { fits: 512 });
}

#[test]
fn the_rest_goes_upstream_with_the_size_that_the_client_takes() {
    let mut message = query("www.example.org.", RecordType::A);
    assert_eq!(decide(&message.to_vec().unwrap(), &names()), Decision::Forward { fits: 512 });
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    message.set_edns(edns);
    assert_eq!(decide(&message.to_vec().unwrap(), &names()), Decision::Forward { fits: 1400 });
    let root = query(".", RecordType::NS).to_vec().unwrap();
    assert_eq!(decide(&root, &names()), Decision::Forward { fits: 512 });
}

#[test]
fn what_is_not_a_query_is_refused_or_ignored() {
    assert_eq!(decide(&[], &names()), Decision::Ignore("dns-malformed"));
    assert_eq!(decide(&[0; 5], &names()), Decision::Ignore("dns-malformed"));
    let mut response = query("vm1.lab.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert_eq!(decide(&response.to_vec().unwrap(), &names()), Decision::Ignore("dns-malformed"));
    let mut two = query("vm1.lab.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(answered(&two).metadata.response_code, ResponseCode::FormErr);
    let mut notify = query("vm1.lab.", RecordType::A);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(answered(&notify).metadata.response_code, ResponseCode::NotImp);
    assert_eq!(answered(&query("lab.", RecordType::AXFR)).metadata.response_code, ResponseCode::Refused);
    let mut cut = query("vm1.lab.", RecordType::A).to_vec().unwrap();
    cut.truncate(20);
    let Decision::Answer(bytes, _) = decide(&cut, &names()) else { panic!("no FORMERR") };
    assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn an_unknown_edns_version_is_told_ours() {
    let mut message = query("vm1.lab.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let answer = answered(&message);
    assert_eq!(answer.edns.as_ref().map(Edns::version), Some(0));
    assert_eq!(answer.edns.as_ref().map(Edns::rcode_high), Some(1), "BADVERS is 16");
}

#[test]
fn a_long_reply_is_cut_to_its_question() {
    let mut long = query("www.example.org.", RecordType::A);
    long.metadata.message_type = MessageType::Response;
    for octet in 0..100 {
        let name = long.queries[0].name().clone();
        long.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, octet)))));
    }
    let long = long.to_vec().unwrap();
    let short = Message::from_vec(&fit(long.clone(), 512)).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());
    assert_eq!(short.queries.len(), 1);
    assert_eq!(fit(long.clone(), long.len()), long);
    assert_eq!(fit(vec![0xff; 600], 512).len(), 12);
}

#[test]
fn a_reply_to_another_question_does_not_belong() {
    let asked = query("www.example.org.", RecordType::A).to_vec().unwrap();
    let mut reply = query("WWW.example.org.", RecordType::A);
    assert!(!belongs(&reply.to_vec().unwrap(), &asked), "a query is no reply");
    reply.metadata.message_type = MessageType::Response;
    assert!(belongs(&reply.to_vec().unwrap(), &asked));
    reply.metadata.id = 8;
    assert!(!belongs(&reply.to_vec().unwrap(), &asked));
    let mut other = query("www.example.com.", RecordType::A);
    other.metadata.message_type = MessageType::Response;
    assert!(!belongs(&other.to_vec().unwrap(), &asked));
    assert!(!belongs(&[], &asked) && !belongs(&asked, &[]));
}
