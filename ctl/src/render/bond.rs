//! Bonds and their members.

use super::{grid, harmless, one_line, or_dash, state, word};
use switchd_api::reply::{BondStatus, LacpSystem, MemberStatus, NeighborRow};

fn in_use(bond: &BondStatus) -> String {
    let used = bond.links.iter().filter(|link| link.distributing).count();
    format!("{used}/{}", bond.links.len())
}

fn system(system: Option<&LacpSystem>) -> String {
    or_dash(system.map(|system| format!("{} key {}", system.system, system.key)))
}

pub fn bonds(list: &[BondStatus], wide: bool) -> String {
    let mut header = vec!["NAME", "MODE", "STATE", "MEMBERS", "NETWORKS"];
    if wide {
        header.extend(["HASH", "SYSTEM", "PARTNER", "OUT", "WORKER"]);
    }
    let rows = list.iter().map(|bond| {
        let mut row = vec![
            bond.name.to_string(),
            word(&bond.spec.mode),
            state(bond.state, bond.reason.as_deref()),
            in_use(bond),
            if bond.networks.is_empty() { "-".to_owned() } else { bond.networks.join(",") },
        ];
        if wide {
            let out: Vec<String> = bond.links.iter().filter(|link| !link.distributing).map(why).collect();
            row.push(bond.spec.hash.clone().unwrap_or_else(|| "layer3+4".to_owned()));
            row.push(system(bond.actor_system.as_ref()));
            row.push(system(bond.partner_system.as_ref()));
            row.push(if out.is_empty() { "-".to_owned() } else { out.join("; ") });
            row.push(bond.worker.to_string());
        }
        row
    });
    grid(&header, rows)
}

/// `p2: out — partner key 7 ≠ 5`
fn why(link: &MemberStatus) -> String {
    let interface = &link.interface;
    let reason = link.reason.as_deref();
    match (link.collecting, link.distributing) {
        (_, true) => format!("{interface}: in"),
        (true, false) => format!("{interface}: receives only — {}", reason.unwrap_or("not distributing yet")),
        (false, false) => match reason {
            Some(reason) => format!("{interface}: out — {reason}"),
            None if !link.carrier => format!("{interface}: out — no carrier"),
            None => format!("{interface}: out"),
        },
    }
}

fn neighbor(row: &NeighborRow) -> String {
    let name = if row.system_name.is_empty() { &row.chassis } else { &row.system_name };
    format!("{name} port {}", row.port)
}

/// The first neighbour, in a table of ports.
pub fn neighbor_of(list: &[NeighborRow]) -> String {
    match list {
        [] => "-".to_owned(),
        [one] => neighbor(one),
        [one, more @ ..] => format!("{} and {} more", neighbor(one), more.len()),
    }
}

/// One bond: a head, its members, and with `wide` each member in words.
pub fn bond(bond: &BondStatus, wide: bool) -> String {
    let spec = &bond.spec;
    let mut head = vec![
        ("name", bond.name.to_string()),
        ("state", state(bond.state, bond.reason.as_deref())),
        ("mode", word(&spec.mode)),
        ("members in use", in_use(bond)),
        ("min-links", spec.min_links.unwrap_or(1).to_string()),
        ("networks", if bond.networks.is_empty() { "-".to_owned() } else { bond.networks.join(", ") }),
    ];
    let given = [
        ("lacp", spec.lacp.clone()),
        ("rate", spec.rate.clone()),
        ("hash", spec.hash.clone()),
        ("prefer", spec.prefer.clone()),
        ("fallback", spec.fallback.clone()),
        ("system-priority", spec.system_priority.map(|number| number.to_string())),
        ("peer", spec.peer.clone()),
        ("peer-id", spec.peer_id.map(|number| number.to_string())),
        ("peer state", bond.peer_state.clone()),
    ];
    head.extend(given.into_iter().filter_map(|(key, value)| Some((key, value?))));
    if bond.actor_system.is_some() {
        head.push(("system", system(bond.actor_system.as_ref())));
        let partner = bond.partner_system.as_ref();
        head.push(("partner", partner.map_or_else(|| "none".to_owned(), |partner| system(Some(partner)))));
    }
    let width = head.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text = head
        .iter()
        .fold(String::new(), |all, (key, value)| all + &format!("{key:<width$}  {}\n", one_line(value)));
    let rows = bond.links.iter().map(|link| {
        let c = &link.counters;
        let drops = c.dropped_in.values().sum::<u64>() + c.dropped_out.values().sum::<u64>();
        let shown = match (link.collecting, link.distributing) {
            (_, true) => "in".to_owned(),
            (true, false) => "receives".to_owned(),
            (false, false) => match &link.reason {
                Some(reason) => format!("out: {reason}"),
                None => "out".to_owned(),
            },
        };
        vec![
            link.interface.clone(),
            shown,
            if link.carrier { "yes" } else { "no" }.to_owned(),
            c.rx_frames.to_string(),
            c.tx_frames.to_string(),
            drops.to_string(),
            neighbor_of(&link.neighbors),
        ]
    });
    text += "\n";
    text += &grid(&["MEMBER", "STATE", "CARRIER", "RX", "TX", "DROPS", "NEIGHBOR"], rows);
    if wide {
        for link in &bond.links {
            text += &format!("\n{}\n", one_line(&why(link)));
            let mut lines: Vec<(&str, String)> =
                link.machines.iter().map(|(machine, state)| (machine.as_str(), state.clone())).collect();
            lines.extend(link.actor.clone().map(|bits| ("actor", bits)));
            lines.extend(link.partner.clone().map(|bits| ("partner", bits)));
            lines.extend(link.protocol.iter().map(|(key, count)| (key.as_str(), count.to_string())));
            let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
            for (key, value) in lines {
                text += &format!("  {key:<width$}  {}\n", one_line(&value));
            }
        }
    }
    harmless(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_api::reply::{PortCounters, State};

    fn link(interface: &str, reason: Option<&str>) -> MemberStatus {
        MemberStatus {
            interface: interface.into(),
            carrier: true,
            collecting: reason.is_none(),
            distributing: reason.is_none(),
            reason: reason.map(str::to_owned),
            machines: [("mux".to_owned(), "DISTRIBUTING".to_owned())].into(),
            actor: None,
            partner: None,
            protocol: [("lacpdu-rx".to_owned(), 7)].into(),
            counters: PortCounters::default(),
            neighbors: vec![NeighborRow { chassis: "c".into(), port: "7".into(), ..NeighborRow::default() }],
        }
    }

    fn status() -> BondStatus {
        BondStatus {
            name: "bond0".parse().unwrap(),
            spec: serde_json::from_str(r#"{"members":["p1","p2"],"mode":"lacp"}"#).unwrap(),
            state: State::Up,
            reason: None,
            networks: vec!["office".into()],
            worker: 0,
            actor_system: Some(LacpSystem { system: "02:00:00:00:00:01".into(), key: 5 }),
            partner_system: None,
            links: vec![link("p1", None), link("p2", Some("partner key 7 ≠ 5"))],
            peer_state: None,
        }
    }

    #[test]
    fn wide_says_in_words_why_a_member_is_out() {
        let text = bond(&status(), true);
        assert!(text.contains("\np2: out — partner key 7 ≠ 5\n") && text.contains("\np1: in\n"), "{text}");
        assert!(text.contains("  mux        DISTRIBUTING\n") && text.contains("  lacpdu-rx  7\n"), "{text}");
        let narrow = bond(&status(), false);
        assert!(narrow.contains("out: partner key 7 ≠ 5") && !narrow.contains("lacpdu"), "{narrow}");
        assert!(narrow.contains("members in use  1/2\n") && narrow.contains("c port 7"), "{narrow}");
        assert!(bonds(&[status()], true).contains("p2: out — partner key 7 ≠ 5"));
    }

    #[test]
    fn a_half_open_member_and_a_silent_reason_have_words_too() {
        let mut half = link("p1", Some("partner does not collect"));
        half.collecting = true;
        assert_eq!(why(&half), "p1: receives only — partner does not collect");
        let mut dark = link("p1", None);
        (dark.collecting, dark.distributing, dark.carrier) = (false, false, false);
        assert_eq!(why(&dark), "p1: out — no carrier");
    }
}
