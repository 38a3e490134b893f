//! The graph of networks, ports, uplinks and mirrors: Graphviz, a picture, or text.

use crate::render::harmless;
use std::collections::BTreeMap;
use switchd_api::reply::{State, Topology};

pub fn dot(graph: &Topology) -> String {
    let mut text = String::from("graph switchd {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    for node in &graph.nodes {
        let shape = match node.kind.as_str() {
            "network" => "ellipse",
            "file" => "note",
            "mirror" => "diamond",
            "bond" => "hexagon",
            "host" => "house",
            _ => "box",
        };
        let style = if node.state == State::Up { "solid" } else { "dashed" };
        let (id, label) = (quoted(&node.id), quoted(&node.label));
        text += &format!("  {id} [label={label} shape={shape} style={style}];\n");
    }
    for link in &graph.links {
        let (from, to, label) = (quoted(&link.from), quoted(&link.to), quoted(&link.label));
        text += &format!("  {from} -- {to} [label={label}];\n");
    }
    text + "}\n"
}

/// A string of the DOT language: only quote and backslash are special in it.
fn quoted(text: &str) -> String {
    let text = harmless(text).replace('\n', " ").replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

/// Indented text: each network, bond and mirror with what stands on it.
pub fn text(graph: &Topology) -> String {
    let nodes: BTreeMap<_, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut text = String::new();
    for node in graph.nodes.iter().filter(|node| matches!(&*node.kind, "network" | "bond" | "mirror")) {
        text += &format!("{} {}{}\n", node.kind, node.label, mark(node.state));
        let linked = graph.links.iter().filter_map(|link| {
            let other = match (&link.from, &link.to) {
                (from, to) if *from == node.id => to,
                (from, to) if *to == node.id => from,
                _ => return None,
            };
            let other = nodes.get(other).filter(|other| node.kind == "mirror" || other.kind != "mirror")?;
            Some((other, &link.label))
        });
        let mut linked = linked.peekable();
        while let Some((other, label)) = linked.next() {
            let branch = if linked.peek().is_some() { '├' } else { '└' };
            let note = if label.is_empty() { String::new() } else { format!(" ({label})") };
            text += &format!("  {branch} {} {}{note}{}\n", other.kind, other.label, mark(other.state));
        }
    }
    if text.is_empty() { "no networks\n".to_owned() } else { harmless(&text) }
}

fn mark(state: State) -> &'static str {
    if state == State::Up { "" } else { " [down]" }
}

const ROW: usize = 44;
const BOX: (usize, usize) = (190, 30);

const COLUMN: usize = 260;
/// Longer labels are cut, and stand whole in the tool tip.
const LABEL: usize = 28;

/// A plain picture, from left to right: members of bonds, bonds and uplinks, networks, ports, mirrors, files.
pub fn svg(graph: &Topology) -> String {
    let column = |kind: &str| match kind {
        "member" => 0,
        "network" => 2,
        "port" => 3,
        "mirror" => 4,
        "file" => 5,
        _ => 1,
    };
    // Without bonds there is no column of members.
    let left = usize::from(!graph.nodes.iter().any(|node| node.kind == "member"));
    let column = |kind: &str| column(kind) - left;
    let mut next = [0usize; 6];
    let mut place = BTreeMap::new();
    for node in &graph.nodes {
        let column = column(&node.kind);
        place.insert(&node.id, (30 + column * COLUMN, 30 + next[column] * ROW));
        next[column] += 1;
    }
    let height = 60 + ROW * next.iter().max().copied().unwrap_or(1);
    let columns = next.iter().rposition(|&count| count > 0).map_or(1, |last| last + 1);
    let width = 60 + BOX.0 + (columns - 1) * COLUMN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
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
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}<title>{}</title></text>\n",
            BOX.0,
            BOX.1,
            x + BOX.0 / 2,
            y + 19,
            escape(&short(&node.label)),
            escape(&node.label)
        );
    }
    text + "</svg>\n"
}

fn middle((x, y): (usize, usize)) -> (usize, usize) {
    (x + BOX.0 / 2, y + BOX.1 / 2)
}

/// The end of a path says more than its beginning.
fn short(label: &str) -> String {
    let length = label.chars().count();
    if length <= LABEL {
        return label.to_owned();
    }
    if label.starts_with('/') {
        let end: String = label.chars().skip(length - LABEL + 1).collect();
        return format!("…{end}");
    }
    label.chars().take(LABEL - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    harmless(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
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
        assert!(text(&graph).contains("└ port <port:vm1> (vm1.0)"));
        let picture = svg(&graph);
        assert!(picture.contains("&lt;port:vm1&gt;") && !picture.contains("<port"));
    }

    #[test]
    fn odd_bytes_break_no_form() {
        let mut graph = graph();
        graph.nodes[1].label = "a\"b\\c\x1b[31m".into();
        let (dot, picture) = (dot(&graph), svg(&graph));
        assert!(dot.contains(r#"label="a\"b\\c\\u{1b}[31m""#), "{dot}");
        for form in [&dot, &picture, &text(&graph)] {
            assert!(!form.contains('\x1b'), "{form}");
        }
    }

    #[test]
    fn long_labels_are_cut_in_the_picture() {
        assert_eq!(short("lab (isolated)"), "lab (isolated)");
        assert_eq!(
            short("/var/lib/switchd/captures/long/name.pcapng"),
            "…captures/long/name.pcapng".replace("…", "…d/")
        );
        assert!(short(&"é".repeat(40)).chars().count() == LABEL);
    }
}
