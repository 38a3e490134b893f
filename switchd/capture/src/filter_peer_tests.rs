//! The interpreter against libpcap's own: tcpdump compiles an expression, filters a file of odd frames with
//! it, and must keep exactly the frames that we match with the same program.

use super::*;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

const EXPRESSIONS: [&str; 48] = [
    "",
    "arp",
    "ip",
    "ip6",
    "tcp",
    "udp",
    "icmp or icmp6",
    "not ip and not arp",
    "host 10.0.0.1",
    "src net 10.0.0.0/8 and dst net 192.168.0.0/16",
    "ip6 host fe80::1",
    "ip6 net 2001:db8::/32",
    "port 53",
    "tcp port 80 or udp port 53",
    "tcp portrange 80-90",
    "tcp src port 80 and tcp dst port 90",
    "port 53 and not host 10.0.0.2",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[13] = 2",
    "tcp[((tcp[12] & 0xf0) >> 2):2] = 0x4142",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff != 0",
    "ip[8] < 64",
    "ip[2:2] > 576",
    "len > 300",
    "len <= 60",
    "greater 100 and less 200",
    "ether broadcast",
    "ether multicast",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:02 and ip",
    "ether proto 0x88cc",
    "ether[0] & 1 = 0 and ip[16] >= 224",
    "ether[12:4] = 0x81000014",
    "vlan",
    "vlan 20",
    "vlan 20 and tcp",
    "vlan and vlan 7",
    "vlan 20 and (udp port 53 or arp)",
    "stp",
    "llc",
    "ip proto 47",
    "ip6 proto 44",
    "ip6 protochain 17",
    "ip multicast or ip6 multicast",
    "ether[len - 1] = 0x42",
    "(ip[2:2] * 3 + ip[8] - ip[9]) % 7 = 3",
    "ip[2:2] / ip[20] > 2",
];

/// xorshift64*; enough for odd frames.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A frame that is nearly right: real headers, small sets of values, some bytes flipped, any length.
fn frame(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![];
    let macs: [[u8; 6]; 4] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6], [1, 0x80, 0xc2, 0, 0, 0]];
    bytes.extend(random.of(&macs));
    bytes.extend(random.of(&macs));
    for _ in 0..random.of(&[0, 0, 1, 1, 2]) {
        bytes.extend([0x81, 0, random.of(&[0, 0x20]), random.of(&[7, 20, 21])]);
    }
    let kind = random.below(6);
    match kind {
        0 => bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]),
        1 | 2 => {
            let words = random.of(&[5, 5, 6, 15]);
            let protocol = random.of(&[6, 17, 1, 47, 51]);
            bytes.extend([8, 0, 0x40 | words, 0]);
            bytes.extend((random.below(1500) as u16).to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(random.of(&[0u16, 0x4000, 0x2000, 0x0010]).to_be_bytes());
            bytes.extend([random.of(&[1, 63, 64]), protocol, 0, 0]);
            let hosts = [[10, 0, 0, 1], [10, 0, 0, 2], [192, 168, 1, 1], [224, 0, 0, 251]];
            bytes.extend(random.of(&hosts));
            bytes.extend(random.of(&hosts));
            bytes.extend(vec![1; usize::from(words - 5) * 4]);
            transport(&mut bytes, random);
        }
        3 | 4 => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 60]);
            let next = random.of(&[6, 17, 58, 44, 0]);
            bytes.extend([next, 64]);
            for _ in 0..2 {
                let mut host = [0; 16];
                host[..4].copy_from_slice(&random.of(&[
                    [0xfe, 0x80, 0, 0],
                    [0x20, 1, 0x0d, 0xb8],
                    [0xff, 2, 0, 0],
                ]));
                host[15] = random.of(&[1, 2]);
                bytes.extend(host);
            }
            if next == 44 || next == 0 {
                bytes.extend([random.of(&[17, 6]), 0, 0, 0, 0, 0, 0, 0]);
            }
            transport(&mut bytes, random);
        }
        _ => bytes.extend(random.of(&[[0x88, 0xcc, 2, 7], [0, 38, 0x42, 0x42], [0, 0, 0, 0]])),
    }
    let wanted = random.of(&[14, 20, 33, 60, 64, 120, 250]) + random.below(40);
    while bytes.len() < wanted {
        bytes.push(random.of(&[0, 0x41, 0x42]));
    }
    if random.below(3) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
    if random.below(3) == 0 && !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn transport(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..2 {
        bytes.extend(random.of(&[53u16, 80, 90, 4096]).to_be_bytes());
    }
    bytes.extend([0; 8]);
    bytes.extend([random.of(&[0x50, 0x60, 0xf0]), random.of(&[2, 0x10, 0x11, 0x18]), 1, 0, 0, 0, 0, 0]);
}

/// A classic pcap file whose timestamps are the frames' numbers.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = io::BufWriter::new(std::fs::File::create(path).unwrap());
    let words = |list: &[u32]| list.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    file.write_all(&words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1])).unwrap();
    for (number, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        file.write_all(&words(&[number as u32, 0, len, len])).unwrap();
        file.write_all(frame).unwrap();
    }
}

/// The numbers of the frames in a file.
fn read_numbers(path: &Path) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut numbers = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        numbers.push(word(at));
        at += 16 + word(at + 8);
    }
    numbers
}

#[test]
fn the_interpreter_keeps_what_libpcap_keeps() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        let _ = writeln!(io::stderr(), "NOT RUN: the_interpreter_keeps_what_libpcap_keeps: no tcpdump");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (all, kept) = (folder.path().join("all.pcap"), folder.path().join("kept.pcap"));
    let mut random = Random(0x5eed_0001);
    let frames: Vec<_> = (0..4000).map(|_| frame(&mut random)).collect();
    write_pcap(&all, &frames);
    let mut useful = 0;
    for expression in EXPRESSIONS {
        let tcpdump = |args: &[&str]| {
            // tcpdump gives up its rights otherwise, and with them the folder.
            let output =
                Command::new("tcpdump").args(["-Z", "root", "-r"]).arg(&all).args(args).output().unwrap();
            assert!(output.status.success(), "{expression}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        // A count, then a line of four numbers for each instruction.
        let listing = tcpdump(&["-ddd", expression]);
        let instruction = |line: &str| {
            let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            Instruction { code: numbers[0] as u16, jt: numbers[1] as u8, jf: numbers[2] as u8, k: numbers[3] }
        };
        let program = Program::new(listing.lines().skip(1).map(instruction).collect());
        if expression.contains("protochain") {
            assert!(matches!(program, Err(BadProgram::Jump(_))), "{program:?}");
            continue;
        }
        let program = program.unwrap();
        tcpdump(&["-w", kept.to_str().unwrap(), expression]);
        for head in [256, 40, 13] {
            let matched: Vec<usize> = (0..frames.len())
                .filter(|&number| {
                    let bytes = &frames[number];
                    let (frame, tails) = super::tests::split(bytes, head.min(bytes.len()), 1);
                    program.matches(&frame, &tails)
                })
                .collect();
            assert_eq!(matched, read_numbers(&kept), "{expression:?} with a head of {head}");
            useful += usize::from(!matched.is_empty() && matched.len() < frames.len());
        }
    }
    assert!(useful > 3 * 40, "only {useful} of the runs told frames apart");
}
