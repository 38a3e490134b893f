//! Traffic control, as far as the host guard needs it: a `clsact` qdisc and a BPF filter on ingress
//! (linux/pkt_sched.h, linux/pkt_cls.h).

use super::{Netlink, Reply, attributes, text_of, u32_of};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// struct tcmsg.
const HEADER: usize = 20;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const ETH_P_ALL: u16 = 3;
/// The ingress and the egress hook of clsact.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };

/// A filter on a hook of clsact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub priority: u16,
    pub handle: u32,
    pub kind: String,
    /// The name that a BPF filter was given.
    pub name: Option<String>,
}

impl Filter {
    fn parse(reply: &Reply) -> Option<Filter> {
        let body = &reply.body;
        let mut filter = Filter {
            handle: u32_of(body.get(8..)?)?,
            priority: (u32_of(body.get(16..)?)? >> 16) as u16,
            kind: String::new(),
            name: None,
        };
        for (kind, value) in attributes(body, HEADER) {
            match kind {
                TCA_KIND => filter.kind = text_of(value),
                TCA_OPTIONS if filter.kind == "bpf" => {
                    filter.name = attributes(value, 0)
                        .find(|&(kind, _)| kind == TCA_BPF_NAME)
                        .map(|(_, name)| text_of(name));
                }
                _ => {}
            }
        }
        Some(filter)
    }
}

fn message(index: u32, parent: TcHandle, handle: u32, info: u32) -> TcMessage {
    let header = TcHeader { index: index as i32, parent, handle: handle.into(), info, ..TcHeader::default() };
    TcMessage::from_parts(header, Vec::new())
}

/// tcm_info of a filter: priority and, in network order, protocol.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be())
}

impl Netlink {
    /// Puts a clsact qdisc on the interface. False when it has one (or an ingress qdisc) already.
    pub fn add_clsact(&mut self, index: u32) -> io::Result<bool> {
        let mut message = message(index, TcHandle::CLSACT, 0xffff_0000, 0);
        message.attributes.push(TcAttribute::Kind("clsact".into()));
        let made = self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL);
        match made {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Takes the clsact qdisc away, with all its filters.
    pub fn delete_clsact(&mut self, index: u32) -> io::Result<()> {
        let message = message(index, TcHandle::CLSACT, 0xffff_0000, 0);
        self.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
    }

    /// The filters of both hooks; none where there is no qdisc.
    pub fn filters(&mut self, index: u32) -> io::Result<Vec<Filter>> {
        let mut filters = self.ingress_filters(index)?;
        filters.extend(self.hook_filters(index, EGRESS)?);
        Ok(filters)
    }

    pub fn ingress_filters(&mut self, index: u32) -> io::Result<Vec<Filter>> {
        self.hook_filters(index, INGRESS)
    }

    fn hook_filters(&mut self, index: u32, hook: TcHandle) -> io::Result<Vec<Filter>> {
        match self.dump(RouteNetlinkMessage::GetTrafficFilter(message(index, hook, 0, 0))) {
            Ok(replies) => {
                let filters = replies.iter().filter(|reply| reply.kind == RTM_NEWTFILTER);
                // A list has an entry without a handle for each filter chain as such.
                Ok(filters.filter_map(Filter::parse).filter(|filter| filter.handle != 0).collect())
            }
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a direct-action BPF program on ingress, in place of one of the same priority and handle.
    pub fn set_ingress_program(
        &mut self,
        index: u32,
        priority: u16,
        handle: u32,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let mut message = message(index, INGRESS, handle, info(priority));
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
                TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
                TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::from_bits_retain(1))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes a filter off ingress. False when there is none of that priority and handle.
    pub fn delete_ingress_filter(&mut self, index: u32, priority: u16, handle: u32) -> io::Result<bool> {
        let mut message = message(index, INGRESS, handle, info(priority));
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        match self.request(RouteNetlinkMessage::DelTrafficFilter(message), 0) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(false),
            other => other.map(|()| true),
        }
    }
}
