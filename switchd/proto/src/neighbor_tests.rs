//! Neighbours, by the clauses.

use super::*;
use std::net::Ipv4Addr;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 10]);
const REPLY: Heard = Heard::Answered { solicited: true, overrides: true };

fn table() -> Neighbors<u32> {
    Neighbors::new(Limits { entries: 4, incomplete: 2, packets: 2, bytes: 1000 })
}

fn outputs(table: &mut Neighbors<u32>) -> Vec<String> {
    std::iter::from_fn(|| table.poll_output())
        .map(|output| match output {
            Output::Solicit { to, .. } => format!("solicit {}", if to.is_some() { "one" } else { "all" }),
            Output::Resolved { packets, .. } => format!("resolved {packets:?}"),
            Output::Failed { packets, .. } => format!("failed {packets:?}"),
        })
        .collect()
}

fn state(table: &Neighbors<u32>) -> Option<State> {
    table.rows().find(|row| row.address == A).map(|row| row.state)
}

#[test]
fn rfc4861_7_2_2_a_packet_waits_for_the_answer_and_leaves_with_it() {
    let mut table = table();
    assert_eq!(table.find(0, A), Find::Unknown);
    assert_eq!(table.hold(0, A, 1, 100, 1), Held::Waits);
    assert_eq!(table.hold(1, A, 2, 100, 1), Held::Waits);
    assert_eq!(outputs(&mut table), ["solicit all"]);
    table.heard(2, A, Some(MAC), REPLY);
    assert_eq!(outputs(&mut table), ["resolved [1, 2]"]);
    assert_eq!(table.find(3, A), Find::Known(MAC));
    assert_eq!(state(&table), Some(State::Reachable));
    assert_eq!((table.shares.bytes, table.shares.incomplete, table.shares.of.len()), (0, 0, 0));
}

#[test]
fn rfc4861_7_2_2_a_full_queue_loses_the_oldest_packet() {
    let mut table = table();
    table.hold(0, A, 1, 100, 1);
    table.hold(0, A, 2, 100, 1);
    assert_eq!(table.hold(0, A, 3, 100, 1), Held::Replaced(1));
    assert_eq!(table.hold(0, A, 4, 900, 1), Held::Refused(4), "more bytes than may wait");
    table.heard(1, A, Some(MAC), REPLY);
    assert_eq!(outputs(&mut table).last().unwrap(), "resolved [2, 3]");
}

#[test]
fn rfc4861_7_2_2_three_questions_a_second_apart_then_failure_and_a_pause() {
    let mut table = table();
    table.hold(0, A, 7, 10, 1);
    let mut seen = Vec::new();
    for second in 0..=3 {
        table.handle_timeout(second * SECOND);
        seen.extend(outputs(&mut table));
    }
    assert_eq!(seen, ["solicit all", "solicit all", "solicit all", "failed [7]"]);
    assert_eq!(table.find(3 * SECOND + 1, A), Find::Unreachable);
    assert_eq!(table.hold(3 * SECOND + 1, A, 8, 10, 1), Held::Refused(8));
    table.handle_timeout(6 * SECOND);
    assert_eq!(table.find(6 * SECOND, A), Find::Unknown, "may be asked again");
    assert_eq!(table.poll_timeout(), None, "nothing to wake for");
}

#[test]
fn rfc4861_7_3_2_a_stale_neighbour_is_used_and_then_verified() {
    let mut table = table();
    table.hold(0, A, 1, 10, 1);
    table.heard(0, A, Some(MAC), REPLY);
    outputs(&mut table);
    let late = REACHABLE + 1;
    table.handle_timeout(late);
    assert_eq!(table.poll_timeout(), None, "an idle neighbour wakes nobody");
    assert_eq!(table.find(late, A), Find::Known(MAC));
    assert_eq!(state(&table), Some(State::Delay));
    table.handle_timeout(late + DELAY);
    assert_eq!(outputs(&mut table), ["solicit one"]);
    table.heard(late + DELAY + 1, A, Some(MAC), REPLY);
    assert_eq!(state(&table), Some(State::Reachable));
}

#[test]
fn rfc4861_7_3_3_a_probe_without_answer_ends_the_entry() {
    let mut table = table();
    table.heard(0, A, Some(MAC), Heard::Asked);
    table.find(0, A);
    let mut now = 0;
    while state(&table).is_some() {
        now = table.poll_timeout().expect("a timer runs");
        table.handle_timeout(now);
    }
    assert_eq!(outputs(&mut table), ["solicit one"; 3]);
    assert_eq!(now, DELAY + 3 * SECOND);
}

#[test]
fn rfc4861_7_3_3_a_neighbour_in_use_that_changed_its_mac_unseen_is_found_again_within_ten_seconds() {
    let mut table = table();
    table.hold(0, A, 1, 10, 1);
    table.heard(0, A, Some(MAC), REPLY);
    outputs(&mut table);
    // From now on only the new MAC's owner answers, and nobody announces it.
    let (mut now, mut found) = (0, Find::Known(MAC));
    while found != Find::Known(OTHER) {
        now += SECOND / 10;
        assert!(now <= 10 * SECOND, "{:?}", state(&table));
        table.handle_timeout(now);
        found = table.find(now, A);
        if found == Find::Unknown {
            table.hold(now, A, 2, 10, 1);
        }
        while let Some(output) = table.poll_output() {
            if let Output::Solicit { to, .. } = output
                && to != Some(MAC)
            {
                table.heard(now, A, Some(OTHER), REPLY);
            }
        }
    }
}

#[test]
fn rfc4861_7_2_3_who_asks_is_known_but_not_confirmed() {
    let mut table = table();
    table.heard(0, A, Some(MAC), Heard::Asked);
    assert_eq!(state(&table), Some(State::Stale));
    assert_eq!(table.find(0, A), Find::Known(MAC));
}

#[test]
fn rfc4861_7_2_5_advertisements() {
    let mut table = table();
    table.heard(0, A, Some(MAC), REPLY);
    assert_eq!(state(&table), None, "nobody asked: no entry");
    table.hold(0, A, 1, 10, 1);
    table.heard(0, A, None, REPLY);
    assert_eq!(state(&table), Some(State::Incomplete), "without an address it says nothing");
    table.heard(0, A, Some(MAC), Heard::Answered { solicited: false, overrides: false });
    assert_eq!(state(&table), Some(State::Stale));
    table.heard(1, A, Some(MAC), REPLY);
    assert_eq!(state(&table), Some(State::Reachable));
    table.heard(2, A, Some(OTHER), Heard::Answered { solicited: true, overrides: false });
    assert_eq!((state(&table), table.find(3, A)), (Some(State::Stale), Find::Known(MAC)));
    table.heard(4, A, Some(OTHER), Heard::Answered { solicited: false, overrides: true });
    assert_eq!((state(&table), table.find(5, A)), (Some(State::Stale), Find::Known(OTHER)));
}

#[test]
fn a_full_table_gives_up_what_was_used_longest_ago_and_nothing_that_is_awaited() {
    let mut table = table();
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 1, last));
    for last in 0..4 {
        table.heard(u64::from(last), address(last), Some(MAC), Heard::Asked);
    }
    table.find(10, address(0));
    assert_eq!(table.hold(11, A, 1, 10, 1), Held::Waits);
    assert_eq!((table.len(), table.counters().evicted), (4, 1));
    assert_eq!(table.find(12, address(1)), Find::Unknown, "the oldest went");
    assert_eq!(table.hold(13, address(1), 2, 10, 2), Held::Waits);
    assert_eq!(table.hold(14, address(9), 3, 10, 3), Held::Refused(3), "as many as may be resolved at once");
    assert_eq!(table.counters().overflowed, 1);
}

#[test]
fn a_sender_that_asks_for_every_address_leaves_room_for_the_others() {
    let mut table = Neighbors::new(Limits { entries: 4096, incomplete: 256, packets: 3, bytes: 1 << 20 });
    let address = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + number));
    let (greedy, other) = (1, 2);
    // It goes on and on, with small packets and with large ones.
    for second in 0..20 {
        let now = second * SECOND;
        table.handle_timeout(now);
        for number in 0..300 {
            let number = second as u32 % 2 * 300 + number;
            if table.find(now, address(number)) == Find::Unknown {
                table.hold(now, address(number), 0, 60_000, greedy);
            }
        }
        while table.poll_output().is_some() {}
        assert!(table.shares.incomplete <= 128 && table.shares.bytes < (1 << 19) + 60_000);
        // Somebody else's neighbour is found all the same, though it has never been asked for.
        let theirs = address(100_000 + second as u32);
        assert_eq!(table.hold(now, theirs, 7, 60_000, other), Held::Waits, "second {second}");
        table.heard(now, theirs, Some(MAC), REPLY);
        assert_eq!(outputs(&mut table), ["solicit all", "resolved [7]"]);
    }
    table.retain(|_| false);
    assert_eq!((table.shares.bytes, table.shares.incomplete, table.shares.of.len()), (0, 0, 0));
}
