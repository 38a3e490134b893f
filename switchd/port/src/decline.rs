//! Why a port that has rules of its own (egress host) takes a frame no further.

macro_rules! declines {
    ($($(#[doc = $doc:literal])* $name:ident,)+) => {
        /// One for each drop reason that the switch has for it; what the kernel refuses is not among them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Decline {
            $($(#[doc = $doc])* $name,)+
        }

        impl Decline {
            pub const ALL: &[Decline] = &[$(Decline::$name,)+];
        }
    };
}

declines! {
    Malformed,
    Checksum,
    /// Neither TCP, UDP nor ICMP.
    Protocol,
    /// ICMP that is not an echo request.
    IcmpKind,
    /// The source is no guest's address.
    Source,
    /// An address that may not be reached.
    Destination,
    /// A group, or everybody.
    Group,
    TtlExceeded,
    /// Of no connection, and cannot begin one.
    NoFlow,
    /// As many flows as the network may have.
    Full,
    /// As many flows as the guest may have.
    Quota,
    /// As many sockets as the process may have.
    Descriptors,
    /// The host's stack gives no socket for it.
    Socket,
    Fragment,
    /// More echo requests than a guest may have in a second.
    EchoRate,
}

/// Frames of a burst, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Declined([u32; Decline::ALL.len()]);

impl Declined {
    pub fn count(&mut self, why: Decline) {
        self.0[why as usize] += 1;
    }

    pub fn get(&self, why: Decline) -> u32 {
        self.0[why as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The reasons that were met, with their frames.
    pub fn nonzero(&self) -> impl Iterator<Item = (Decline, u64)> + '_ {
        let counts = Decline::ALL.iter().map(|&why| (why, u64::from(self.get(why))));
        counts.filter(|&(_, frames)| frames > 0)
    }
}
