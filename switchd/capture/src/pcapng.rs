//! One section of a pcapng file (draft-ietf-opsawg-pcapng): its header, an interface block for each switch
//! port when the port is first needed, and statistics blocks. Packets come ready from the ring
//! ([`crate::packet`]); here they only get the section's number of their interface.
//!
//! **Statistics** are of the section, so that each file is complete in itself, and hold exactly when the
//! block is written:
//!
//! ```text
//! isb_ifrecv       frames shown to the capture at this interface
//! isb_filteraccept those that the filter wanted
//! isb_ifdrop       wanted, but lost: ring full, disk full, write error, slow reader
//! isb_usrdeliv     packets of the interface in this section   (= filteraccept - ifdrop)
//! ```
//! Counts that could not be written because the file broke are carried to the next section, so nothing
//! lost is ever forgotten. With segmentation all of them count segments, except what the filter refused.
//!
//! Control blocks wait in [`Section::pending`] until they are written: an interface block that met a full
//! disk is still there when the disk has room, before the first packet that needs it.

use crate::ring::{Interface, Tally};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use std::time::Duration;

/// Bytes of a name, a description or a filter in a block; longer ones are cut.
const TEXT_MAX: usize = 4096;

/// What all sections of a capture say of themselves.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name of the mirror, for the section's comment.
    pub name: String,
    /// Bytes kept of a packet.
    pub snaplen: u32,
    /// The filter's expression.
    pub filter: Option<String>,
}

/// Counts of one interface in the section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    written: u64,
    filtered: u64,
    lost: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    counts: Counts,
    /// What the section's last written statistics said.
    told: Option<Counts>,
}

/// The accounts of all interfaces of a capture; they outlive a section.
#[derive(Debug, Default)]
pub struct Accounts(Vec<Account>);

impl Accounts {
    fn of(&mut self, interface: u32) -> &mut Account {
        let index = interface as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Account::default());
        }
        &mut self.0[index]
    }

    /// What the ring tells with a parcel.
    pub fn tally(&mut self, tally: &Tally) {
        let counts = &mut self.of(tally.interface).counts;
        counts.filtered += tally.filtered;
        counts.lost += tally.lost;
    }

    /// A packet of the interface is in the section.
    #[inline]
    pub fn written(&mut self, interface: u32) {
        self.of(interface).counts.written += 1;
    }

    /// A packet of the interface did not get there.
    pub fn lost(&mut self, interface: u32) {
        self.of(interface).counts.lost += 1;
    }

    /// Something happened since the last statistics.
    pub fn changed(&self) -> bool {
        self.0.iter().any(|account| account.counts != account.told.unwrap_or_default())
    }

    /// The statistics of now are in the section.
    pub fn told(&mut self) {
        for account in &mut self.0 {
            account.told = Some(account.counts);
        }
    }

    /// A new section begins: what the last one could not tell is carried over.
    pub fn begin(&mut self) {
        for account in &mut self.0 {
            let told = account.told.take().unwrap_or_default();
            account.counts.written = 0;
            account.counts.filtered -= told.filtered;
            account.counts.lost -= told.lost;
        }
    }
}

/// A section that is being written.
pub struct Section {
    /// Its buffer is what is still to be written.
    blocks: PcapNgWriter<Vec<u8>>,
    /// The ring's number of an interface → its number in the section.
    ids: Vec<Option<u32>>,
    /// The other way round.
    interfaces: Vec<u32>,
    started: Duration,
}

impl Section {
    /// Begins a section; `now` in nanoseconds of the real-time clock.
    pub fn begin(about: &About, now: u64) -> Section {
        let header = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::OS(std::env::consts::OS.into()),
                SectionHeaderOption::UserApplication(concat!("switchd ", env!("CARGO_PKG_VERSION")).into()),
                SectionHeaderOption::Common(CommonOption::Comment(clip(&about.name).into())),
            ],
            ..SectionHeaderBlock::default()
        };
        let blocks = PcapNgWriter::with_section_header(Vec::new(), header).expect("a buffer takes all");
        Section { blocks, ids: Vec::new(), interfaces: Vec::new(), started: Duration::from_nanos(now) }
    }

    /// The section's number of an interface; its block is added when it is first asked for.
    #[inline]
    pub fn id(&mut self, interface: u32, about: &About, name: impl FnOnce() -> Interface) -> u32 {
        match self.ids.get(interface as usize) {
            Some(&Some(id)) => id,
            _ => self.describe(interface, about, name()),
        }
    }

    fn describe(&mut self, interface: u32, about: &About, names: Interface) -> u32 {
        let mut options = vec![InterfaceDescriptionOption::IfName(clip(&names.name).to_owned().into())];
        if !names.description.is_empty() {
            options
                .push(InterfaceDescriptionOption::IfDescription(clip(&names.description).to_owned().into()));
        }
        options.push(InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO));
        if let Some(filter) = &about.filter {
            // The first byte 0: the text is a libpcap expression.
            let text = [b"\0", clip(filter).as_bytes()].concat();
            options.push(InterfaceDescriptionOption::IfFilter(text.into()));
        }
        let id = self.blocks.interfaces().len() as u32;
        let block =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: about.snaplen, options };
        self.blocks.write_pcapng_block(block).expect("a buffer takes bounded options");
        let index = interface as usize;
        if self.ids.len() <= index {
            self.ids.resize(index + 1, None);
        }
        self.ids[index] = Some(id);
        self.interfaces.push(interface);
        id
    }

    /// The ring's number of an interface of the section.
    pub fn interface(&self, id: u32) -> u32 {
        self.interfaces.get(id as usize).copied().unwrap_or_default()
    }

    /// Control blocks that are to be written before anything else. Empty it when that is done.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        self.blocks.get_mut()
    }

    /// Adds the blocks of interfaces that have something to tell and were not described yet.
    pub fn describe_all(&mut self, accounts: &Accounts, about: &About, name: impl Fn(u32) -> Interface) {
        for (index, account) in accounts.0.iter().enumerate() {
            if account.counts != Counts::default() {
                self.id(index as u32, about, || name(index as u32));
            }
        }
    }

    /// Adds a statistics block for every described interface with something to tell. `now` in nanoseconds of
    /// the real-time clock.
    pub fn statistics(&mut self, accounts: &Accounts, now: u64) {
        let now = Duration::from_nanos(now);
        for (index, account) in accounts.0.iter().enumerate() {
            let counts = account.counts;
            let Some(&Some(id)) = self.ids.get(index) else { continue };
            if counts == Counts::default() {
                continue;
            }
            let accepted = counts.written + counts.lost;
            let block = InterfaceStatisticsBlock {
                interface_id: id,
                timestamp: now,
                options: vec![
                    InterfaceStatisticsOption::IsbStartTime(self.started),
                    InterfaceStatisticsOption::IsbEndTime(now),
                    InterfaceStatisticsOption::IsbIfRecv(counts.filtered + accepted),
                    InterfaceStatisticsOption::IsbIfDrop(counts.lost),
                    InterfaceStatisticsOption::IsbFilterAccept(accepted),
                    InterfaceStatisticsOption::IsbUsrDeliv(counts.written),
                ],
            };
            self.blocks.write_pcapng_block(block).expect("the interface was described before");
        }
    }
}

/// At most [`TEXT_MAX`] bytes, cut between characters.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_parser::{Block, PcapBlockOwned, PcapNGReader, traits::PcapReaderIterator};

    fn named(index: u32) -> Interface {
        Interface { name: format!("vm{index}"), description: "tap of lab".into() }
    }

    /// What an independent parser makes of the bytes, a line a block.
    fn outline(bytes: &[u8]) -> Vec<String> {
        let mut reader = PcapNGReader::new(65_536, bytes).unwrap();
        let mut lines = Vec::new();
        while let Ok((used, block)) = reader.next() {
            let PcapBlockOwned::NG(block) = block else { panic!("not pcapng") };
            lines.push(match block {
                Block::SectionHeader(_) => "section".to_owned(),
                Block::InterfaceDescription(block) => {
                    let text = |code: u16| {
                        let found = block.options.iter().find(|option| option.code.0 == code);
                        found.map_or(String::new(), |o| {
                            String::from_utf8_lossy(&o.value[..o.len as usize]).replace('\0', "")
                        })
                    };
                    format!(
                        "interface {} {:?} {:?} tsresol {} snaplen {}",
                        text(2),
                        text(3),
                        text(11),
                        block.if_tsresol,
                        block.snaplen
                    )
                }
                Block::InterfaceStatistics(block) => {
                    let number = |code: u16| {
                        let found = block.options.iter().find(|option| option.code.0 == code).unwrap();
                        let raw: [u8; 8] = found.value[..8].try_into().unwrap();
                        u64::from_le_bytes(raw)
                    };
                    let time = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                    let (recv, drop) = (number(4), number(5));
                    format!("statistics {} at {time} {recv} {drop} {} {}", block.if_id, number(6), number(8))
                }
                other => format!("{other:?}"),
            });
            reader.consume(used);
        }
        lines
    }

    #[test]
    fn interfaces_are_described_when_needed_and_statistics_add_up() {
        let about = About { name: "m".into(), snaplen: 96, filter: Some("tcp".into()) };
        let mut section = Section::begin(&about, 1_700_000_000_000_000_123);
        let mut accounts = Accounts::default();
        assert_eq!(section.id(7, &about, || named(7)), 0);
        assert_eq!(section.id(2, &about, || named(2)), 1);
        assert_eq!(section.id(7, &about, || unreachable!("it is known")), 0);
        for _ in 0..5 {
            accounts.written(7);
        }
        accounts.tally(&Tally { interface: 7, filtered: 10, lost: 3 });
        accounts.tally(&Tally { interface: 0, filtered: 0, lost: 4 });
        section.describe_all(&accounts, &about, named);
        section.statistics(&accounts, 1_700_000_001_000_000_456);
        assert_eq!(
            outline(section.pending()),
            [
                "section",
                r#"interface vm7 "tap of lab" "tcp" tsresol 9 snaplen 96"#,
                r#"interface vm2 "tap of lab" "tcp" tsresol 9 snaplen 96"#,
                r#"interface vm0 "tap of lab" "tcp" tsresol 9 snaplen 96"#,
                "statistics 2 at 1700000001000000456 4 4 4 0",
                "statistics 0 at 1700000001000000456 18 3 8 5",
            ]
        );
    }

    #[test]
    fn what_a_section_could_not_tell_goes_into_the_next() {
        let mut accounts = Accounts::default();
        assert!(!accounts.changed());
        accounts.written(0);
        accounts.tally(&Tally { interface: 0, filtered: 10, lost: 3 });
        assert!(accounts.changed());
        accounts.told();
        assert!(!accounts.changed());
        accounts.written(0);
        accounts.lost(0);
        accounts.tally(&Tally { interface: 0, filtered: 1, lost: 1 });
        accounts.begin();
        assert_eq!(accounts.0[0].counts, Counts { written: 0, filtered: 1, lost: 2 });
    }
}
