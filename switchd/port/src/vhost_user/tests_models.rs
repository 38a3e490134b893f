//! The words and fences of `notices`, taken by `loom` through every order of two processors: what was shown is
//! seen whole, and nobody sleeps while something waits for him. One side is the code of the ports; the other
//! is a driver as virtio 1.2 describes it (2.7.13, 2.8.21). A side that sleeps while nobody wakes it is a
//! deadlock, which loom reports; that it would is shown with the fence of either side left out.

use super::notices::{AT_POSITION, DISABLE, ENABLE, PackedWords, SplitWords, Wish, Words};
use loom::sync::Notify;
use loom::sync::atomic::{AtomicU16, fence};
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

/// A ring has room for all chains of a model.
const SIZE: u16 = 2;
/// Chains of a model, and how often the two sides are interrupted at most: one chain in all orders, two in
/// those that take no more than seconds.
const MODELS: [(u16, Option<usize>); 2] = [(1, None), (2, Some(PREEMPTIONS))];
const PREEMPTIONS: usize = 4;
/// The bits of a packed ring's first lap.
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 7 | 1 << 15;
const WRAP: u16 = 1 << 15;

/// Words at some places of a ring. Without `FENCED` the port's code has lost its fences.
struct Area<const FENCED: bool>(Vec<(usize, AtomicU16)>);

impl<const FENCED: bool> Area<FENCED> {
    fn new(places: &[usize]) -> Self {
        Area(places.iter().map(|&at| (at, AtomicU16::new(0))).collect())
    }

    fn word(&self, wanted: usize) -> &AtomicU16 {
        &self.0.iter().find(|(at, _)| *at == wanted).expect("a word of the model").1
    }
}

impl<const FENCED: bool> Words for Area<FENCED> {
    fn load(&self, at: usize, order: Ordering) -> u16 {
        self.word(at).load(order)
    }

    fn store(&self, at: usize, value: u16, order: Ordering) {
        self.word(at).store(value, order);
    }

    fn full_fence() {
        if FENCED {
            fence(SeqCst);
        }
    }
}

#[derive(Clone, Copy)]
struct Form {
    packed: bool,
    event_idx: bool,
    /// The driver has its fences.
    fenced: bool,
}

/// A ring of either form. The parts of a split one are `one` and `two`: available and used; of a packed one,
/// `ring`, `one` and `two`: the driver's and the device's area.
struct Ring<const FENCED: bool> {
    form: Form,
    ring: Area<FENCED>,
    one: Area<FENCED>,
    two: Area<FENCED>,
    /// What a chain's buffer holds.
    buffers: Vec<AtomicU16>,
}

impl<const FENCED: bool> Ring<FENCED> {
    fn new(form: Form) -> Self {
        let (ring, one, two): (&[usize], &[usize], &[usize]) =
            if form.packed { (&[14, 30], &[0, 2], &[0, 2]) } else { (&[], &[0, 2, 8], &[0, 2, 20]) };
        let buffers = (0..SIZE).map(|_| AtomicU16::new(0)).collect();
        Ring { form, ring: Area::new(ring), one: Area::new(one), two: Area::new(two), buffers }
    }

    fn split(&self) -> SplitWords<'_, Area<FENCED>> {
        SplitWords { available: &self.one, used: &self.two, size: SIZE, event_idx: self.form.event_idx }
    }

    fn packed(&self) -> PackedWords<'_, Area<FENCED>> {
        PackedWords { ring: &self.ring, driver: &self.one, device: &self.two, event_idx: self.form.event_idx }
    }

    fn driver_fence(&self) {
        if self.form.fenced {
            fence(SeqCst);
        }
    }

    fn fill(&self, round: u16) {
        self.buffers[usize::from(round)].store(round + 1, Relaxed);
    }

    fn check(&self, round: u16) {
        assert_eq!(self.buffers[usize::from(round)].load(Relaxed), round + 1, "a buffer is not seen whole");
    }

    /// The driver: a chain more is available. True: the device wants to hear of it.
    fn make_available(&self, round: u16) -> bool {
        self.fill(round);
        let Form { packed, event_idx, .. } = self.form;
        if packed {
            self.ring.store(16 * usize::from(round) + 14, AVAILABLE, Release);
        } else {
            self.one.store(2, round + 1, Release);
        }
        self.driver_fence();
        match (packed, event_idx) {
            (false, false) => self.two.load(0, Relaxed) == 0,
            (false, true) => self.two.load(4 + 8 * usize::from(SIZE), Relaxed) == round,
            (true, _) => match self.two.load(2, Acquire) {
                ENABLE => true,
                AT_POSITION => self.two.load(0, Relaxed) == round | WRAP,
                _ => false,
            },
        }
    }

    /// The driver asks for an interrupt. True: a chain was returned meanwhile.
    fn ask_for_interrupt(&self, round: u16) -> bool {
        match (self.form.packed, self.form.event_idx) {
            (false, false) => self.one.store(0, 0, Relaxed),
            (false, true) => self.one.store(4 + 2 * usize::from(SIZE), round, Relaxed),
            (true, false) => self.one.store(2, ENABLE, Relaxed),
            (true, true) => {
                self.one.store(0, round | WRAP, Relaxed);
                self.one.store(2, AT_POSITION, Release);
            }
        }
        self.driver_fence();
        self.is_used(round)
    }

    fn no_interrupts(&self) {
        match (self.form.packed, self.form.event_idx) {
            (false, false) => self.one.store(0, 1, Relaxed),
            (false, true) => {}
            (true, _) => self.one.store(2, DISABLE, Relaxed),
        }
    }

    fn is_used(&self, round: u16) -> bool {
        if self.form.packed {
            self.ring.load(16 * usize::from(round) + 14, Acquire) == USED
        } else {
            self.two.load(2, Acquire) > round
        }
    }

    /// The port: whether a chain waits, looking by itself, or asking for a notice first.
    fn waits(&self, round: u16, ask: bool) -> bool {
        match (self.form.packed, ask) {
            (false, false) => self.split().available() > round,
            (false, true) => self.split().ask(round) > round,
            (true, false) => self.packed().flags(round) == AVAILABLE,
            (true, true) => self.packed().ask(round, round | WRAP) == AVAILABLE,
        }
    }

    fn no_notices(&self, round: u16) {
        if self.form.packed {
            // The record: the position with its index inverted.
            self.packed().ask_no_more(round ^ 0x7fff | WRAP);
        } else {
            self.split().ask_no_more();
        }
    }

    /// The port returns a chain. True: the driver wants to hear of it.
    fn give_back(&self, round: u16) -> bool {
        self.fill(round);
        let wish = if self.form.packed {
            self.packed().show(round, USED, Some((round + 1) ^ 0x7fff | WRAP));
            self.packed().wish()
        } else {
            self.split().show(round + 1);
            self.split().wish()
        };
        match wish {
            Wish::Never => false,
            Wish::Always => true,
            Wish::At(event) => event == if self.form.packed { round | WRAP } else { round },
        }
    }
}

/// Takes all chains; sleeps whenever none is there. `look`: whether one is, after having asked to be told or
/// not.
fn sleeper(
    rounds: u16,
    bell: &Notify,
    look: impl Fn(u16, bool) -> bool,
    take: impl Fn(u16),
    rest: impl Fn(u16),
) {
    let mut next = 0;
    loop {
        while next < rounds && look(next, false) {
            take(next);
            next += 1;
        }
        if next == rounds {
            return;
        }
        if !look(next, true) {
            bell.wait();
        }
        rest(next);
    }
}

fn waker(rounds: u16, bell: &Notify, show: impl Fn(u16) -> bool) {
    for round in 0..rounds {
        if show(round) {
            bell.notify();
        }
    }
}

fn explore(model: impl Fn(u16) + Copy + Send + Sync + 'static) {
    for (rounds, preemptions) in MODELS {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.check(move || model(rounds));
    }
}

fn notices<const FENCED: bool>(form: Form) {
    explore(move |rounds| {
        let ring = Arc::new(Ring::<FENCED>::new(form));
        // An eventfd: rung often, heard once.
        let kick = Arc::new(Notify::new());
        let device = {
            let (ring, kick) = (Arc::clone(&ring), Arc::clone(&kick));
            loom::thread::spawn(move || {
                sleeper(
                    rounds,
                    &kick,
                    |round, ask| ring.waits(round, ask),
                    |round| ring.check(round),
                    |round| ring.no_notices(round),
                );
            })
        };
        waker(rounds, &kick, |round| ring.make_available(round));
        device.join().expect("the device has taken all");
    });
}

fn interrupts<const FENCED: bool>(form: Form) {
    explore(move |rounds| {
        let ring = Arc::new(Ring::<FENCED>::new(form));
        let call = Arc::new(Notify::new());
        let device = {
            let (ring, call) = (Arc::clone(&ring), Arc::clone(&call));
            loom::thread::spawn(move || waker(rounds, &call, |round| ring.give_back(round)))
        };
        sleeper(
            rounds,
            &call,
            |round, ask| if ask { ring.ask_for_interrupt(round) } else { ring.is_used(round) },
            |round| ring.check(round),
            |_| ring.no_interrupts(),
        );
        device.join().expect("the device has returned all");
    });
}

/// The tests of a form: both ways, and both without a fence, first of the port's, then of the driver's.
macro_rules! models {
    ($($name:ident: $packed:literal $event_idx:literal)*) => {$(
        mod $name {
            use super::*;

            const FORM: Form = Form { packed: $packed, event_idx: $event_idx, fenced: true };
            const BROKEN: Form = Form { fenced: false, ..FORM };

            #[test]
            fn no_notice_is_lost() {
                notices::<true>(FORM);
            }

            #[test]
            fn no_interrupt_is_lost() {
                interrupts::<true>(FORM);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_the_fence_of_ask_a_notice_would_be() {
                notices::<false>(FORM);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_the_fence_of_wish_an_interrupt_would_be() {
                interrupts::<false>(FORM);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_the_fence_of_a_driver_a_notice_would_be() {
                notices::<true>(BROKEN);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_the_fence_of_a_driver_an_interrupt_would_be() {
                interrupts::<true>(BROKEN);
            }
        }
    )*};
}

models! {
    split: false false
    split_with_events: false true
    packed: true false
    packed_with_events: true true
}
