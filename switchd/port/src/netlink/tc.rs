//! Traffic control, as far as the host guard needs it: a `clsact` qdisc and a BPF filter on ingress
//! (linux/pkt_sched.h, linux/pkt_cls.h).

use super::{Netlink, Reply, attributes, text_of, u32_of};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use std::io;

/// struct tcmsg.
const HEADER: usize = 20;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
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
    /// The classic BPF program, as raw instructions.
    pub program: Vec<u8>,
}

impl Filter {
    fn parse(reply: &Reply) -> Option<Filter> {
        let body = &reply.body;
        let mut filter = Filter {
            handle: u32_of(body.get(8..)?)?,
            priority: (u32_of(body.get(16..)?)? >> 16) as u16,
            kind: String::new(),
            program: Vec::new(),
        };
        for (kind, value) in attributes(body, HEADER) {
            match kind {
                TCA_KIND => filter.kind = text_of(value),
                TCA_OPTIONS if filter.kind == "bpf" => {
                    filter.program = attributes(value, 0)
                        .find(|&(kind, _)| kind == TCA_BPF_OPS)
                        .map_or_else(Vec::new, |(_, raw)| raw.to_vec());
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

/// struct sock_filter: BPF_RET | BPF_K, no jumps, TC_ACT_SHOT.
pub fn drop_all() -> [u8; 8] {
    let mut raw = [0; 8];
    raw[..2].copy_from_slice(&6u16.to_ne_bytes());
    raw[4..].copy_from_slice(&2u32.to_ne_bytes());
    raw
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

    /// Puts a filter on ingress that drops every frame, in place of one of the same priority and handle.
    ///
    /// A classic BPF program in direct-action mode: `ret TC_ACT_SHOT`. Unlike eBPF it needs no privilege
    /// beyond CAP_NET_ADMIN in the namespace, so it works in a user namespace too.
    pub fn drop_all_on_ingress(&mut self, index: u32, priority: u16, handle: u32) -> io::Result<()> {
        let raw = |kind, value: &[u8]| {
            TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(kind, value.to_vec())))
        };
        let mut message = message(index, INGRESS, handle, info(priority));
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                raw(TCA_BPF_OPS_LEN, &1u16.to_ne_bytes()),
                raw(TCA_BPF_OPS, &drop_all()),
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
