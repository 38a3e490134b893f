//! The picture: networks with their ports, uplinks, bonds with their members, the host, mirrors and files.

use super::Engine;
use super::target::{TapeTo, uplink_port};
use switchd_api::reply::{ErrorBody, State, Topology, TopologyLink, TopologyNode};

impl Engine {
    pub fn topology(&self) -> Result<Topology, ErrorBody> {
        let mut picture = Topology::default();
        let mut node = |id: String, kind: &str, label: String, state: State| {
            picture.nodes.push(TopologyNode { id, kind: kind.to_owned(), label, state });
        };
        let (mut links, mut has_host) = (Vec::new(), false);
        let mut link = |from: String, to: String, label: String| {
            links.push(TopologyLink { from, to, label });
        };
        for network in self.networks()? {
            let kind = match network.spec.kind {
                switchd_api::Kind::Bridged => "bridged",
                switchd_api::Kind::Isolated => "isolated",
                switchd_api::Kind::Nat => "nat",
            };
            let name = &network.name;
            node(format!("network:{name}"), "network", format!("{name} ({kind})"), network.state);
            if let Some(interface) = &network.spec.uplink {
                let label = network.spec.vlan.map_or("untagged".to_owned(), |vlan| format!("VLAN {vlan}"));
                link(format!("network:{name}"), format!("port:{}", uplink_port(interface)), label);
            }
            if let Some(nat) = &network.nat {
                let (to, label) = match &nat.outside {
                    None => ("host".to_owned(), "sockets of the host".to_owned()),
                    Some(outside) => {
                        let vlan = network.spec.vlan.map(|vlan| format!("VLAN {vlan}"));
                        let words: Vec<String> = vlan.into_iter().chain(outside.address.clone()).collect();
                        (format!("port:{}", outside.uplink), words.join(", "))
                    }
                };
                has_host |= nat.outside.is_none();
                link(format!("network:{name}"), to, label);
            }
        }
        if has_host {
            node("host".to_owned(), "host", "the host".to_owned(), State::Up);
        }
        let stations = ["gateway", "egress"];
        for port in self.ports()?.into_iter().filter(|port| !stations.contains(&port.backend.as_str())) {
            let interface = port.spec.tap.as_deref().or(port.spec.netdev.as_deref());
            let interface = interface.or(port.spec.vhost_user.as_deref()).unwrap_or_default();
            let place = port.spec.netns.as_ref().map(|netns| format!(" in {netns}")).unwrap_or_default();
            let id = format!("port:{}", port.name);
            if let "uplink" | "bond" = port.backend.as_str() {
                node(id, &port.backend, interface.to_owned(), port.state);
            } else if port.backend == "member" {
                if let Some((bond, _)) = self.standing.bond_of(interface) {
                    link(format!("port:{}", uplink_port(bond)), id.clone(), String::new());
                }
                node(id, "member", interface.to_owned(), port.state);
            } else {
                let label = format!("{} ({} {interface}{place})", port.name, port.backend);
                link(
                    id.clone(),
                    format!("network:{}", port.spec.network),
                    port.spec.vlan.unwrap_or_default(),
                );
                node(id, "port", label, port.state);
            }
        }
        for mirror in self.mirrors()? {
            let running = if mirror.state == "running" { State::Up } else { State::Down };
            let id = format!("mirror:{}", mirror.name);
            let Some(tape) = self.target.mirrors.get(mirror.name.as_str()) else { continue };
            node(id.clone(), "mirror", mirror.name.to_string(), running);
            let sources = tape.ports.iter().map(|(port, wanted)| (format!("port:{port}"), wanted));
            let networks = tape.networks.iter().map(|(name, wanted)| (format!("network:{name}"), wanted));
            for (source, wanted) in sources.chain(networks) {
                let label = match (wanted.rx, wanted.tx) {
                    (true, true) => "rx, tx",
                    (true, false) => "rx",
                    (false, _) => "tx",
                };
                link(source, id.clone(), label.to_owned());
            }
            match &tape.to {
                TapeTo::Port(port) => link(id, format!("port:{port}"), "copies".to_owned()),
                TapeTo::File(file) => {
                    let to = format!("file:{}", file.path);
                    let label = mirror.file.unwrap_or_else(|| file.path.clone());
                    node(to.clone(), "file", label, running);
                    link(id, to, "writes".to_owned());
                }
            }
        }
        picture.links = links;
        Ok(picture)
    }
}
