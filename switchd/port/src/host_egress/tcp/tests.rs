//! The machine alone: a stream in memory, and a clock that the test moves.

use super::*;
use std::collections::VecDeque;
use std::io;

const SECOND: u64 = 1_000_000_000;
const TIMES: Times = Times { established: 7440 * SECOND, transitory: 240 * SECOND };

/// A socket without a kernel: what comes from the remote end, and room for what goes to it.
#[derive(Default)]
struct Memory {
    incoming: VecDeque<u8>,
    ended: bool,
    outgoing: Vec<u8>,
    /// Bytes that may be in `outgoing`; a write beyond it is short.
    room: usize,
    finished: bool,
    asked: u32,
    discarded: usize,
}

impl Stream for Memory {
    fn write(&mut self, parts: [&[u8]; 2]) -> io::Result<usize> {
        let free = self.room - self.outgoing.len().min(self.room);
        let all = parts.concat();
        if free == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = all.len().min(free);
        self.outgoing.extend_from_slice(&all[..taken]);
        Ok(taken)
    }

    fn peek(&mut self, offset: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.incoming.len().saturating_sub(offset as usize).min(buffer.len());
        if have == 0 && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in buffer.iter_mut().zip(self.incoming.iter().skip(offset as usize)) {
            *to = *from;
        }
        Ok(have)
    }

    fn reach(&self) -> u32 {
        u32::MAX / 2
    }

    fn discard(&mut self, bytes: u32) -> io::Result<()> {
        assert!(bytes as usize <= self.incoming.len(), "only what is there can have been acknowledged");
        self.incoming.drain(..bytes as usize);
        self.discarded += bytes as usize;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }

    fn memory(&mut self) -> io::Result<(u32, u32)> {
        Ok((self.outgoing.len() as u32, self.room as u32))
    }

    fn has_room(&mut self) -> bool {
        self.asked += 1;
        self.outgoing.len() * 3 < self.room * 2
    }

    fn keep_alive(&mut self) {}
}

struct Bench {
    conn: Conn,
    stream: Memory,
    tally: Tally,
    now: u64,
    buffer: Vec<u8>,
}

impl Bench {
    /// An open connection: the guest's next number is 1000, ours 5001.
    fn open(window: u16) -> Bench {
        let syn = Segment { seq: 999, flags: SYN, window, mss: Some(1000), ..Segment::default() };
        let mut bench = Bench {
            conn: Conn::from_guest(SECOND, &syn, 5000, 1460, false, TIMES),
            stream: Memory { room: 1 << 20, ..Memory::default() },
            tally: Tally::default(),
            now: SECOND,
            buffer: vec![0; 65_536],
        };
        assert_eq!(bench.next(), None, "nothing is said while the host connects");
        let ready = Ready { writable: true, ..Ready::default() };
        assert_eq!(bench.conn.ready(bench.now, ready, || None), Verdict::Keep);
        let both = bench.next().unwrap();
        assert_eq!((both.flags, both.seq, both.ack), (SYN | ACK, 5000, 1000));
        assert_eq!(bench.take(1000, 5001, ACK, window, &[]), Verdict::Keep);
        assert_eq!(bench.conn.state, State::Open);
        bench
    }

    fn take(&mut self, seq: u32, ack: u32, flags: u8, window: u16, payload: &[u8]) -> Verdict {
        let segment = Segment { seq, ack, flags, window, ..Segment::default() };
        let halves = payload.split_at(payload.len() / 2);
        self.conn.segment(self.now, &segment, [halves.0, halves.1], &mut self.stream, &mut self.tally)
    }

    fn next(&mut self) -> Option<Emit> {
        self.conn.next(self.now, Some(&mut self.stream), &mut self.buffer, &mut self.tally).unwrap()
    }

    fn all(&mut self) -> Vec<Emit> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The remote end sends.
    fn comes(&mut self, bytes: &[u8]) {
        self.stream.incoming.extend(bytes);
        let ready = Ready { readable: true, ..Ready::default() };
        assert_eq!(self.conn.ready(self.now, ready, || None), Verdict::Keep);
    }

    fn ends(&mut self) {
        self.stream.ended = true;
        let ready = Ready { readable: true, hung_up: true, ..Ready::default() };
        assert_eq!(self.conn.ready(self.now, ready, || None), Verdict::Keep);
    }

    /// Moves the clock to the machine's deadline.
    fn timer(&mut self) -> Verdict {
        self.now = self.conn.deadline();
        self.conn.timer(self.now, &mut self.tally)
    }
}

#[test]
fn an_unanswered_segment_is_sent_again_with_doubled_times_and_then_given_up_rfc6298_5_5() {
    let mut bench = Bench::open(8000);
    bench.comes(&[1; 500]);
    assert_eq!(bench.next().unwrap().payload, 500);
    let mut waits = Vec::new();
    let end = loop {
        let before = bench.now;
        match bench.timer() {
            Verdict::Keep => waits.push((bench.now - before) / 1_000_000),
            end => break end,
        }
        let again = bench.next().unwrap();
        assert_eq!((again.seq, again.payload), (5001, 500));
    };
    assert_eq!(end, Verdict::End(End::Silent));
    assert_eq!(waits.len(), usize::from(timers::TRIES));
    assert_eq!((waits[..4].to_vec(), waits[14]), (vec![200, 400, 800, 1600], 60_000));
    assert_eq!(bench.tally.retransmits, u64::from(timers::TRIES));
}

#[test]
fn a_closed_window_is_probed_for_ever_while_the_guest_answers() {
    let mut bench = Bench::open(0);
    bench.comes(&[1; 500]);
    assert!(bench.all().is_empty());
    for _ in 0..100 {
        assert_eq!(bench.timer(), Verdict::Keep);
        let probe = bench.next().unwrap();
        assert_eq!((probe.seq, probe.payload), (5000, 0));
        assert_eq!(bench.take(1000, 5001, ACK, 0, &[]), Verdict::Keep);
    }
    assert!(bench.conn.deadline() - bench.now <= timers::RTO_MAX);
    assert_eq!(bench.take(1000, 5001, ACK, 200, &[]), Verdict::Keep);
    assert_eq!(bench.next().unwrap().payload, 200, "all that fits, as nothing is under way");
}

#[test]
fn a_guest_that_shrank_its_window_with_data_under_way_is_probed_too() {
    let mut bench = Bench::open(500);
    bench.comes(&[1; 500]);
    assert_eq!(bench.next().unwrap().payload, 500);
    assert_eq!(bench.take(1000, 5001, ACK, 0, &[]), Verdict::Keep);
    for _ in 0..50 {
        assert_eq!(bench.timer(), Verdict::Keep);
        assert_eq!(bench.next().unwrap().seq, 5000);
        assert_eq!(bench.take(1000, 5001, ACK, 0, &[]), Verdict::Keep);
    }
}

#[test]
fn a_silent_guest_is_asked_after_the_established_time_and_then_given_up_rfc5382_5() {
    let mut bench = Bench::open(8000);
    let opened = bench.now;
    assert_eq!(bench.timer(), Verdict::Keep);
    assert_eq!(bench.now - opened, TIMES.established);
    assert_eq!(bench.next().unwrap().seq, 5000);
    // It lives.
    assert_eq!(bench.take(1000, 5001, ACK, 8000, &[]), Verdict::Keep);
    let mut probes = 0;
    while bench.timer() == Verdict::Keep {
        assert!(bench.next().is_some());
        probes += 1;
    }
    assert_eq!(probes, 9);
}

#[test]
fn a_syn_that_nobody_answers_ends_after_six_repetitions() {
    let mut conn = Conn::to_guest(0, 7, 1460, false, TIMES);
    let (mut now, mut tally, mut syns) = (0, Tally::default(), 0);
    let end = loop {
        if let Some(syn) = conn.next(now, None::<&mut Memory>, &mut [], &mut tally).unwrap() {
            assert_eq!((syn.flags, syn.seq, syn.options), (SYN, 7, Some((1460, Some(SHIFT)))));
            syns += 1;
        }
        now = conn.deadline();
        match conn.timer(now, &mut tally) {
            Verdict::Keep => {}
            end => break end,
        }
    };
    assert_eq!((end, syns), (Verdict::End(End::Silent), 7));
    assert!((60 * SECOND..180 * SECOND).contains(&now), "{now}");
}

#[test]
fn what_the_socket_took_in_part_is_acknowledged_in_part_and_the_rest_asked_for_when_there_is_room() {
    let mut bench = Bench::open(8000);
    bench.stream.room = 1500;
    assert_eq!(bench.take(1000, 5001, ACK, 8000, &[1; 1000]), Verdict::Keep);
    assert_eq!(bench.take(2000, 5001, ACK, 8000, &[2; 1000]), Verdict::Keep);
    let ack = bench.next().unwrap();
    assert_eq!(ack.ack, 2500);
    assert!(bench.all().is_empty());
    assert_eq!(bench.tally.short_writes, 1);
    // Further ones are not taken, but acknowledged as what they are.
    assert_eq!(bench.take(3000, 5001, ACK, 8000, &[3; 1000]), Verdict::Keep);
    assert_eq!(bench.next().unwrap().ack, 2500);
    bench.stream.outgoing.clear();
    let ready = Ready { writable: true, ..Ready::default() };
    assert_eq!(bench.conn.ready(bench.now, ready, || None), Verdict::Keep);
    let acks = bench.all();
    assert_eq!(acks.len(), 4, "the window, and three duplicates of it (RFC 5681 3.2)");
    assert!(acks.iter().all(|ack| ack.ack == 2500 && ack.window > 0 && ack.payload == 0));
}

#[test]
fn the_window_never_shrinks_from_the_right_and_closes_when_the_socket_is_full_rfc9293_3_8_6() {
    let mut bench = Bench::open(8000);
    bench.stream.room = 64 * 1024;
    let (mut seq, mut edge) = (1000u32, 0);
    for _ in 0..200 {
        let room = edge.max(seq + 1000) - seq;
        let payload = vec![1; (room as usize).min(1000)];
        assert_eq!(bench.take(seq, 5001, ACK, 8000, &payload), Verdict::Keep);
        for ack in bench.all() {
            assert!(ack.ack + u32::from(ack.window) >= edge, "the edge moved back");
            edge = ack.ack + u32::from(ack.window);
            seq = ack.ack;
        }
        if edge == seq {
            break;
        }
    }
    assert_eq!(edge, seq, "the window is closed");
    assert_eq!(bench.tally.short_writes, 0, "before anything had to be refused");
    assert!(bench.stream.asked > 0, "and the socket was asked to tell");
    bench.stream.outgoing.clear();
    let ready = Ready { writable: true, ..Ready::default() };
    assert_eq!(bench.conn.ready(bench.now, ready, || None), Verdict::Keep);
    assert!(bench.next().unwrap().window > 0);
}

/// The kernel accounts a superframe of 64 KiB until its last byte is taken, and its window may stay shut for as
/// long: nothing else would bring the next turn.
#[test]
fn the_last_byte_that_is_acknowledged_leaves_the_socket_without_another_event() {
    for len in [1, 100, 2472, 60_000] {
        let mut bench = Bench::open(65_000);
        bench.comes(&vec![1; len]);
        let sent: usize = bench.all().iter().map(|emit| emit.payload).sum();
        assert_eq!(sent, len);
        assert!(!bench.conn.wants_turn());
        assert_eq!(bench.take(1000, 5001 + len as u32, ACK, 65_000, &[]), Verdict::Keep);
        assert!(bench.conn.wants_turn(), "{len} bytes stay behind");
        assert_eq!(bench.next(), None);
        assert_eq!(bench.stream.discarded, len);
    }
}

#[test]
fn both_directions_close_in_every_order() {
    // The guest first.
    let mut bench = Bench::open(8000);
    assert_eq!(bench.take(1000, 5001, ACK | FIN, 8000, b"bye"), Verdict::Keep);
    assert!(bench.stream.finished && bench.stream.outgoing == b"bye");
    assert_eq!((bench.next().unwrap().ack, bench.conn.state_name()), (1004, "fin-wait"));
    bench.comes(b"rest");
    bench.ends();
    let sent = bench.all();
    assert_eq!((sent[0].payload, sent[1].flags, sent[1].seq), (4, ACK | FIN, 5005));
    assert_eq!(bench.take(1004, 5006, ACK, 8000, &[]), Verdict::End(End::Done));
    // The remote end first.
    let mut bench = Bench::open(8000);
    bench.ends();
    assert_eq!(bench.next().unwrap().flags, ACK | FIN);
    assert_eq!(bench.take(1000, 5002, ACK, 8000, &[]), Verdict::Keep);
    assert_eq!(bench.conn.state_name(), "close-wait");
    assert_eq!(bench.take(1000, 5002, ACK | FIN, 8000, b"last"), Verdict::Wait);
    assert_eq!(bench.next().unwrap().ack, 1005);
    assert_eq!(bench.timer(), Verdict::End(End::Done));
    // Both at once (RFC 9293 3.6, figure 13).
    let mut bench = Bench::open(8000);
    bench.ends();
    assert_eq!(bench.next().unwrap().flags, ACK | FIN);
    assert_eq!(bench.take(1000, 5001, ACK | FIN, 8000, &[]), Verdict::Keep);
    assert_eq!(bench.conn.state_name(), "closing");
    assert_eq!(bench.next().unwrap().ack, 1001);
    assert_eq!(bench.take(1001, 5002, ACK, 8000, &[]), Verdict::Wait);
}

#[test]
fn a_fin_that_was_lost_is_sent_again_behind_the_data() {
    let mut bench = Bench::open(8000);
    bench.comes(&[1; 1500]);
    bench.ends();
    let sent = bench.all();
    assert_eq!((sent.len(), sent[1].flags), (2, ACK | FIN));
    assert_eq!(bench.timer(), Verdict::Keep);
    let again = bench.next().unwrap();
    assert_eq!((again.seq, again.payload), (5001, 1000));
    assert_eq!(bench.take(1000, 6001, ACK, 8000, &[]), Verdict::Keep);
    let rest = bench.all();
    assert_eq!((rest[0].seq, rest[0].payload, rest[1].flags, rest[1].seq), (6001, 500, ACK | FIN, 6501));
    assert_eq!(bench.take(1000, 6502, ACK, 8000, &[]), Verdict::Keep);
    assert_eq!((bench.conn.state_name(), bench.stream.discarded), ("close-wait", 1000));
    assert!(bench.all().is_empty());
    assert_eq!(bench.stream.discarded, 1500);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_answered_and_counts_nothing_rfc5961_5() {
    let mut bench = Bench::open(8000);
    bench.comes(&[1; 500]);
    bench.all();
    assert_eq!(bench.take(1000, 9000, ACK, 8000, b"data"), Verdict::Keep);
    assert_eq!((bench.next().unwrap().ack, bench.stream.outgoing.len()), (1000, 0));
    assert_eq!(bench.take(1000, 5501, ACK, 8000, b"data"), Verdict::Keep);
    assert_eq!(bench.next().unwrap().ack, 1004);
}

#[test]
fn a_connection_that_the_host_cannot_make_in_time_is_unreachable() {
    let syn = Segment { seq: 999, flags: SYN, window: 1000, ..Segment::default() };
    let mut conn = Conn::from_guest(0, &syn, 5000, 1460, false, TIMES);
    assert_eq!(conn.deadline(), TIMES.transitory);
    let verdict = conn.timer(TIMES.transitory, &mut Tally::default());
    assert_eq!(verdict, Verdict::End(End::Failed(libc::ETIMEDOUT)));
    let ready = Ready { error: true, writable: true, hung_up: true, ..Ready::default() };
    let mut conn = Conn::from_guest(0, &syn, 5000, 1460, false, TIMES);
    let refused = || Some(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    assert_eq!(conn.ready(1, ready, refused), Verdict::End(End::Failed(libc::ECONNREFUSED)));
}

#[test]
fn options_are_read_and_nonsense_among_them_is_stepped_over() {
    let mut header = vec![0; 20];
    header[13] = SYN;
    let parse = |options: &[u8]| {
        let mut header = header.clone();
        header[12] = (5 + options.len() as u8 / 4) << 4;
        header.extend_from_slice(options);
        Segment::parse(&header).map(|(segment, len)| (segment.mss, segment.shift, len))
    };
    assert_eq!(parse(&[2, 4, 5, 0xb4, 1, 3, 3, 7]), Some((Some(1460), Some(7), 28)));
    assert_eq!(parse(&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 1, 0]), Some((Some(256), None, 36)));
    assert_eq!(parse(&[77, 0, 2, 4, 5, 0xb4, 0, 0]), Some((Some(1460), None, 28)));
    assert_eq!(parse(&[2, 4, 5, 0xb4, 99, 200, 3, 3]), Some((Some(1460), None, 28)));
    assert_eq!(parse(&[0, 2, 4, 5]), Some((None, None, 24)));
    assert_eq!(Segment::parse(&header[..19]), None);
    header[12] = 0xf0;
    assert_eq!(Segment::parse(&header), None, "longer than what is there");
    header[12] = 0x40;
    assert_eq!(Segment::parse(&header), None, "shorter than a header");
}

/// Random segments, times and events: the machine may not panic, acknowledge what the stream did not take, send
/// beyond the guest's window, or discard what was not acknowledged (the stream asserts that).
#[test]
fn no_history_makes_it_lie() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..400 {
        let mut bench = Bench::open(2000);
        let mut highest = 5001u32;
        for _ in 0..150 {
            let verdict = match draw(8) {
                0 => {
                    bench.stream.room = draw(8000) as usize + bench.stream.outgoing.len();
                    let ready = Ready { writable: true, readable: draw(2) == 0, ..Ready::default() };
                    bench.conn.ready(bench.now, ready, || None)
                }
                1 => {
                    bench.comes(&vec![7; draw(5000) as usize]);
                    Verdict::Keep
                }
                2 if draw(8) == 0 => {
                    bench.ends();
                    Verdict::Keep
                }
                3 => {
                    bench.now += draw(300_000_000);
                    if bench.now >= bench.conn.deadline() {
                        bench.conn.timer(bench.now, &mut bench.tally)
                    } else {
                        Verdict::Keep
                    }
                }
                _ => {
                    let seq = bench.conn.rcv_nxt.wrapping_add(draw(300) as u32).wrapping_sub(100);
                    let ack = match draw(4) {
                        0 => draw(1 << 32) as u32,
                        _ => highest.wrapping_sub(draw(600) as u32),
                    };
                    let flags = if draw(40) == 0 { draw(64) as u8 } else { ACK };
                    let payload = vec![1; draw(400) as usize];
                    bench.take(seq, ack, flags, draw(3000) as u16, &payload)
                }
            };
            if verdict != Verdict::Keep {
                break;
            }
            while let Ok(Some(emit)) =
                bench.conn.next(bench.now, Some(&mut bench.stream), &mut bench.buffer, &mut bench.tally)
            {
                let taken = bench.stream.outgoing.len() as u32 + u32::from(bench.conn.fin_in);
                if bench.conn.state == State::Open {
                    assert_eq!(emit.ack, 1000 + taken, "round {round}");
                    let limit = bench.conn.snd_una.wrapping_add(bench.conn.snd_wnd);
                    let end = emit.seq.wrapping_add(emit.payload as u32);
                    assert!(emit.payload == 0 || at_most(end, limit), "round {round}: beyond the window");
                    if before(highest, end) {
                        highest = end;
                    }
                }
            }
        }
    }
}

#[test]
fn a_kernel_without_a_peek_offset_serves_too() {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"abcdefgh").unwrap();
    drop(far);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut socket = Socket::without_offset(near.into());
    let mut buffer = [0; 16];
    assert_eq!((socket.peek(0, &mut buffer).unwrap(), &buffer[..3]), (8, &b"abc"[..]));
    assert_eq!((socket.peek(5, &mut buffer).unwrap(), &buffer[..3]), (3, &b"fgh"[..]));
    socket.discard(5).unwrap();
    assert_eq!((socket.peek(1, &mut buffer).unwrap(), &buffer[..2]), (2, &b"gh"[..]));
    // The end cannot be told from silence here: the machine goes by the event.
    assert_eq!(socket.peek(3, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    socket.discard(3).unwrap();
    assert_eq!(socket.peek(0, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
