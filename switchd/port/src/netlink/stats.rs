//! An interface's counters (struct rtnl_link_stats64, linux/if_link.h).

use std::collections::BTreeMap;

/// The fields in their order; a kernel may know fewer or more.
const NAMES: [&str; 25] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
];

pub(super) fn parse(raw: &[u8]) -> BTreeMap<&'static str, u64> {
    let (words, _) = raw.as_chunks::<8>();
    NAMES.iter().zip(words).map(|(&name, &word)| (name, u64::from_ne_bytes(word))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shorter_structure_gives_the_fields_it_has() {
        let raw: Vec<u8> = [7u64, 8, 9].iter().flat_map(|word| word.to_ne_bytes()).chain([1, 2]).collect();
        let stats = super::parse(&raw);
        assert_eq!(
            stats.into_iter().collect::<Vec<_>>(),
            [("rx_bytes", 9), ("rx_packets", 7), ("tx_packets", 8)]
        );
    }
}
