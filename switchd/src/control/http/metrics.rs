//! `/metrics`: the counters for Prometheus.
//!
//! Taken from the same replies as everything else, so the numbers agree with `port show`. Written as
//! OpenMetrics to those that ask for it, else in Prometheus' text format 0.0.4, which differs in the names of
//! counters' descriptions only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use switchd_api::reply::{
    BondStatus, ErrorCode, MemberStatus, MirrorStatus, NatStatus, NetworkStatus, PortCounters, PortStatus,
    State as Link, Status, WorkerStatus,
};

use super::error::{Failure, Reply};
use super::router::App;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, description = "Prometheus text, or OpenMetrics if `Accept` names it",
        content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub async fn metrics(State(app): State<App>, headers: HeaderMap) -> Reply<Response> {
    let engine = app.engine.lock().await;
    let sample = Sample {
        status: engine.status()?,
        networks: engine.networks()?,
        ports: engine.ports()?,
        bonds: engine.bonds()?,
        mirrors: engine.mirrors()?,
        workers: engine.workers()?,
        process: Process::read(),
    };
    drop(engine);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open = accept.contains("application/openmetrics-text");
    let text = exposition(sample, open)
        .map_err(|_| Failure::new(ErrorCode::Internal, "the metrics could not be written"))?;
    Ok(([(header::CONTENT_TYPE, if open { OPEN_METRICS } else { TEXT })], text).into_response())
}

/// What one scrape shows.
#[derive(Debug)]
struct Sample {
    status: Status,
    networks: Vec<NetworkStatus>,
    ports: Vec<PortStatus>,
    bonds: Vec<BondStatus>,
    mirrors: Vec<MirrorStatus>,
    workers: Vec<WorkerStatus>,
    process: Process,
}

/// Of the dataplane process; `None` where the sandbox hides it.
#[derive(Debug, Default)]
struct Process {
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
}

impl Process {
    fn read() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        // Less the one that lists them.
        let fds = std::fs::read_dir("/proc/self/fd").ok().map(|list| list.count().saturating_sub(1) as u64);
        Process { resident_bytes: kib.map(|kib| kib * 1024), open_fds: fds }
    }
}

fn exposition(sample: Sample, open: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sample));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(if open { text } else { as_0_0_4(&text) })
}

/// In 0.0.4 a counter is described under its full name, with `_total`.
fn as_0_0_4(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for line in text.lines().filter(|&line| line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(word), Some(name), Some(rest)) if counters.contains(name) => {
                out.extend(["# ", word, " ", name, "_total ", rest, "\n"]);
            }
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

/// One value of a port that every port has.
type PortValue = (&'static str, &'static str, fn(&PortCounters) -> u64);

const PORT_COUNTERS: &[PortValue] = &[
    ("switchd_port_rx_frames", "Frames that entered the switch here", |c| c.rx_frames),
    ("switchd_port_rx_bytes", "Bytes that entered the switch here", |c| c.rx_bytes),
    ("switchd_port_tx_frames", "Frames that left the switch here", |c| c.tx_frames),
    ("switchd_port_tx_bytes", "Bytes that left the switch here", |c| c.tx_bytes),
    ("switchd_port_forwarded", "Frames from here sent to one port", |c| c.forwarded),
    ("switchd_port_flooded", "Frames from here sent to all ports", |c| c.flooded),
    ("switchd_port_trapped", "Frames from here kept by the switch itself", |c| c.trapped),
    ("switchd_port_offered", "Frames offered to the port: sent and dropped", |c| c.offered),
    ("switchd_port_tx_segments", "Pieces of superframes cut in software", |c| c.tx_segments),
    ("switchd_port_mirrored", "Mirror copies sent to the port", |c| c.tx_mirrored),
    ("switchd_port_mirrored_dropped", "Mirror copies that the port did not take", |c| c.mirrored_dropped),
    ("switchd_port_mac_moves", "Addresses that moved here from another port", |c| c.mac_moves),
    ("switchd_port_learn_refused", "Addresses not learned because a limit was reached", |c| c.learn_refused),
    ("switchd_port_kernel_drops", "Frames that the kernel dropped before they were read", |c| c.kernel_drops),
    ("switchd_port_unreadable", "Reads that gave no frame", |c| c.unreadable),
];

type NetworkValue = (&'static str, &'static str, fn(&NetworkStatus) -> u64);

const NETWORK_COUNTERS: &[NetworkValue] = &[
    ("switchd_network_forwarded", "Frames sent to one port", |n| n.counters.forwarded),
    ("switchd_network_flooded", "Frames sent to all ports", |n| n.counters.flooded),
    ("switchd_network_fanout", "Copies that floods made", |n| n.counters.fanout),
    ("switchd_network_offered", "Frames offered to ports", |n| n.counters.offered),
    ("switchd_network_originated", "Frames of the switch itself", |n| n.counters.originated),
    ("switchd_network_addresses_learned", "Addresses learned", |n| n.counters.learned),
    ("switchd_network_addresses_aged", "Addresses forgotten for silence", |n| n.counters.aged),
    ("switchd_network_mac_moves", "Addresses that moved between ports", |n| n.counters.moves),
    ("switchd_network_learn_refused", "Addresses not learned: a limit", |n| n.counters.learn_refused),
];

const NETWORK_GAUGES: &[NetworkValue] = &[
    ("switchd_network_fdb_addresses", "Addresses known, static ones included", |n| n.counters.addresses),
    ("switchd_network_fdb_static_addresses", "Static addresses", |n| n.counters.static_addresses),
    ("switchd_network_fdb_limit", "Largest number of learned addresses", |n| {
        u64::from(n.spec.mac_limit.unwrap_or(MAC_LIMIT))
    }),
    ("switchd_network_ports", "Ports of the network", |n| n.ports.len() as u64),
];

/// Default of `NetworkSpec::mac_limit`.
const MAC_LIMIT: u32 = 16_384;

type NatValue = (&'static str, &'static str, fn(&NatStatus) -> u64);

const NAT_GAUGES: &[NatValue] = &[
    ("switchd_nat_flows", "Live flows", |n| n.flows),
    ("switchd_nat_flow_limit", "Most flows that the network can have", |n| n.flow_limit),
    ("switchd_nat_leases", "Live leases of the network's DHCP servers", |n| n.leases),
];

/// One set of counters by what they count.
type NatCounters = (&'static str, &'static str, fn(&NatStatus) -> &BTreeMap<String, u64>);

const NAT_COUNTERS: &[NatCounters] = &[
    ("switchd_nat_translation", "What translation has done, by event", |n| &n.translation),
    ("switchd_dhcp", "What the network's DHCP servers have done, by event", |n| &n.dhcp),
    ("switchd_dns", "What the network's DNS forwarder has done, by event", |n| &n.dns),
];

type MemberValue = (&'static str, &'static str, fn(&MemberStatus) -> bool);

const MEMBER_GAUGES: &[MemberValue] = &[
    ("switchd_bond_member_carrier", "Whether the member has a carrier", |m| m.carrier),
    ("switchd_bond_member_collecting", "Whether what the member receives is taken", |m| m.collecting),
    ("switchd_bond_member_distributing", "Whether frames are sent by the member", |m| m.distributing),
];

type MirrorValue = (&'static str, &'static str, fn(&MirrorStatus) -> u64);

const MIRROR_COUNTERS: &[MirrorValue] = &[
    ("switchd_mirror_seen", "Frames shown to the mirror", |m| m.counters.seen),
    ("switchd_mirror_filtered", "Frames that the filter left out", |m| m.counters.filtered),
    ("switchd_mirror_copied", "Frames copied", |m| m.counters.copied),
    ("switchd_mirror_lost", "Copies lost: a full ring or disk, an error", |m| m.counters.lost),
    ("switchd_mirror_bytes", "Bytes copied", |m| m.counters.bytes),
    ("switchd_mirror_files", "Files begun", |m| m.counters.files),
];

type WorkerValue = (&'static str, &'static str, fn(&WorkerStatus) -> u64);

const WORKER_COUNTERS: &[WorkerValue] = &[
    ("switchd_worker_frames", "Frames read by the worker", |w| w.frames),
    ("switchd_worker_busy_cycles", "Time-stamp counter cycles spent on bursts that held frames", |w| {
        w.busy_cycles
    }),
    ("switchd_worker_bursts", "Bursts that held frames", |w| w.bursts),
    ("switchd_worker_sleeps", "Times the worker went to sleep", |w| w.sleeps),
];

fn uplink(port: &PortStatus) -> bool {
    port.backend == "uplink"
}

/// An uplink is shared: its frames belong to no single network here.
fn port_labels(port: &PortStatus) -> [(&'static str, &str); 2] {
    let network = if uplink(port) { "" } else { port.spec.network.as_str() };
    [("port", &port.name), ("network", network)]
}

impl Collector for Sample {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_daemon(&mut out)?;
        for &(name, help, value) in PORT_COUNTERS {
            let rows = self.ports.iter().map(|port| (port_labels(port), value(&port.counters)));
            counters(&mut out, name, help, rows)?;
        }
        let drops = self.ports.iter().flat_map(|port| {
            let [p, n] = port_labels(port);
            let both = [("in", &port.counters.dropped_in), ("out", &port.counters.dropped_out)];
            both.into_iter().flat_map(move |(direction, drops)| {
                drops.iter().map(move |(reason, &frames)| {
                    ([p, n, ("direction", direction), ("reason", reason.as_str())], frames)
                })
            })
        });
        counters(&mut out, "switchd_port_dropped", "Frames dropped at the port", drops)?;
        let up = |state: Link| u64::from(state == Link::Up);
        let ports = self.ports.iter().map(|port| (port_labels(port), up(port.state)));
        gauges(&mut out, "switchd_port_up", "Whether the port forwards", ports)?;
        let learned = self.ports.iter().map(|port| (port_labels(port), port.addresses_learned));
        gauges(&mut out, "switchd_port_fdb_addresses", "Addresses learned behind the port", learned)?;
        let limited =
            self.ports.iter().filter_map(|port| Some((port_labels(port), u64::from(port.spec.mac_limit?))));
        gauges(&mut out, "switchd_port_fdb_limit", "Limit of the port's own, where it has one", limited)?;
        for &(name, help, value) in NETWORK_COUNTERS {
            let rows = self.networks.iter().map(|n| ([("network", n.name.as_str())], value(n)));
            counters(&mut out, name, help, rows)?;
        }
        for &(name, help, value) in NETWORK_GAUGES {
            let rows = self.networks.iter().map(|n| ([("network", n.name.as_str())], value(n)));
            gauges(&mut out, name, help, rows)?;
        }
        let rows = self.networks.iter().map(|n| ([("network", n.name.as_str())], up(n.state)));
        gauges(&mut out, "switchd_network_up", "Whether the network works", rows)?;
        self.encode_nat(&mut out)?;
        self.encode_bonds(&mut out)?;
        for &(name, help, value) in MIRROR_COUNTERS {
            let rows = self.mirrors.iter().map(|m| ([("mirror", m.name.as_str())], value(m)));
            counters(&mut out, name, help, rows)?;
        }
        let rows =
            self.mirrors.iter().map(|m| ([("mirror", m.name.as_str())], u64::from(m.state == "running")));
        gauges(&mut out, "switchd_mirror_running", "Whether the mirror's target takes copies", rows)?;
        for &(name, help, value) in WORKER_COUNTERS {
            let rows = self.workers.iter().map(|w| ([("worker", w.worker as u64)], value(w)));
            counters(&mut out, name, help, rows)?;
        }
        Ok(())
    }
}

impl Sample {
    fn encode_nat(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let networks = || self.networks.iter().filter_map(|n| Some((n.name.as_str(), n.nat.as_deref()?)));
        for &(name, help, value) in NAT_GAUGES {
            gauges(out, name, help, networks().map(|(network, nat)| ([("network", network)], value(nat))))?;
        }
        for &(name, help, value) in NAT_COUNTERS {
            let rows = networks().flat_map(|(network, nat)| {
                let events = value(nat).iter();
                events.map(move |(event, &count)| ([("network", network), ("event", event.as_str())], count))
            });
            counters(out, name, help, rows)?;
        }
        Ok(())
    }

    fn encode_bonds(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let up = |bond: &BondStatus| u64::from(bond.state == Link::Up);
        let rows = self.bonds.iter().map(|bond| ([("bond", bond.name.as_str())], up(bond)));
        gauges(out, "switchd_bond_up", "Whether enough members work", rows)?;
        let members = || {
            self.bonds.iter().flat_map(|bond| {
                let labels = |link: &MemberStatus| {
                    [("bond", bond.name.to_string()), ("member", link.interface.clone())]
                };
                bond.links.iter().map(move |link| (labels(link), link))
            })
        };
        for &(name, help, value) in MEMBER_GAUGES {
            gauges(out, name, help, members().map(|(labels, link)| (labels, u64::from(value(link)))))?;
        }
        let rows = members().flat_map(|([bond, member], link)| {
            let events = link.protocol.iter();
            events
                .map(move |(event, &count)| ([bond.clone(), member.clone(), ("event", event.clone())], count))
        });
        counters(out, "switchd_bond_member_protocol", "What LACP has done on the member, by event", rows)
    }

    fn encode_daemon(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        let build = [("version", status.version.as_str()), ("mode", status.mode.as_str())];
        gauges(out, "switchd_build_info", "The daemon that answers; always 1", [(build, 1)])?;
        let mut restarts = out.encode_descriptor(
            "switchd_dataplane_restarts",
            "Starts of the dataplane after its first",
            None,
            MetricType::Counter,
        )?;
        restarts.encode_counter::<NoLabelSet, u64, f64>(&u64::from(status.dataplane_restarts), None)?;
        let gauges = [
            ("switchd_uptime_seconds", "Since the daemon started", Some(status.uptime)),
            ("switchd_troubles", "Objects that could not be brought up", Some(status.troubles.len() as u64)),
            (
                "switchd_config_differs",
                "Saved state and --config file differ",
                Some(status.config_differs.into()),
            ),
            ("process_resident_memory_bytes", "Of the dataplane process", self.process.resident_bytes),
            ("process_open_fds", "File descriptors of the dataplane process", self.process.open_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

fn counters<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
