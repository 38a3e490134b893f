//! The graph of networks, ports, uplinks and mirrors: Graphviz, a picture, or text.

use std::collections::BTreeMap;
use switchd_api::reply::{State, Topology};

pub fn dot(graph: &Topology) -> String {
    let mut text = String::from("graph switchd {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    for node in &graph.nodes {
        let shape = match node.kind.as_str() {
            "network" => "ellipse",
            "file" => "note",
            "mirror" => "diamond",
            _ => "box",
        };
        let style = if node.state == State::Up { "solid" } else { "dashed" };
        text += &format!("  {:?} [label={:?} shape={shape} style={style}];\n", node.id, node.label);
    }
    for link in &graph.links {
        text += &format!("  {:?} -- {:?} [label={:?}];\n", link.from, link.to, link.label);
    }
    text + "}\n"
}

/// Indented text: each network with what stands on it.
pub fn text(graph: &Topology) -> String {
    let label: BTreeMap<_, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut text = String::new();
    for node in graph.nodes.iter().filter(|node| node.kind == "network" || node.kind == "mirror") {
        text += &format!("{} {}{}\n", node.kind, node.label, mark(node.state));
        for link in graph.links.iter().filter(|link| link.from == node.id || link.to == node.id) {
            let other = if link.from == node.id { &link.to } else { &link.from };
            if let Some(other) =
                label.get(other).filter(|other| node.kind == "mirror" || other.kind != "mirror")
            {
                let note = if link.label.is_empty() { String::new() } else { format!(" ({})", link.label) };
                text += &format!("  ├ {} {}{note}{}\n", other.kind, other.label, mark(other.state));
            }
        }
    }
    if text.is_empty() { "no networks\n".to_owned() } else { text }
}

fn mark(state: State) -> &'static str {
    if state == State::Up { "" } else { " [down]" }
}

const ROW: usize = 44;
const BOX: (usize, usize) = (190, 30);

/// A plain picture: uplinks and files on the left, networks and mirrors in the middle, ports on the right.
pub fn svg(graph: &Topology) -> String {
    let column = |kind: &str| match kind {
        "network" | "mirror" => 1,
        "port" => 2,
        _ => 0,
    };
    let mut next = [0usize; 3];
    let mut place = BTreeMap::new();
    for node in &graph.nodes {
        let column = column(&node.kind);
        place.insert(&node.id, (30 + column * 300, 30 + next[column] * ROW));
        next[column] += 1;
    }
    let height = 60 + ROW * next.iter().max().copied().unwrap_or(1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"860\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for link in &graph.links {
        if let (Some(from), Some(to)) = (place.get(&link.from), place.get(&link.to)) {
            let ((x1, y1), (x2, y2)) = (middle(*from), middle(*to));
            let (lx, ly) = ((x1 + x2) / 2, (y1 + y2) / 2 - 3);
            text += &format!(
                "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#888\"/>\
                 <text x=\"{lx}\" y=\"{ly}\" fill=\"#555\" text-anchor=\"middle\">{}</text>\n",
                escape(&link.label)
            );
        }
    }
    for node in &graph.nodes {
        let (x, y) = place[&node.id];
        let fill = match (node.state, node.kind.as_str()) {
            (State::Down, _) => "#f3d0d0",
            (_, "network") => "#cfe3f7",
            (_, "mirror" | "file") => "#eee3c7",
            _ => "#d8eed3",
        };
        let radius = if node.kind == "network" { 15 } else { 3 };
        text += &format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"{radius}\" fill=\"{fill}\" stroke=\"#444\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            BOX.0,
            BOX.1,
            x + BOX.0 / 2,
            y + 19,
            escape(&node.label)
        );
    }
    text + "</svg>\n"
}

fn middle((x, y): (usize, usize)) -> (usize, usize) {
    (x + BOX.0 / 2, y + BOX.1 / 2)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_api::reply::{TopologyLink, TopologyNode};

    fn graph() -> Topology {
        let node = |id: &str, kind: &str| TopologyNode {
            id: id.into(),
            kind: kind.into(),
            label: format!("<{id}>"),
            state: State::Up,
        };
        Topology {
            nodes: vec![node("network:lab", "network"), node("port:vm1", "port")],
            links: vec![TopologyLink {
                from: "network:lab".into(),
                to: "port:vm1".into(),
                label: "vm1.0".into(),
            }],
        }
    }

    #[test]
    fn every_form_names_every_node_and_svg_is_escaped() {
        let graph = graph();
        assert!(dot(&graph).contains("\"network:lab\" -- \"port:vm1\""));
        assert!(text(&graph).contains("├ port <port:vm1> (vm1.0)"));
        let picture = svg(&graph);
        assert!(picture.contains("&lt;port:vm1&gt;") && !picture.contains("<port"));
    }
}
