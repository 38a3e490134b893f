//! What the gateway serves: DHCP and DNS.

use super::super::super::address::{domain as a_domain, host4, is_host4, prefix4, range4, server};
use super::super::super::keys::DHCP_OPTIONS;
use super::super::super::problem::{Problem, nearest, one_of};
use super::super::super::typed::{DhcpPlan, mask4};
use super::super::super::{DEFAULT_LEASE_TIME, MAX_RESOLVERS};
use super::taken;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use switchd_api::model::NetworkSpec;
use switchd_api::name::Name;
use switchd_nat::{Prefix4, Prefix6};

/// What one option of DHCP holds at most (RFC 2132 2): its length is one byte.
const OPTION_BYTES: usize = 255;

pub(super) fn dhcp(
    name: &Name,
    spec: &NetworkSpec,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> Option<DhcpPlan> {
    if spec.dhcp.as_deref() == Some("off") {
        for (key, given) in [
            ("dhcp-range", spec.dhcp_range.is_some()),
            ("dhcp-option", !spec.dhcp_option.is_empty()),
            ("lease-time", spec.lease_time.is_some()),
            ("dhcp-port-limit", spec.dhcp_port_limit.is_some()),
        ] {
            if given {
                problems.push(
                    Problem::new(&["network", name.as_str(), key], "DHCP is off in this network")
                        .also(&["network", name.as_str(), "dhcp"])
                        .help(format!("leave {key} out, or dhcp = \"on\"")),
                );
            }
        }
        return None;
    }
    let mut plan = DhcpPlan {
        range: range(name, spec, inside, problems),
        lease_time: spec.lease_time.unwrap_or(DEFAULT_LEASE_TIME),
        port_limit: spec.dhcp_port_limit,
        ntp: Vec::new(),
        tftp: None,
        bootfile: None,
        search: Vec::new(),
        routes: Vec::new(),
    };
    for (option, text) in &spec.dhcp_option {
        let path = ["network", name.as_str(), "dhcp-option", option.as_str()];
        if let Err((rule, help)) = put(&mut plan, option, text) {
            problems.push(Problem::new(&path, rule).text(text).help(help));
        }
    }
    Some(plan)
}

fn put(plan: &mut DhcpPlan, option: &str, text: &str) -> Result<(), (String, String)> {
    let plain = |what: &str| {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if printable && (1..=OPTION_BYTES).contains(&text.len()) {
            Ok(Some(text.to_owned()))
        } else {
            Err((
                format!("{what} is 1 to {OPTION_BYTES} printable characters of ASCII"),
                "shorten it".to_owned(),
            ))
        }
    };
    let too_long = |bytes: usize| {
        let rule = format!("an option has at most {OPTION_BYTES} bytes, and this would be {bytes}");
        (bytes > OPTION_BYTES).then(|| (rule, "name fewer".to_owned()))
    };
    let list = || text.split(',').map(str::trim);
    let bytes = match option {
        "ntp" => {
            let servers: Result<Vec<_>, _> = list().map(host4).collect();
            plan.ntp = servers.map_err(|rule| (rule, "addresses with commas between them".to_owned()))?;
            plan.ntp.len() * 4
        }
        "tftp" => {
            plan.tftp = plain("the name of a server (option 66)")?;
            0
        }
        "bootfile" => {
            plan.bootfile = plain("the name of a boot file (option 67)")?;
            0
        }
        "search" => {
            let domains: Result<Vec<_>, _> = list().map(a_domain).collect();
            plan.search = domains.map_err(|rule| (rule, "domains with commas between them".to_owned()))?;
            // RFC 1035 3.1: a length before each label, and a zero.
            plan.search.iter().map(|domain| domain.len() + 2).sum()
        }
        "routes" => {
            let routes: Result<Vec<_>, _> = list().map(route).collect();
            plan.routes = routes.map_err(|rule| (rule, "as in 10.9.0.0/16 via 10.7.0.5".to_owned()))?;
            // RFC 3442: the length, its significant octets, the router.
            plan.routes.iter().map(|(to, _)| 5 + usize::from(to.len).div_ceil(8)).sum()
        }
        _ => {
            let help = match nearest(option, DHCP_OPTIONS.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("it is {}", one_of(DHCP_OPTIONS)),
            };
            return Err(("there is no such option".to_owned(), help));
        }
    };
    too_long(bytes).map_or(Ok(()), Err)
}

/// `10.9.0.0/16 via 10.7.0.5`
fn route(text: &str) -> Result<(Prefix4, Ipv4Addr), String> {
    let form = || "expected routes like 10.9.0.0/16 via 10.7.0.5, with commas between them".to_owned();
    let mut words = text.split_whitespace();
    let (Some(to), Some("via"), Some(router), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(form());
    };
    let to = prefix4(to).map_err(|_| form())?;
    if to.network() != to.address {
        return Err(format!("bits beyond /{} are set: the network is {}", to.len, to.network()));
    }
    Ok((to, host4(router)?))
}

/// Without one: the whole subnet, but for its own and the broadcast address.
fn range(
    name: &Name,
    spec: &NetworkSpec,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> (Ipv4Addr, Ipv4Addr) {
    let network = inside.network().to_bits();
    let whole = (Ipv4Addr::from_bits(network + 1), Ipv4Addr::from_bits((network | !mask4(inside.len)) - 1));
    let path = ["network", name.as_str(), "dhcp-range"];
    let Some(text) = &spec.dhcp_range else { return whole };
    let Some((first, last)) = taken(&path, text, range4(text), problems) else { return whole };
    let rule = if !is_host4(inside, first) || !is_host4(inside, last) {
        "the range is not within the hosts of the subnet"
    } else if (first, last) == (inside.address, inside.address) {
        "the gateway's own address is not for lease"
    } else {
        return (first, last);
    };
    problems.push(
        Problem::new(&path, rule)
            .text(text)
            .also(&["network", name.as_str(), "subnet"])
            .help(format!("hosts are {} to {}", whole.0, whole.1)),
    );
    whole
}

/// Default: the network's name, as far as it is a domain.
pub(super) fn domain(name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) -> String {
    match &spec.dns {
        Some(text) => {
            let path = ["network", name.as_str(), "dns"];
            taken(&path, text, a_domain(text), problems).unwrap_or_default()
        }
        None => a_domain(name.as_str()).unwrap_or_else(|_| {
            // A name may end with a hyphen or hold two dots in a row.
            let labels = name.as_str().split('.').map(|label| label.trim_matches('-'));
            labels.filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".")
        }),
    }
}

/// Who is asked where the network's own names do not answer. Not ourselves: the gateway's forwarder would
/// wait for its own answer.
pub(super) fn resolvers(
    name: &Name,
    spec: &NetworkSpec,
    (inside, inside6): (Prefix4, Option<Prefix6>),
    problems: &mut Vec<Problem>,
) -> Vec<SocketAddr> {
    let path = ["network", name.as_str(), "resolver"];
    let Some(text) = &spec.resolver else { return Vec::new() };
    let servers: Result<Vec<_>, _> = text.split(',').map(|text| server(text.trim())).collect();
    let servers = taken(&path, text, servers, problems).unwrap_or_default();
    if servers.len() > MAX_RESOLVERS {
        let rule = format!("there are at most {MAX_RESOLVERS} name servers, these are {}", servers.len());
        problems.push(Problem::new(&path, rule).text(text));
    }
    let own = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => v4 == inside.address,
        IpAddr::V6(v6) => inside6.is_some_and(|inside6| v6 == inside6.address),
    };
    if let Some(gateway) = servers.iter().map(SocketAddr::ip).find(|&address| own(address)) {
        let rule = format!("{gateway} is the gateway of this network: its forwarder would ask itself");
        problems.push(
            Problem::new(&path, rule)
                .text(text)
                .help("name a server outside, or leave resolver out for those of the host's resolv.conf"),
        );
    }
    servers
}
