//! Each machine alone: every state with every event.

use super::super::churn::{self, Churn};
use super::super::port::Port;
use super::super::selection::Selected;
use super::super::{CHURN_DETECTION_TIME, mux, periodic, receive, transmit};
use super::{OURS, SECOND, UP, config, in_step, port_config};
use receive::State as Rx;
use switchd_wire::slow::State as Bits;

fn port_in(state: Rx, up: bool) -> Port {
    let mut port = Port::new(port_config(OURS, 1), UP, &config(OURS));
    receive::step(&mut port, &config(OURS), 0, receive::Event::Begin);
    receive::step(&mut port, &config(OURS), 0, receive::Event::Lacpdu(&in_step(1)));
    match state {
        Rx::Current => {}
        Rx::Expired => receive::step(&mut port, &config(OURS), 3 * SECOND, receive::Event::Timer),
        Rx::Defaulted => {
            receive::step(&mut port, &config(OURS), 3 * SECOND, receive::Event::Timer);
            receive::step(&mut port, &config(OURS), 6 * SECOND, receive::Event::Timer);
        }
        Rx::PortDisabled | Rx::Initialize => {
            port.link.up = false;
            receive::step(&mut port, &config(OURS), 0, receive::Event::Link);
        }
    }
    if state == Rx::Initialize {
        port.receive = Rx::Initialize;
    }
    assert_eq!(port.receive, state);
    port.link.up = up;
    port
}

#[test]
fn receive_machine_6_4_12_every_state_with_every_event() {
    use Rx::{Current, Defaulted, Expired, Initialize, PortDisabled};
    // State; then after begin (link up), link up, link down, port moved, LACPDU, timer.
    let table = [
        (Initialize, [Expired, Expired, PortDisabled, Initialize, Initialize, Initialize]),
        (PortDisabled, [Expired, Expired, PortDisabled, PortDisabled, PortDisabled, PortDisabled]),
        (Expired, [Expired, Expired, PortDisabled, Expired, Current, Defaulted]),
        (Defaulted, [Expired, Defaulted, PortDisabled, Defaulted, Current, Defaulted]),
        (Current, [Expired, Current, PortDisabled, Current, Current, Expired]),
    ];
    let pdu = in_step(1);
    for (state, want) in table {
        for (index, want) in want.into_iter().enumerate() {
            let mut port = port_in(state, index != 2);
            let event = match index {
                0 => receive::Event::Begin,
                1 | 2 => receive::Event::Link,
                3 => receive::Event::Moved,
                4 => receive::Event::Lacpdu(&pdu),
                _ => receive::Event::Timer,
            };
            receive::step(&mut port, &config(OURS), 100 * SECOND, event);
            assert_eq!(port.receive, want, "{} with event {index}", state.name());
        }
    }
}

#[test]
fn expired_clears_synchronization_and_asks_for_the_short_timeout() {
    let port = port_in(Rx::Expired, true);
    assert!(port.expired() && !port.defaulted());
    assert!(!port.partner.state.has(Bits::SYNCHRONIZATION));
    assert!(port.partner.state.has(Bits::TIMEOUT));
    assert_eq!(port.current_while, Some(6 * SECOND));
}

#[test]
fn defaulted_forgets_the_partner_and_its_selection() {
    let mut port = port_in(Rx::Expired, true);
    port.selected = Selected::Selected;
    receive::step(&mut port, &config(OURS), 6 * SECOND, receive::Event::Timer);
    assert_eq!((port.receive, port.selected), (Rx::Defaulted, Selected::Unselected));
    assert!(port.defaulted() && !port.expired());
    assert!(port.partner.system.is_zero());
}

#[test]
fn port_moved_forgets_the_partner_of_a_disabled_port() {
    let mut port = port_in(Rx::PortDisabled, false);
    assert!(!port.defaulted());
    receive::step(&mut port, &config(OURS), 0, receive::Event::Moved);
    assert!(port.defaulted());
}

#[test]
fn record_pdu_synchronization_needs_match_sync_and_an_active_end() {
    let sync_after = |change: &dyn Fn(&mut switchd_wire::slow::Lacpdu), active: bool| {
        let mut port = port_in(Rx::Current, true);
        port.actor.state.set(Bits::ACTIVITY, active);
        let mut pdu = in_step(1);
        change(&mut pdu);
        receive::step(&mut port, &config(OURS), SECOND, receive::Event::Lacpdu(&pdu));
        port.partner.state.has(Bits::SYNCHRONIZATION)
    };
    assert!(sync_after(&|_| {}, true));
    assert!(!sync_after(&|pdu| pdu.actor.state.set(Bits::SYNCHRONIZATION, false), true));
    // He does not hear us any more.
    assert!(!sync_after(&|pdu| pdu.actor.state.set(Bits::EXPIRED, true), true));
    // The partner sees us otherwise than we are.
    assert!(!sync_after(&|pdu| pdu.partner.key = 6, true));
    assert!(!sync_after(&|pdu| pdu.partner.port = 9, true));
    assert!(!sync_after(&|pdu| pdu.partner.state.set(Bits::AGGREGATION, false), true));
    // An individual partner need not have taken us up.
    assert!(sync_after(
        &|pdu| {
            pdu.actor.state.set(Bits::AGGREGATION, false);
            pdu.partner.key = 6;
        },
        true
    ));
    // Passive partner: it keeps speaking as long as it knows that we are active.
    assert!(sync_after(&|pdu| pdu.actor.state.set(Bits::ACTIVITY, false), true));
    assert!(!sync_after(&|pdu| pdu.actor.state.set(Bits::ACTIVITY, false), false));
}

#[test]
fn update_ntt_answers_a_partner_that_sees_us_wrongly() {
    let ntt_after = |change: &dyn Fn(&mut switchd_wire::slow::Lacpdu)| {
        let mut port = port_in(Rx::Current, true);
        port.actor.state = Bits(0x3f);
        port.ntt = false;
        let mut pdu = in_step(1);
        change(&mut pdu);
        receive::step(&mut port, &config(OURS), SECOND, receive::Event::Lacpdu(&pdu));
        port.ntt
    };
    assert!(!ntt_after(&|_| {}));
    assert!(!ntt_after(&|pdu| pdu.partner.state.set(Bits::DISTRIBUTING, false)));
    assert!(ntt_after(&|pdu| pdu.partner.key = 1));
    assert!(ntt_after(&|pdu| pdu.partner.system_priority = 1));
    for bit in [Bits::ACTIVITY, Bits::TIMEOUT, Bits::SYNCHRONIZATION, Bits::AGGREGATION] {
        assert!(ntt_after(&|pdu| pdu.partner.state.set(bit, false)), "bit {bit:#x}");
    }
}

#[test]
fn a_partner_that_becomes_another_one_is_unselected() {
    let changes: [&dyn Fn(&mut switchd_wire::slow::Lacpdu); 6] = [
        &|pdu| pdu.actor.key = 8,
        &|pdu| pdu.actor.system.0[5] = 0xcc,
        &|pdu| pdu.actor.port = 77,
        &|pdu| pdu.actor.port_priority = 77,
        &|pdu| pdu.actor.system_priority = 77,
        &|pdu| pdu.actor.state.set(Bits::AGGREGATION, false),
    ];
    for change in changes {
        let mut port = port_in(Rx::Current, true);
        port.selected = Selected::Selected;
        let mut pdu = in_step(1);
        receive::step(&mut port, &config(OURS), SECOND, receive::Event::Lacpdu(&pdu));
        assert_eq!(port.selected, Selected::Selected);
        change(&mut pdu);
        receive::step(&mut port, &config(OURS), SECOND, receive::Event::Lacpdu(&pdu));
        assert_eq!(port.selected, Selected::Unselected);
    }
}

#[test]
fn mux_machine_6_4_15_every_state_with_every_condition() {
    use mux::State::{Attached, Collecting, Detached, Distributing, Waiting};
    let selections = [Selected::Unselected, Selected::Standby, Selected::Selected];
    for state in [Detached, Waiting, Attached, Collecting, Distributing] {
        for selected in selections {
            for bits in 0..8u8 {
                let (ready, sync, collecting) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                let out = selected != Selected::Selected;
                // Figure 6-21, one line a transition.
                let want = match state {
                    Detached if selected == Selected::Unselected => None,
                    Detached => Some(Waiting),
                    Waiting if selected == Selected::Unselected => Some(Detached),
                    Waiting if selected == Selected::Selected && ready => Some(Attached),
                    Waiting => None,
                    Attached if out => Some(Detached),
                    Attached if sync => Some(Collecting),
                    Attached => None,
                    Collecting if out || !sync => Some(Attached),
                    Collecting if collecting => Some(Distributing),
                    Collecting => None,
                    Distributing if out || !sync || !collecting => Some(Collecting),
                    Distributing => None,
                };
                let got = mux::next(state, selected, ready, sync, collecting);
                assert_eq!(got, want, "{} {selected:?} {bits:03b}", state.name());
            }
        }
    }
}

#[test]
fn mux_sets_the_bits_of_its_state() {
    let mut port = port_in(Rx::Current, true);
    port.selected = Selected::Selected;
    mux::run(&mut port, 0, false);
    assert_eq!((port.mux, port.wait_while), (mux::State::Waiting, Some(2 * SECOND)));
    assert_eq!(port.actor.state.0 & 0x38, 0);
    mux::run(&mut port, 2 * SECOND, true);
    assert_eq!((port.mux, port.actor.state.0 & 0x38), (mux::State::Distributing, 0x38));
    port.partner.state.set(Bits::COLLECTING, false);
    mux::run(&mut port, 2 * SECOND, true);
    assert_eq!((port.mux, port.actor.state.0 & 0x38), (mux::State::Collecting, 0x18));
    port.partner.state.set(Bits::SYNCHRONIZATION, false);
    mux::run(&mut port, 2 * SECOND, true);
    assert_eq!((port.mux, port.actor.state.0 & 0x38), (mux::State::Attached, 0x08));
    port.selected = Selected::Unselected;
    mux::run(&mut port, 2 * SECOND, true);
    assert_eq!((port.mux, port.actor.state.0 & 0x38), (mux::State::Detached, 0));
}

#[test]
fn periodic_machine_6_4_13_every_state_with_every_condition() {
    use periodic::State::{FastPeriodic, NoPeriodic, SlowPeriodic};
    for state in [NoPeriodic, FastPeriodic, SlowPeriodic] {
        for bits in 0..16u8 {
            let [enabled, active, short, expired] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let want = match state {
                NoPeriodic if enabled && active => Some((FastPeriodic, false)),
                NoPeriodic => None,
                _ if !enabled || !active => Some((NoPeriodic, false)),
                FastPeriodic if !short => Some((SlowPeriodic, false)),
                FastPeriodic => expired.then_some((FastPeriodic, true)),
                // PERIODIC_TX on the way to the other rate, too.
                SlowPeriodic if short => Some((FastPeriodic, true)),
                SlowPeriodic => expired.then_some((SlowPeriodic, true)),
            };
            assert_eq!(
                periodic::next(state, enabled, active, short, expired),
                want,
                "{} {bits:04b}",
                state.name()
            );
        }
    }
}

#[test]
fn churn_machines_6_4_17_every_state_with_every_condition() {
    use churn::State;
    let at = CHURN_DETECTION_TIME;
    for state in [State::NoChurn, State::Monitor, State::Churn] {
        for bits in 0..8u8 {
            let [enabled, sync, late] = [1, 2, 4].map(|bit| bits & bit != 0);
            let mut churn = Churn { state, timer: (state == State::Monitor).then_some(at) };
            let told = churn.run(if late { at } else { 0 }, enabled, sync);
            let settled = sync || !enabled;
            let want = match state {
                State::NoChurn if settled => (State::NoChurn, None),
                State::NoChurn => (State::Monitor, None),
                State::Monitor if settled => (State::NoChurn, None),
                State::Monitor if late => (State::Churn, Some(true)),
                State::Monitor => (State::Monitor, None),
                State::Churn if settled => (State::NoChurn, Some(false)),
                State::Churn => (State::Churn, None),
            };
            assert_eq!((churn.state, told), want, "{state:?} {bits:03b}");
        }
    }
}

fn sent_at(port: &mut Port, news: bool) -> Vec<u64> {
    let tenths = (0..30).filter(|tenth| {
        port.ntt = true;
        port.actor.key += u16::from(news);
        transmit::run(port, tenth * SECOND / 10).is_some()
    });
    tenths.collect()
}

#[test]
fn transmit_machine_6_4_16_sends_three_in_a_second_and_then_waits() {
    let mut port = port_in(Rx::Current, true);
    port.periodic = periodic::State::FastPeriodic;
    assert_eq!(sent_at(&mut port, true), [0, 1, 2, 10, 11, 12, 20, 21, 22]);
}

#[test]
fn a_lacpdu_that_says_nothing_new_waits_a_little() {
    let mut port = port_in(Rx::Current, true);
    port.periodic = periodic::State::FastPeriodic;
    assert_eq!(sent_at(&mut port, false), [0, 4, 8, 12, 16, 20, 24, 28]);
}

#[test]
fn no_periodic_clears_ntt() {
    let mut port = port_in(Rx::Current, true);
    port.periodic = periodic::State::NoPeriodic;
    port.ntt = true;
    assert!(transmit::run(&mut port, 100 * SECOND).is_none());
    assert!(!port.ntt);
}

#[test]
fn a_partner_that_does_not_know_us_is_told_again_for_three_seconds() {
    let mut port = port_in(Rx::Current, true);
    port.periodic = periodic::State::FastPeriodic;
    port.ntt = false;
    // He knows us: nothing is due.
    port.actor.state = Bits(0x3f);
    assert!(transmit::run(&mut port, 0).is_none());
    assert_eq!(port.insist_at(), None);
    // One bit that he has to know.
    port.actor.state.set(Bits::SYNCHRONIZATION, false);
    port.ntt = true;
    let tenths = |port: &mut Port, from: u64| -> Vec<u64> {
        (from..from + 60).filter(|tenth| transmit::run(port, tenth * SECOND / 10).is_some()).collect()
    };
    assert_eq!(tenths(&mut port, 0), [0, 5, 10, 15, 20, 25]);
    // Another change begins anew; his knowing it ends it.
    port.actor.state.set(Bits::SYNCHRONIZATION, true);
    port.actor.key = 77;
    port.ntt = true;
    assert!(transmit::run(&mut port, 100 * SECOND).is_some());
    assert_eq!(port.insist_at(), Some(100 * SECOND + SECOND / 2));
    let mut pdu = in_step(1);
    pdu.partner.key = 77;
    receive::step(&mut port, &config(OURS), 100 * SECOND, receive::Event::Lacpdu(&pdu));
    assert_eq!(tenths(&mut port, 1005), []);
}
