//! What a dataplane leaves for the next one: opaque bytes under a key, in memory.
//!
//! The last bytes of a key replace those before. Bounds: [`KEYS_MAX`] keys of [`KEY_MAX`] bytes, and
//! [`VALUE_MAX`] bytes a value, [`ALL_MAX`] bytes in all; what does not fit is refused and nothing is
//! evicted, as an old state in place of a new one would be worse than none: the key's old value goes.

use super::messages::Refused;
use std::collections::BTreeMap;

pub const KEYS_MAX: usize = 1024;
pub const KEY_MAX: usize = 64;
pub const VALUE_MAX: usize = 64 * 1024;
pub const ALL_MAX: usize = 16 << 20;

#[derive(Default)]
pub struct Kept {
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Kept {
    /// Empty bytes forget the key. Why it is safe: they are never looked at here.
    pub fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Refused> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Refused::rule(format!("a key of {} bytes: 1 to {KEY_MAX}", key.len())));
        }
        self.bytes -= self.values.remove(key).map_or(0, |old| old.len());
        if value.is_empty() {
            return Ok(());
        }
        if value.len() > VALUE_MAX {
            return Err(Refused::rule(format!("{} bytes to keep: at most {VALUE_MAX}", value.len())));
        }
        if self.values.len() >= KEYS_MAX || self.bytes + value.len() > ALL_MAX {
            return Err(Refused::rule(format!(
                "{} bytes under {} keys are kept already: at most {ALL_MAX} under {KEYS_MAX}",
                self.bytes,
                self.values.len()
            )));
        }
        self.bytes += value.len();
        self.values.insert(key.to_owned(), value);
        Ok(())
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_is_kept_and_an_empty_one_forgets_it() {
        let mut kept = Kept::default();
        kept.put("bond:b0", vec![1; 10]).unwrap();
        kept.put("bond:b0", vec![2; 5]).unwrap();
        assert_eq!((kept.get("bond:b0"), kept.bytes), (Some(&[2; 5][..]), 5));
        kept.put("bond:b0", Vec::new()).unwrap();
        assert_eq!((kept.get("bond:b0"), kept.bytes), (None, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_no_old_state_stays() {
        let mut kept = Kept::default();
        kept.put("a", vec![1]).unwrap();
        assert!(kept.put("a", vec![0; VALUE_MAX + 1]).is_err());
        assert_eq!(kept.get("a"), None);
        assert!(kept.put("", vec![1]).is_err());
        assert!(kept.put(&"k".repeat(KEY_MAX + 1), vec![1]).is_err());
        for number in 0..ALL_MAX / VALUE_MAX {
            kept.put(&number.to_string(), vec![0; VALUE_MAX]).unwrap();
        }
        assert!(kept.put("more", vec![1]).is_err());
        let mut kept = Kept::default();
        for number in 0..KEYS_MAX {
            kept.put(&number.to_string(), vec![1]).unwrap();
        }
        assert!(kept.put("more", vec![1]).is_err());
        kept.put("7", vec![2]).unwrap();
    }
}
