//! Frames in, frames out, with a name server of our own.

use super::*;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use switchd_dataplane::TrapKind;
use tokio::net::UdpSocket;

#[derive(Default)]
struct Sent(Mutex<Vec<Vec<u8>>>);

impl Exit for Sent {
    fn send(&self, _: &Key, side: Side, frames: Vec<Vec<u8>>) -> bool {
        assert_eq!(side, Side::Inside);
        self.0.lock().unwrap().extend(frames);
        true
    }
}

struct Bench {
    dns: Dns,
    finished: mpsc::UnboundedReceiver<Answered>,
    sent: Arc<Sent>,
    server: UdpSocket,
}

const QUESTION: &[u8] = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01";

fn query(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], QUESTION].concat()
}

fn services(exit: Arc<dyn Exit>) -> NetworkServices {
    NetworkServices {
        network: "lab".into(),
        exit,
        gateway_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        v4: Prefix4 { address: Ipv4Addr::new(10, 7, 0, 1), len: 24 },
        v6: None,
        mtu: 1500,
        domain: "lab".into(),
        ports: Vec::new(),
        dhcp: None,
        dhcp6: Default::default(),
        outside: None,
        excluded: Vec::new(),
        resolvers: Vec::new(),
    }
}

async fn bench() -> Bench {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut dns, finished) = Dns::new();
    dns.server_port = server.local_addr().unwrap().port();
    dns.set_resolvers(vec![Ipv4Addr::LOCALHOST.into()]);
    let sent = Arc::new(Sent::default());
    dns.set_network(&services(sent.clone()));
    Bench { dns, finished, sent, server }
}

impl Bench {
    fn ask(&mut self, port: u16, message: &[u8]) {
        self.ask_by("vm1", port, message);
    }

    fn ask_by(&mut self, guest: &str, port: u16, message: &[u8]) {
        let link = Link { destination: MacAddr([2, 0, 0, 0, 0, 1]), source: MacAddr([2, 0, 0, 0, 0, 9]) };
        let from = format!("10.7.0.9:{port}").parse().unwrap();
        let bytes = udp4(link, from, "10.7.0.1:53".parse().unwrap(), message).unwrap();
        let frame = ServiceFrame { kind: TrapKind::Dns, network: "lab".into(), port: guest.into(), bytes };
        self.dns.take_frame(&frame);
    }

    /// What the server got; it answers with `octets` bytes behind the question.
    async fn serve(&mut self, octets: usize) -> Vec<u8> {
        let mut bytes = [0; 512];
        let (length, from) = self.server.recv_from(&mut bytes).await.unwrap();
        let mut reply = bytes[..length].to_vec();
        reply[2] |= 0x80;
        reply.resize(length + octets, 0);
        self.server.send_to(&reply, from).await.unwrap();
        bytes[..length].to_vec()
    }

    async fn finish(&mut self) {
        let answered = self.finished.recv().await.unwrap();
        self.dns.answered(answered);
    }

    /// Destination port and message of each frame that went out.
    fn replies(&self) -> Vec<(u16, Vec<u8>)> {
        let sent = std::mem::take(&mut *self.sent.0.lock().unwrap());
        let read = |frame: &Vec<u8>| {
            let udp = read_udp4(frame).expect("a whole datagram");
            assert_eq!(udp.source, "10.7.0.1:53".parse().unwrap());
            (udp.destination.port(), udp.payload.to_vec())
        };
        sent.iter().map(read).collect()
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.dns.counters(&"lab".into());
        counters.iter().find(|(what, _)| *what == name).map_or(0, |&(_, count)| count)
    }
}

#[tokio::test]
async fn a_query_goes_up_under_another_id_and_comes_back_under_its_own() {
    let mut bench = bench().await;
    bench.ask(4000, &query(0x1234));
    let seen = bench.serve(0).await;
    assert_eq!(&seen[2..], QUESTION);
    bench.finish().await;
    let replies = bench.replies();
    assert_eq!(replies.len(), 1);
    assert_eq!((replies[0].0, &replies[0].1[..3]), (4000, &[0x12, 0x34, 0x81][..]));
}

#[tokio::test]
async fn the_same_question_is_asked_once_and_everybody_is_answered() {
    let mut bench = bench().await;
    bench.ask(4000, &query(1));
    bench.ask(4001, &query(2));
    bench.serve(0).await;
    bench.finish().await;
    let ids: Vec<_> = bench.replies().iter().map(|(port, reply)| (*port, reply[1])).collect();
    assert_eq!(ids, [(4000, 1), (4001, 2)]);
    assert_eq!((bench.counter("dns-forwarded"), bench.counter("dns-joined")), (1, 1));
}

#[tokio::test]
async fn a_reply_that_the_client_cannot_take_is_truncated() {
    let mut bench = bench().await;
    bench.ask(4000, &query(1));
    bench.serve(600).await;
    bench.finish().await;
    let (_, reply) = bench.replies().remove(0);
    assert!(reply.len() <= 512 && reply[2] & 0x02 != 0, "TC is set");
    assert_eq!(bench.counter("dns-truncated"), 1);
}

#[tokio::test]
async fn without_a_name_server_the_guest_hears_of_a_failure() {
    let mut bench = bench().await;
    bench.dns.set_resolvers(Vec::new());
    bench.ask(4000, &query(1));
    bench.finish().await;
    assert_eq!(bench.replies()[0].1[3] & 0xf, 2, "SERVFAIL");
    assert_eq!(bench.counter("dns-failed"), 1);
}

#[tokio::test]
async fn a_name_server_of_the_networks_own_is_asked_at_its_port() {
    let mut bench = bench().await;
    bench.dns.set_resolvers(Vec::new());
    let resolvers = vec![bench.server.local_addr().unwrap()];
    bench.dns.set_network(&NetworkServices { resolvers, ..services(bench.sent.clone()) });
    bench.ask(4000, &query(1));
    bench.serve(0).await;
    bench.finish().await;
    assert_eq!(bench.replies().len(), 1);
}

#[tokio::test]
async fn beyond_the_bound_queries_are_dropped_and_counted_and_other_guests_are_served() {
    let mut bench = bench().await;
    let ask = |bench: &mut Bench, guest: &str, number: usize| {
        let mut message = query(1);
        // Distinct questions: the type differs.
        let at = message.len() - 4;
        message[at..at + 2].copy_from_slice(&(number as u16 + 1024).to_be_bytes());
        bench.ask_by(guest, 4000, &message);
    };
    // The name server is silent, and one guest asks and asks.
    (0..=IN_FLIGHT).for_each(|number| ask(&mut bench, "greedy", number));
    let half = IN_FLIGHT as u64 / 2;
    assert_eq!((bench.counter("dns-forwarded"), bench.counter("dns-busy")), (half, half + 1));
    (0..100).for_each(|number| ask(&mut bench, "vm2", 1000 + number));
    assert_eq!((bench.counter("dns-forwarded"), bench.counter("dns-busy")), (half + 100, half + 1));
    // Nor can it keep others from waiting for the answer to a question of its own.
    (0..200).for_each(|_| ask(&mut bench, "greedy", 0));
    let busy = bench.counter("dns-busy");
    ask(&mut bench, "vm2", 0);
    assert_eq!(bench.counter("dns-busy"), busy);
    // What is answered makes room again.
    for _ in 0..200 {
        bench.serve(0).await;
        bench.finish().await;
    }
    ask(&mut bench, "greedy", 5000);
    assert_eq!(bench.counter("dns-busy"), busy);
}

#[tokio::test]
async fn own_names_need_no_server() {
    let mut bench = bench().await;
    let host = Host { address: "10.7.0.20".parse().unwrap(), port: "vm1".into(), mac: None, hostname: None };
    bench.dns.set_hosts(&"lab".into(), &[host]);
    let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03vm1\x03lab\0\0\x01\0\x01";
    bench.ask(4000, question);
    let (_, reply) = bench.replies().remove(0);
    assert_eq!(&reply[reply.len() - 4..], [10, 7, 0, 20]);
    assert_eq!(bench.counter("dns-local"), 1);
    bench.dns.set_network(&services(bench.sent.clone()));
    bench.ask(4000, question);
    assert_eq!(bench.replies().len(), 1, "a change of other settings keeps the names");
}

#[tokio::test]
async fn a_reply_to_another_question_is_ignored_and_counted_where_it_was_asked() {
    let mut bench = bench().await;
    bench.ask(4000, &query(1));
    let mut bytes = [0; 512];
    let (length, from) = bench.server.recv_from(&mut bytes).await.unwrap();
    bytes[2] |= 0x80;
    let forged = [&[bytes[0] ^ 1], &bytes[1..length]].concat();
    bench.server.send_to(&forged, from).await.unwrap();
    bench.server.send_to(&bytes[..length], from).await.unwrap();
    bench.finish().await;
    assert_eq!(bench.replies().len(), 1);
    assert_eq!(bench.counter("dns-spoofed"), 1);
    // A change of settings keeps the count.
    bench.dns.set_network(&services(bench.sent.clone()));
    assert_eq!(bench.counter("dns-spoofed"), 1);
}
