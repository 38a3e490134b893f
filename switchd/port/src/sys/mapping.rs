//! Memory that another program shares with us: mapped, read and written by copies, never by reference.
//!
//! The other side may change every byte at any time, and may shrink the file behind the mapping. So bytes
//! are copied through raw pointers, words are atomics, and no reference into a mapping ever exists.
//!
//! **A file that shrinks** raises SIGBUS at the next touch of a page that is no more. Our handler puts
//! anonymous memory over the whole mapping and marks it dead; the touch is repeated and goes to nobody. Who
//! uses the mapping asks [`Mapping::is_dead`] after each burst. A SIGBUS elsewhere ends the process as ever.
//!
//! Only memory files are taken (memfd, tmpfs, hugetlbfs): a page of another file system could take for ever
//! to come (FUSE), and a worker with it.
//!
//! Bound: [`MAPPINGS_MAX`] mappings at a time.
#![allow(unsafe_code)]

use rustix::fs::{FileType, fstat, fstatfs};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Mappings at a time: 4096 ports with two regions each.
pub const MAPPINGS_MAX: usize = 8192;
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;

/// What the handler knows of a mapping. `base` 0: the slot is free.
struct Slot {
    base: AtomicUsize,
    len: AtomicUsize,
    dead: AtomicBool,
}

static SLOTS: [Slot; MAPPINGS_MAX] =
    [const { Slot { base: AtomicUsize::new(0), len: AtomicUsize::new(0), dead: AtomicBool::new(false) } };
        MAPPINGS_MAX];
/// Slots are taken under this lock, and read without it.
static TAKING: Mutex<()> = Mutex::new(());
static HANDLER: Once = Once::new();

/// A range of a memory file, mapped for reading and writing.
pub struct Mapping {
    base: *mut u8,
    /// Bytes mapped: whole pages.
    mapped: usize,
    /// Where the wanted range begins, and its length.
    from: usize,
    len: usize,
    slot: usize,
}

// SAFETY: the pointer names memory that is mapped as long as the value lives, whichever thread has it; all
// accesses are raw copies and atomics that tolerate any other writer.
unsafe impl Send for Mapping {}
// SAFETY: as above: no method hands out a reference, and concurrent writers exist by nature.
unsafe impl Sync for Mapping {}

fn refused(rule: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, rule.into())
}

impl Mapping {
    /// Maps `len` bytes of the file from `offset` on. The file must hold them all.
    pub fn new(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Mapping> {
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused("guest memory is not a file"));
        }
        if !matches!(fstatfs(file)?.f_type as u64 & 0xffff_ffff, TMPFS | HUGETLBFS) {
            return Err(refused("guest memory is neither a memfd nor a file on tmpfs or hugetlbfs"));
        }
        let end = offset.checked_add(len).filter(|_| len > 0);
        if end.is_none_or(|end| end > stat.st_size as u64) {
            return Err(refused(format!(
                "guest memory of {len} bytes at {offset} is not within its file of {} bytes",
                stat.st_size
            )));
        }
        // The block size of hugetlbfs is its page's, in which mappings must begin and end.
        let page = (stat.st_blksize as u64).max(4096);
        if !page.is_power_of_two() {
            return Err(refused(format!("guest memory with pages of {page} bytes")));
        }
        let start = offset & !(page - 1);
        let from = (offset - start) as usize;
        let mapped = usize::try_from((offset + len - start).next_multiple_of(page))
            .map_err(|_| refused("guest memory too large"))?;
        HANDLER.call_once(install);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_fd().as_raw_fd(),
                start as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapping = Mapping { base: base.cast(), mapped, from, len: len as usize, slot: MAPPINGS_MAX };
        let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let free = SLOTS.iter().position(|slot| slot.base.load(Ordering::Relaxed) == 0);
        let Some(slot) = free else {
            return Err(refused(format!("more than {MAPPINGS_MAX} regions of guest memory")));
        };
        SLOTS[slot].dead.store(false, Ordering::Relaxed);
        SLOTS[slot].len.store(mapped, Ordering::Relaxed);
        SLOTS[slot].base.store(base as usize, Ordering::Release);
        mapping.slot = slot;
        Ok(mapping)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file has shrunk: what is read is zero, what is written goes to nobody.
    #[inline]
    pub fn is_dead(&self) -> bool {
        SLOTS.get(self.slot).is_some_and(|slot| slot.dead.load(Ordering::Relaxed))
    }

    /// The address of `count` bytes at `at`, if they lie within the range.
    #[inline]
    fn at(&self, at: usize, count: usize) -> Option<*mut u8> {
        if at.checked_add(count)? > self.len {
            return None;
        }
        Some(self.base.wrapping_add(self.from + at))
    }

    /// Copies out. False, and nothing read, when the range is not wholly within.
    #[inline]
    #[must_use]
    pub fn read(&self, at: usize, dst: &mut [u8]) -> bool {
        let Some(from) = self.at(at, dst.len()) else { return false };
        // SAFETY: `at` has checked the whole range; it stays mapped while `self` lives; `dst` is ours and so
        // cannot overlap. The bytes may change meanwhile: any value is fine for plain bytes.
        unsafe { ptr::copy_nonoverlapping(from, dst.as_mut_ptr(), dst.len()) };
        true
    }

    /// Whether the bytes at `at` are these now.
    #[inline]
    pub fn holds<const N: usize>(&self, at: usize, bytes: &[u8; N]) -> bool {
        let mut seen = [0; N];
        self.read(at, &mut seen) && seen == *bytes
    }

    /// Copies in. False, and nothing written, when the range is not wholly within.
    #[inline]
    #[must_use]
    pub fn write(&self, at: usize, src: &[u8]) -> bool {
        let Some(to) = self.at(at, src.len()) else { return false };
        // SAFETY: as for reading; nobody has a reference to the bytes that are overwritten.
        unsafe { ptr::copy_nonoverlapping(src.as_ptr(), to, src.len()) };
        true
    }

    /// Copies in a few bytes without a call: nothing beyond `src` is written.
    #[inline(always)]
    #[must_use]
    pub fn write_short(&self, at: usize, src: &[u8]) -> bool {
        let len = src.len();
        let Some(to) = self.at(at, len) else { return false };
        // Two blocks of the same size, which meet or overlap: no loop, no branch for the rest.
        match len {
            65..=128 => ends::<64>(to, src),
            33..=64 => ends::<32>(to, src),
            16..=32 => ends::<16>(to, src),
            _ => return self.write(at, src),
        }
        true
    }

    /// Copies from one mapping into another, or within one: two guests may have been given the same file, so
    /// the ranges may overlap. False, and nothing copied, when either is not wholly within.
    #[inline]
    #[must_use]
    pub fn copy(from: &Mapping, from_at: usize, to: &Mapping, to_at: usize, len: usize) -> bool {
        let (Some(src), Some(dst)) = (from.at(from_at, len), to.at(to_at, len)) else { return false };
        // SAFETY: `at` has checked both ranges, which stay mapped while the two values live; nobody has a
        // reference to either, and `copy` allows them to overlap. Two mappings of the same bytes at different
        // addresses only make the result a mixture, which is the business of whoever shares the file.
        unsafe { ptr::copy(src, dst, len) };
        true
    }

    /// Asks for the line at `at`, to be read soon. Any place will do: nothing happens where nothing is mapped.
    #[inline(always)]
    pub fn prefetch(&self, at: usize) {
        let address = self.base.wrapping_add(self.from).wrapping_add(at);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which neither reads nor faults, whatever the address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    /// As [`Mapping::prefetch`], for a line that is to be written: it comes as ours alone, and is not asked for
    /// twice. (The intrinsic with that hint is a plain prefetch unless built for a newer processor; those before
    /// PREFETCHW take the instruction for none.)
    #[inline(always)]
    pub fn prefetch_write(&self, at: usize) {
        let address = self.base.wrapping_add(self.from).wrapping_add(at);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    /// A word shared with the other side. `None` outside of the range or at an odd address.
    #[inline]
    fn word(&self, at: usize) -> Option<*mut u16> {
        let word = self.at(at, 2)?.cast::<u16>();
        word.is_aligned().then_some(word)
    }

    #[inline]
    pub fn load(&self, at: usize, order: Ordering) -> Option<u16> {
        let word = self.word(at)?;
        // SAFETY: within the mapping and aligned, as `word` has checked; the other side too uses it as an
        // atomic only, and whatever it does, an atomic load yields some value.
        Some(u16::from_le(unsafe { AtomicU16::from_ptr(word) }.load(order)))
    }

    #[inline]
    #[must_use]
    pub fn store(&self, at: usize, value: u16, order: Ordering) -> bool {
        let Some(word) = self.word(at) else { return false };
        // SAFETY: as for loading.
        unsafe { AtomicU16::from_ptr(word) }.store(value.to_le(), order);
        true
    }
}

impl Mapping {
    /// Eight bytes shared with the other side. `None` outside of the range or where they are not aligned.
    #[inline]
    fn wide(&self, at: usize) -> Option<*mut u64> {
        let wide = self.at(at, 8)?.cast::<u64>();
        wide.is_aligned().then_some(wide)
    }

    #[inline]
    pub fn load_wide(&self, at: usize, order: Ordering) -> Option<u64> {
        let wide = self.wide(at)?;
        // SAFETY: within the mapping and aligned, as `wide` has checked; whatever the other side does to the
        // bytes, an atomic load yields some value.
        Some(u64::from_le(unsafe { AtomicU64::from_ptr(wide) }.load(order)))
    }

    #[inline]
    #[must_use]
    pub fn store_wide(&self, at: usize, value: u64, order: Ordering) -> bool {
        let Some(wide) = self.wide(at) else { return false };
        // SAFETY: as for loading.
        unsafe { AtomicU64::from_ptr(wide) }.store(value.to_le(), order);
        true
    }
}

/// Writes the first and the last `N` bytes of `src`, which is no shorter, to the same places behind `to`.
#[inline(always)]
fn ends<const N: usize>(to: *mut u8, src: &[u8]) {
    let last = src.len() - N;
    // SAFETY: the caller has seen that `to` is good for `src.len()` bytes, and both blocks lie within that many;
    // nobody has a reference to the bytes that are overwritten.
    unsafe {
        ptr::copy_nonoverlapping(src.as_ptr(), to, N);
        ptr::copy_nonoverlapping(src.as_ptr().add(last), to.add(last), N);
    }
}

impl Mapping {
    /// Sets bits of a byte that the other side clears. False when it is not within.
    #[must_use]
    pub fn set_bits(&self, at: usize, bits: u8) -> bool {
        let Some(byte) = self.at(at, 1) else { return false };
        // SAFETY: within the mapping, as `at` has checked, and a byte is always aligned; the other side too
        // uses it as an atomic only.
        unsafe { AtomicU8::from_ptr(byte) }.fetch_or(bits, Ordering::SeqCst);
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(slot) = SLOTS.get(self.slot) {
            slot.base.store(0, Ordering::Release);
        }
        // SAFETY: the range is a mapping of ours, made in `new`, and nobody can name it any more.
        unsafe { libc::munmap(self.base.cast(), self.mapped) };
    }
}

/// Makes [`on_fault`] the answer to SIGBUS.
fn install() {
    // SAFETY: a zeroed sigaction is a valid one; the handler is async-signal-safe (see there).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

/// Async-signal-safe: atomics, two system calls without state of the C library's, no lock, no allocation.
extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over a valid siginfo.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &SLOTS {
        let base = slot.base.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        if base == 0 || address < base || address - base >= len {
            continue;
        }
        // SAFETY: errno of this thread is put back, as the interrupted code may be about to read it; the
        // range is a whole mapping of ours that nobody refers to but by raw pointers, and it stays mapped:
        // whoever faulted holds its `Mapping`.
        let covered = unsafe {
            let errno = *libc::__errno_location();
            let covered = libc::mmap(
                base as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            );
            *libc::__errno_location() = errno;
            covered
        };
        if covered as usize == base {
            slot.dead.store(true, Ordering::Relaxed);
            return;
        }
    }
    // SAFETY: setting the default action is always allowed; the touch is repeated and ends the process.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn file(len: u64) -> std::os::fd::OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len).unwrap();
        file
    }

    #[test]
    fn only_what_lies_wholly_within_is_read_and_written() {
        let memory = file(8192);
        let mapping = Mapping::new(memory.as_fd(), 4096 + 16, 1024).unwrap();
        let other = Mapping::new(memory.as_fd(), 0, 8192).unwrap();
        assert!(mapping.write(1020, &[1, 2, 3, 4]) && !mapping.write(1021, &[1, 2, 3, 4]));
        let mut seen = [0; 4];
        assert!(other.read(4096 + 16 + 1020, &mut seen) && seen == [1, 2, 3, 4]);
        assert!(!mapping.read(usize::MAX, &mut seen) && !mapping.read(1024, &mut seen[..1]));
        assert!(mapping.store(0, 0x1234, Ordering::Release));
        assert_eq!(other.load(4096 + 16, Ordering::Acquire), Some(0x1234));
        assert_eq!((mapping.load(1, Ordering::Relaxed), mapping.load(1023, Ordering::Relaxed)), (None, None));
    }

    #[test]
    fn short_writes_touch_nothing_else() {
        let memory = file(4096);
        let mapping = Mapping::new(memory.as_fd(), 0, 4096).unwrap();
        let src: Vec<u8> = (1..=200).collect();
        for len in 0..=200 {
            assert!(mapping.write(0, &[0xee; 300]) && mapping.write_short(7, &src[..len]));
            let mut seen = [0; 300];
            assert!(mapping.read(0, &mut seen));
            assert_eq!(seen[7..7 + len], src[..len]);
            assert!(seen[..7].iter().chain(&seen[7 + len..]).all(|&byte| byte == 0xee), "{len}");
        }
        assert!(!mapping.write_short(4096 - 63, &src[..64]) && mapping.write_short(4096 - 64, &src[..64]));
    }

    #[test]
    fn mappings_are_copied_into_each_other_and_into_themselves() {
        let (one, two) = (file(4096), file(4096));
        let (from, to) =
            (Mapping::new(one.as_fd(), 0, 4096).unwrap(), Mapping::new(two.as_fd(), 0, 4096).unwrap());
        assert!(from.write(100, &[1, 2, 3, 4]) && Mapping::copy(&from, 100, &to, 4092, 4));
        let mut seen = [0; 4];
        assert!(to.read(4092, &mut seen) && seen == [1, 2, 3, 4]);
        assert!(!Mapping::copy(&from, 100, &to, 4093, 4) && !Mapping::copy(&from, 4093, &to, 0, 4));
        assert!(Mapping::copy(&from, 100, &from, 102, 4) && from.read(102, &mut seen));
        assert_eq!(seen, [1, 2, 3, 4]);
        from.prefetch(usize::MAX);
        to.prefetch_write(1 << 40);
    }

    #[test]
    fn a_range_beyond_the_file_and_what_is_no_memory_file_are_refused() {
        let memory = file(4096);
        assert!(Mapping::new(memory.as_fd(), 0, 4097).is_err());
        assert!(Mapping::new(memory.as_fd(), u64::MAX, 2).is_err());
        assert!(Mapping::new(memory.as_fd(), 0, 0).is_err());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(Mapping::new(null.as_fd(), 0, 4096).is_err());
        let proc = std::fs::File::open("/proc/self/maps").unwrap();
        assert!(Mapping::new(proc.as_fd(), 0, 1).is_err());
    }

    #[test]
    fn a_file_that_shrinks_kills_its_mapping_only() {
        let (one, two) = (file(1 << 20), file(1 << 20));
        let shrinking = Mapping::new(one.as_fd(), 0, 1 << 20).unwrap();
        let well = Mapping::new(two.as_fd(), 0, 1 << 20).unwrap();
        assert!(shrinking.write(900_000, &[7]) && well.write(900_000, &[8]));
        ftruncate(&one, 4096).unwrap();
        let mut seen = [1];
        assert!(shrinking.read(900_000, &mut seen) && shrinking.write(900_001, &[7]));
        assert_eq!(seen, [0]);
        assert!(shrinking.is_dead() && !well.is_dead());
        assert!(well.read(900_000, &mut seen) && seen == [8]);
        // Its place may be taken by another one, which lives.
        drop(shrinking);
        let next = Mapping::new(two.as_fd(), 0, 4096).unwrap();
        assert!(!next.is_dead());
    }
}
