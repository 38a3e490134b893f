//! What the kernel is asked about memory of ours.
#![allow(unsafe_code)]

/// Asks for huge pages (2 MiB on most machines) behind the whole pages within this range, where nothing lies
/// yet. Best effort: a kernel without them, or one that was told not to, goes on with small ones.
pub fn advise_huge(address: usize, bytes: usize) {
    // SAFETY: sysconf reads a number of the system's.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
    let Some(first) = address.checked_next_multiple_of(page) else { return };
    let end = address.saturating_add(bytes) / page * page;
    if first < end {
        // SAFETY: MADV_HUGEPAGE changes what pages back a mapping, never its content, place or protection;
        // of a range that is not mapped it says ENOMEM. So it is sound for any address.
        let _ = unsafe {
            libc::madvise(std::ptr::without_provenance_mut(first), end - first, libc::MADV_HUGEPAGE)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_changes_nothing_that_is_there_and_minds_no_range() {
        let bytes: Vec<u8> = (0..8 << 20).map(|at| (at % 251) as u8).collect();
        let address = bytes.as_ptr() as usize;
        advise_huge(address + 1, bytes.len() - 2);
        for (start, len) in [(0, 0), (address, 1), (0, usize::MAX), (usize::MAX - 10_000, 1 << 20)] {
            advise_huge(start, len);
        }
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == (at % 251) as u8));
    }
}
