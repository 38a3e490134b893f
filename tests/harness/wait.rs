//! Waiting with a bound.

use std::time::{Duration, Instant};

/// Asks until the answer is `Ok`; panics with the last error after `limit`.
#[track_caller]
pub fn eventually<T>(limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= end => panic!("not within {limit:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Panics when the answer is not `Ok` at any time within `limit`.
#[track_caller]
pub fn holds_for(limit: Duration, mut ask: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Err(error) = ask() {
            panic!("did not hold: {error}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
