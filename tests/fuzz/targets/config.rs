//! Any text as a configuration file: reading and judging it never panics, what it says is harmless to a
//! terminal and bounded, and what is accepted is exported and read back as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

// The daemon's module itself, without the daemon around it.
#[allow(dead_code, unused_imports)]
#[path = "../../../switchd/src/config/mod.rs"]
mod config;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let captures = Path::new("/captures");
    match config::parse_toml(text, "fuzz.toml", captures) {
        Ok(desired) => {
            config::validate(&desired, captures).expect("what was read is valid");
            let exported = config::export(&desired);
            let again = config::parse_toml(&exported, "export", captures).expect("an export is accepted");
            assert_eq!(again, desired);
            assert_eq!(config::export(&again), exported);
            assert!(config::plan(&desired, &again).is_empty());
            let _ = config::changes(&config::plan(&Default::default(), &desired));
        }
        Err(report) => {
            assert!(!report.problems().is_empty());
            assert!(report.rendered().chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            assert!(report.to_string().chars().all(|c| !c.is_control()));
            assert!(report.rendered().len() < 200_000);
        }
    }
});
