//! What a DHCPv4 server counts: every message by kind, and every reason for not answering.

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident => $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counters {
            /// With the names that metrics use.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field),)*]
            }
        }
    };
}

counters! {
    discover => "dhcp-discover",
    offer => "dhcp-offer",
    request => "dhcp-request",
    ack => "dhcp-ack",
    nak => "dhcp-nak",
    decline => "dhcp-decline",
    release => "dhcp-release",
    inform => "dhcp-inform",
    /// Not a DHCP message of a client, or one without what its kind must have.
    malformed => "dhcp-malformed",
    /// BOOTP, or a message type that servers do not answer.
    unknown_kind => "dhcp-unknown-kind",
    /// Through a relay of another subnet.
    foreign_relay => "dhcp-foreign-relay",
    /// The client took another server's offer.
    other_server => "dhcp-other-server",
    /// INIT-REBOOT of a client that is not known: RFC 2131 4.3.2 wants silence.
    unknown_client => "dhcp-unknown-client",
    /// RELEASE or DECLINE of an address that the sender does not have.
    not_the_holder => "dhcp-not-the-holder",
    /// No address left for anybody.
    pool_full => "dhcp-pool-full",
    /// The port has as many as it may.
    port_full => "dhcp-port-full",
    /// Addresses that were asked for before they were offered, and those that somebody answered for.
    probe => "dhcp-probe",
    in_use => "dhcp-in-use",
    /// The disk refused the lease: no ACK was sent.
    store_failed => "dhcp-store-failed",
    /// Too many leases were on their way to the disk.
    store_busy => "dhcp-store-busy",
    /// The disk took longer than the lease.
    store_late => "dhcp-store-late",
    /// Options that found no room in a reply.
    options_left_out => "dhcp-options-left-out",
}
