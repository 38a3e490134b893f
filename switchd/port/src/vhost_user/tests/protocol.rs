//! What is beyond the handshake: the dirty log, the inflight file, status, announcements, MTU, resets.

use super::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use vhost::VhostUserDirtyLogRegion;
use vhost::vhost_user::message::VhostUserInflight;

const PAGE: u64 = 4096;

/// A message that the crate's frontend does not know, with an answer asked for: what the answer carries.
fn say(guest: &mut Guest, request: u32, body: Option<u64>) -> u64 {
    let stream = guest.raw.as_mut().expect("it is open");
    let len = if body.is_some() { 8u32 } else { 0 };
    let mut bytes: Vec<u8> = [request, 1 | 8, len].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(body.map(u64::to_le_bytes).into_iter().flatten());
    stream.write_all(&bytes).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], request.to_le_bytes());
    assert_eq!(answer[4..12], [5, 0, 0, 0, 8, 0, 0, 0], "an answer of eight bytes");
    u64::from_le_bytes(*answer.last_chunk().unwrap())
}

fn ring(guest: &Guest, index: usize, log: Option<u64>) {
    let at = USER + RING * index as u64;
    let config = VringConfigData {
        queue_max_size: SIZE,
        queue_size: SIZE,
        flags: u32::from(log.is_some()),
        desc_table_addr: at,
        used_ring_addr: at + USED,
        avail_ring_addr: at + AVAILABLE,
        log_addr: log,
    };
    guest.frontend.set_vring_addr(index, &config).unwrap();
}

fn memfd(len: u64) -> OwnedFd {
    let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    file
}

#[test]
fn while_a_guest_migrates_each_page_that_is_written_to_is_noted() {
    let mut guest = Guest::new(ALL);
    let len = (GUEST + MEMORY) / PAGE / 8;
    let file = memfd(len);
    let log = Mapping::new(file.as_fd(), 0, len).unwrap();
    let pages = || -> Vec<u64> {
        let mut bytes = vec![0; len as usize];
        assert!(log.read(0, &mut bytes));
        let bits = |(at, byte): (usize, &u8)| {
            let byte = *byte;
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u64 * 8 + bit)
        };
        bytes.iter().enumerate().flat_map(bits).collect()
    };
    let region =
        |mmap_size| VhostUserDirtyLogRegion { mmap_size, mmap_offset: 0, mmap_handle: file.as_raw_fd() };
    for index in 0..8u16 {
        guest.describe(0, index, GUEST + BUFFERS + u64::from(index) * 3 * PAGE, 100, WRITE, 0);
        guest.offer(0, index);
    }
    let deliver = |guest: &mut Guest, len: usize| {
        guest.arena.begin();
        let mut frame = Frame::from_bytes(&bytes(len)).unwrap();
        assert_eq!(guest.port.send(&mut frame, &guest.arena), Sent::Queued);
        guest.port.flush(&guest.arena).accepted
    };
    assert_eq!(deliver(&mut guest, 60), 1);
    assert_eq!(pages(), [0; 0], "nobody has asked");
    // A log that does not cover the memory is waited out.
    guest.frontend.set_log_base(0, Some(region(len - 1))).unwrap();
    guest.frontend.set_features(ALL | feature::LOG_ALL).unwrap();
    guest.receive();
    assert!(!guest.port.carrier());
    guest.frontend.set_log_base(0, Some(region(len))).unwrap();
    guest.until_up();
    assert_eq!(deliver(&mut guest, 150), 1);
    // The second chain and the third; the ring itself was not asked for.
    let first = (GUEST + BUFFERS) / PAGE;
    assert_eq!(pages(), [first + 3, first + 6]);
    // The ring too, at the address that stands for it.
    ring(&guest, 0, Some(5 * PAGE + 8));
    guest.until_up();
    assert_eq!(deliver(&mut guest, 60), 1);
    assert_eq!(pages(), [5, first + 3, first + 6, first + 9]);
    // No longer.
    guest.frontend.set_features(ALL).unwrap();
    guest.until_up();
    assert_eq!(deliver(&mut guest, 60), 1);
    assert_eq!(pages().len(), 4);
    assert_eq!(guest.used(0), 5, "none was lost, and none twice");
    // A log that shrinks is a file of the guest's like any other.
    guest.frontend.set_features(ALL | feature::LOG_ALL).unwrap();
    guest.until_up();
    ftruncate(&file, 0).unwrap();
    deliver(&mut guest, 60);
    assert!(guest.lost().contains("has shrunk"));
}

#[test]
fn a_used_ring_beyond_the_log_is_a_broken_rule() {
    let guest = Guest::new(ALL);
    let len = (GUEST + MEMORY) / PAGE / 8;
    let file = memfd(len);
    let region = VhostUserDirtyLogRegion { mmap_size: len, mmap_offset: 0, mmap_handle: file.as_raw_fd() };
    guest.frontend.set_log_base(0, Some(region)).unwrap();
    ring(&guest, 0, Some(GUEST + MEMORY - 8));
    assert!(guest.frontend.set_features(ALL | feature::LOG_ALL).is_err());
}

#[test]
fn an_inflight_file_is_made_checked_and_read() {
    let mut guest = Guest::new(ALL);
    let wanted = VhostUserInflight::new(0, 0, 2, SIZE);
    let (told, file) = guest.frontend.get_inflight_fd(&wanted).unwrap();
    assert_eq!({ told.mmap_size }, 2 * (16 + 16 * 64u64).next_multiple_of(64));
    assert_eq!(({ told.num_queues }, { told.queue_size }), (2, SIZE));
    // Another back-end had two chains under way, taken in this order.
    let view = Mapping::new(file.as_fd(), 0, told.mmap_size).unwrap();
    let queue = told.mmap_size as usize / 2;
    for (counter, head) in [(1u8, 9usize), (2, 4)] {
        assert!(view.write(queue + 16 + 16 * head, &[1, 0, 0, 0, 0, 0, 0, 0, counter]));
    }
    for ring in 0..2 {
        assert_eq!(guest.frontend.get_vring_base(ring).unwrap(), 0);
    }
    guest.offer(1, 9);
    guest.offer(1, 4);
    guest.transmit([0; 12], &bytes(60));
    guest.frontend.set_inflight_fd(&told, file.as_raw_fd()).unwrap();
    guest.start(0, 0);
    guest.start(1, 0);
    assert_eq!([guest.used_entry(1, 0), guest.used_entry(1, 1)], [(9, 0), (4, 0)]);
    let begun = Instant::now();
    while guest.used(1) < 3 {
        guest.receive();
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(guest.used_entry(1, 2), (0, 0), "and then what is new");
    // Sizes that do not fit.
    for form in [(2, 128), (1, SIZE)] {
        let guest = Guest::new(ALL);
        let mut frontend = guest.frontend.clone();
        let wanted = VhostUserInflight::new(0, 0, form.0, form.1);
        let (told, file) = frontend.get_inflight_fd(&wanted).unwrap();
        guest.frontend.get_vring_base(1).unwrap();
        frontend.set_inflight_fd(&told, file.as_raw_fd()).unwrap();
        assert!(guest.frontend.set_vring_kick(1, &guest.kicks[1]).is_err(), "{form:?}");
    }
    let mut guest = Guest::new(ALL);
    assert!(guest.frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 17, 64)).is_err());
}

#[test]
fn the_status_is_kept_until_a_reset_and_stops_nothing() {
    let mut guest = Guest::new(ALL);
    assert_eq!((say(&mut guest, 39, Some(15)), say(&mut guest, 40, None)), (0, 15));
    assert_eq!((say(&mut guest, 39, Some(0)), say(&mut guest, 40, None)), (0, 0));
    guest.receive();
    assert!(guest.port.carrier());
    assert_eq!(say(&mut guest, 39, Some(256)), 1);
    assert!(guest.lost().contains("status 0x100"));
}

#[test]
fn an_mtu_beyond_the_network_s_is_refused_and_costs_nothing_else() {
    let mut guest = Guest::new(ALL);
    for (mtu, refused) in [(1500, 0), (68, 0), (67, 1), (1501, 1), (65536, 1), (u64::MAX, 1)] {
        assert_eq!(say(&mut guest, 20, Some(mtu)), refused, "{mtu}");
    }
    guest.receive();
    assert!(guest.port.carrier());
}

#[test]
fn an_announcement_comes_as_a_frame_of_the_guest_s() {
    let mut guest = Guest::new(ALL);
    let mac = [2, 0, 0, 0, 0, 7];
    let body = u64::from_le_bytes([2, 0, 0, 0, 0, 7, 0xff, 0xff]);
    for _ in 0..20 {
        assert_eq!(say(&mut guest, 19, Some(body)), 0);
    }
    let received = guest.receive();
    assert_eq!((received.frames, received.more), (8, true), "no more than are of use");
    let frame = whole(&guest.frames[0], &guest.arena);
    assert_eq!((frame.len(), &frame[..6], &frame[6..12]), (60, &[0xff; 6][..], &mac[..]));
    assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    assert_eq!((&frame[22..28], &frame[32..38]), (&mac[..], &mac[..]));
    guest.transmit([0; 12], &bytes(60));
    assert_eq!(guest.receive().frames, 1);
    assert_eq!(say(&mut guest, 19, Some(1)), 1, "a group's address");
    assert!(guest.lost().contains("an announcement for"));
}

#[test]
fn a_message_whose_rest_comes_later_is_waited_for() {
    let mut guest = Guest::new(ALL);
    let stream = guest.raw.as_mut().unwrap();
    for part in [&[20, 0, 0, 0, 9, 0][..], &[0, 0, 8, 0, 0, 0], &[220, 5, 0], &[0, 0, 0, 0, 0]] {
        stream.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12..], [0; 8]);
}

#[test]
fn what_was_not_agreed_on_is_a_broken_rule() {
    for (request, body) in [(7, None), (19, Some(2)), (20, Some(1500)), (39, Some(1)), (40, None)] {
        let mut guest = Guest::new(ALL);
        let protocol = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::MQ;
        guest.frontend.set_protocol_features(protocol).unwrap();
        let stream = guest.raw.as_mut().unwrap();
        let words = [request, 1, body.map_or(0, |_| 8u32)];
        let mut raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        raw.extend(body.map(u64::to_le_bytes).into_iter().flatten());
        stream.write_all(&raw).unwrap();
        assert!(guest.lost().contains("not negotiated"), "request {request}");
    }
}

#[test]
fn a_guest_that_is_cut_off_is_told_by_its_error_descriptor() {
    let mut guest = Guest::new(ALL);
    let error = EventFd::new(EFD_NONBLOCK).unwrap();
    guest.frontend.set_vring_err(1, &error).unwrap();
    assert!(error.read().is_err());
    guest.offer(1, SIZE);
    guest.lost();
    let begun = Instant::now();
    while error.read().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody was told");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reset_stops_the_rings_and_keeps_the_memory() {
    for owner in [false, true] {
        let mut guest = Guest::new(ALL);
        guest.transmit([0; 12], &bytes(60));
        assert_eq!(guest.receive().frames, 1);
        if owner {
            guest.frontend.reset_owner().unwrap();
        } else {
            let offered = guest.frontend.get_protocol_features().unwrap();
            guest.frontend.set_protocol_features(offered).unwrap();
            guest.frontend.reset_device().unwrap();
        }
        guest.receive();
        assert!(!guest.port.carrier());
        if !owner {
            guest.frontend.set_features(ALL).unwrap();
        }
        // The guest begins anew, in the memory that it had.
        for ring in 0..2 {
            guest.set_word(ring * RING + AVAILABLE + 2, 0);
            guest.set_word(ring * RING + USED + 2, 0);
        }
        guest.available = [0; 2];
        guest.start(0, 0);
        guest.start(1, 0);
        guest.until_up();
        guest.transmit([0; 12], &bytes(61));
        let received = guest.receive();
        assert_eq!((received.frames, guest.frames[0].len()), (1, 61));
    }
}

#[test]
fn a_packed_ring_goes_on_where_it_was_after_a_change_of_features() {
    let packed = ALL | feature::RING_PACKED;
    let mut guest = Guest::new(packed);
    let offer = |guest: &Guest, index: u64, len: usize, flags: u16| {
        let address = guest.put(0, &[&[0; 12][..], &bytes(len)].concat());
        guest.describe_at(RING + 16 * index, address, 12 + len as u32, 0, 0);
        guest.set_word(RING + 16 * index + 12, index as u16);
        guest.set_word(RING + 16 * index + 14, flags);
    };
    offer(&guest, 0, 60, 0x80);
    assert_eq!((guest.receive().frames, guest.frames[0].len()), (1, 60));
    assert_eq!(guest.word(RING + 14), 0x8080, "used");
    guest.frontend.set_features(packed | feature::EVENT_IDX).unwrap();
    guest.until_up();
    offer(&guest, 1, 61, 0x80);
    assert_eq!((guest.receive().frames, guest.frames[0].len()), (1, 61));
    assert_eq!(guest.frontend.get_vring_base(1).unwrap(), 0x8002_8002);
}

#[test]
fn regions_that_are_told_of_once_for_each_pair_of_queues_are_one() {
    let mut guest = Guest::new(ALL);
    let mmap_handle = guest.file.as_raw_fd();
    let region = |guest_phys_addr, userspace_addr| VhostUserMemoryRegionInfo {
        guest_phys_addr,
        memory_size: MEMORY,
        userspace_addr,
        mmap_offset: 0,
        mmap_handle,
    };
    let (first, second) = (region(GUEST, USER), region(GUEST + MEMORY, USER + MEMORY));
    for region in [&first, &second, &first, &second] {
        guest.frontend.add_mem_region(region).unwrap();
    }
    guest.until_up();
    guest.transmit([0; 12], &bytes(60));
    assert_eq!(guest.receive().frames, 1);
    for _ in 0..2 {
        guest.frontend.remove_mem_region(&second).unwrap();
    }
    guest.until_up();
    guest.transmit([0; 12], &bytes(61));
    assert_eq!(guest.receive().frames, 1);
    // One that overlaps is not the same.
    assert!(guest.frontend.add_mem_region(&region(GUEST + PAGE, USER + MEMORY)).is_err());
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    use std::os::unix::fs::MetadataExt;
    let mut guest = Guest::new(ALL);
    let file = memfd(4096);
    // Copies of this file: other tests of the process open and close others.
    let which = |file: std::fs::Metadata| (file.dev(), file.ino());
    let ours = which(std::fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap());
    let open = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|fd| std::fs::metadata(fd.path()).is_ok_and(|fd| which(fd) == ours)).count()
    };
    let with = |stream: &UnixStream, words: &[u32], count: usize| {
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let fds = vec![file.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(stream, &[IoSlice::new(&raw)], &mut control, SendFlags::empty()).unwrap();
    };
    let stream = guest.raw.take().unwrap();
    // One that it is no use to have, and one with a message that has none.
    with(&stream, &[7, 1, 0], 1);
    with(&stream, &[20, 1, 8, 1500, 0], 8);
    guest.raw = Some(stream);
    assert_eq!(say(&mut guest, 40, None), 0);
    assert_eq!(open(), 1);
    // Too many for a ring.
    with(guest.raw.as_ref().unwrap(), &[12, 1, 8, 1, 0], 3);
    guest.lost();
    let begun = Instant::now();
    while open() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{} copies are open", open());
        std::thread::sleep(Duration::from_millis(5));
    }
}
