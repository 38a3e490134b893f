//! A seeded simulator: several switches, joined by wires that lose, delay and flap, on one virtual clock.
//!
//! Two worlds. *Trunks*: a random tree of switches with access ports, joined by trunks. *Uplinks*: leaf
//! switches whose three networks share one uplink (two VLANs and the untagged rest), joined by a
//! transparent switch. Guests send to each other, to everyone and to nobody, and some of what they send is
//! nonsense (foreign tags, VID 4095, group sources, reserved addresses). Meanwhile wires lose frames, links
//! go down and up, queues are full, VLANs and limits are changed, guests change places, time passes.
//!
//! Held at every delivery: the receiver belongs to the class of the sender, has not seen the frame before,
//! is not its sender, and finds every byte as it was sent. Held at the end: the counters of all switches
//! add up; once everything is healed each guest reaches each guest of its class, exactly once.
//!
//! A failure prints its seed: `SWITCHD_SIM_SEED=N cargo test -p switchd-tests --test sim`. More runs:
//! `SWITCHD_SIM_RUNS=N`. Left out: superframes and offloads, which `golden` and the worker's tests hold.

mod random;
mod world;

use random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use world::{Kind, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn runs(kind: Kind) {
    let (first, count) = match number("SWITCHD_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("SWITCHD_SIM_RUNS").unwrap_or(60)),
    };
    let mut delivered = 0;
    for seed in first..first + count {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(kind, Random::new(seed));
            world.storm(1500);
            world.heal_and_check();
            world.delivered()
        }));
        match outcome {
            Ok(frames) => delivered += frames,
            Err(panic) => {
                eprintln!("the simulation of {kind:?} failed with SWITCHD_SIM_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    assert!(
        delivered > count * 500,
        "only {delivered} frames arrived: the worlds are too quiet to prove anything"
    );
}

#[test]
fn switches_joined_by_trunks_keep_vlans_apart() {
    runs(Kind::Trunks);
}

#[test]
fn networks_on_a_shared_uplink_keep_apart() {
    runs(Kind::Uplinks);
}
