//! What a chain is made of: pieces of the guest's memory, each within one region. They are good for the memory
//! that they were looked up in only.

use super::fault::Fault;
use super::memory::GuestMemory;

/// The longest header in front of a frame.
pub const HEADER_MAX: usize = 12;

/// Bytes of a chain, within one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    pub at: usize,
    pub len: u32,
    pub region: u16,
    pub writable: bool,
}

/// What a buffer is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    Read,
    /// The header says nothing and is left out.
    ReadFrame,
    Write,
}

/// A line of the processor's caches.
pub const LINE: usize = 64;

impl Piece {
    /// A header of [`HEADER_MAX`] bytes at its beginning ends a line: the frame shares none with it.
    #[inline]
    pub fn header_apart(&self) -> bool {
        (self.at + HEADER_MAX).is_multiple_of(LINE)
    }
}

/// Pieces that are kept of what is gathered: 64 KiB in buffers of 64 bytes.
pub const PIECES_MAX: usize = 1100;
/// Pieces of chains in a burst: what a guest can make us read.
pub const PIECES_BURST: usize = 4096;

/// What was gathered from one chain, or from several.
#[derive(Default)]
pub struct Pieces {
    list: Vec<Piece>,
    total: u64,
    /// Something to be read is among them; something to be written.
    pub reads: bool,
    pub writes: bool,
    /// All that were added, those beyond the list too.
    count: usize,
}

impl Pieces {
    pub fn new() -> Pieces {
        Pieces { list: Vec::with_capacity(PIECES_MAX), ..Pieces::default() }
    }

    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        (self.total, self.reads, self.writes, self.count) = (0, false, false, 0);
    }

    #[inline]
    pub fn list(&self) -> &[Piece] {
        &self.list
    }

    /// Bytes of all that was added.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.list.len() >= PIECES_MAX
    }

    /// There were more than [`PIECES_MAX`]: the list does not hold them all.
    #[inline]
    pub fn overflow(&self) -> bool {
        self.count > PIECES_MAX
    }

    /// How many were added.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    #[inline]
    pub fn push(&mut self, piece: Piece) {
        self.total += u64::from(piece.len);
        (self.reads, self.writes) = (self.reads | !piece.writable, self.writes | piece.writable);
        self.count += 1;
        if self.list.len() < PIECES_MAX {
            self.list.push(piece);
        }
    }

    /// Adds what a descriptor names.
    #[inline]
    pub fn add(&mut self, memory: &GuestMemory, address: u64, len: u32, writable: bool) -> Result<(), Fault> {
        match memory.piece(address, len, writable) {
            Some(piece) => self.push(piece),
            None => self.add_across(memory, address, len, writable)?,
        }
        Ok(())
    }

    /// The same for a range that does not lie in one region.
    #[cold]
    fn add_across(
        &mut self,
        memory: &GuestMemory,
        mut address: u64,
        len: u32,
        writable: bool,
    ) -> Result<(), Fault> {
        let fault = Fault::Unmapped { address, len: u64::from(len) };
        if len == 0 {
            self.push(Piece { writable, ..Piece::default() });
            return Ok(());
        }
        let end = address.checked_add(u64::from(len)).ok_or(fault)?;
        while address < end {
            let piece = memory.part(address, (end - address) as u32, writable).ok_or(fault)?;
            self.push(piece);
            address += u64::from(piece.len);
        }
        Ok(())
    }
}
