//! Mirrors: sources, targets, no loops, no file twice.

use super::super::keys::range;
use super::super::problem::{Problem, one_of};
use super::super::value::{size, time};
use super::super::{DEFAULT_SNAPLEN, MAX_SOURCES};
use super::network::in_range;
use super::scope::Scope;
use super::{MirrorPlan, Rotation, Source, Target, instead};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use switchd_api::model::{Desired, MirrorSpec};
use switchd_api::name::Name;

/// Bytes of a filter expression.
const MAX_FILTER: usize = 4096;

pub(super) fn mirrors(
    scope: Scope<'_>,
    capture_dir: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Name, MirrorPlan> {
    let desired = scope.desired;
    let mut plans: BTreeMap<Name, MirrorPlan> = BTreeMap::new();
    for (name, spec) in scope.mirrors() {
        let sources = sources(desired, name, spec, problems);
        let to = target(desired, capture_dir, name, spec, problems);
        let rotation = rotation(name, spec, problems);
        in_range(
            &["mirror", name.as_str(), "snaplen"],
            spec.snaplen.map(u64::from),
            range::SNAPLEN,
            problems,
        );
        filter(name, spec, problems);
        let Some(to) = to else { continue };
        match &to {
            Target::Capture(file) => {
                if let Some((other, _)) = plans.iter().find(|(_, plan)| plan.to == to) {
                    problems.push(
                        Problem::new(
                            &["mirror", name.as_str(), "to"],
                            format!("mirror {other} writes {} already", file.display()),
                        )
                        .text(&spec.to)
                        .also(&["mirror", other.as_str(), "to"])
                        .help("give each mirror a file of its own")
                        .conflict(),
                    );
                }
            }
            Target::Port(_) => only_for_files(name, spec, problems),
        }
        let plan = MirrorPlan {
            sources,
            direction: spec.direction,
            to,
            filter: spec.filter.clone(),
            snaplen: spec.snaplen.unwrap_or(DEFAULT_SNAPLEN),
            segment: spec.segment,
            rotation,
        };
        plans.insert(name.clone(), plan);
    }
    loops(desired, &plans, problems);
    plans
}

fn sources(desired: &Desired, name: &Name, spec: &MirrorSpec, problems: &mut Vec<Problem>) -> Vec<Source> {
    let whole = ["mirror", name.as_str(), "source"];
    if spec.source.is_empty() || spec.source.len() > MAX_SOURCES {
        let rule = format!("a mirror has 1 to {MAX_SOURCES} sources");
        problems.push(Problem::new(&whole, rule).number(spec.source.len()).help(SOURCE_FORM));
        return Vec::new();
    }
    let mut sources = Vec::new();
    for (index, text) in spec.source.iter().enumerate() {
        let index = index.to_string();
        let path = ["mirror", name.as_str(), "source", index.as_str()];
        match source(desired, text, &path) {
            Ok(source) if sources.contains(&source) => {
                problems.push(Problem::new(&path, "this source is named twice").text(text));
            }
            Ok(source) => sources.push(source),
            Err(problem) => problems.push(problem),
        }
    }
    sources
}

const SOURCE_FORM: &str = "write port:NAME, port:uplink:IFNAME, network:NAME or bond:NAME";

fn source(desired: &Desired, text: &str, path: &[&str]) -> Result<Source, Problem> {
    let missing = |section: &str, word: &str, names: Vec<&str>| {
        Problem::new(path, format!("there is no such {section}"))
            .text(text)
            .help(instead(section, word, names))
            .not_found()
    };
    if let Some(ifname) = text.strip_prefix("port:uplink:") {
        let mut uplinks =
            desired.network.values().flat_map(|spec| [spec.uplink.as_deref(), spec.egress.as_deref()]);
        if uplinks.any(|uplink| uplink == Some(ifname)) && ifname != "host" {
            return Ok(Source::Uplink(ifname.to_owned()));
        }
        return Err(Problem::new(path, "no network has this uplink").text(text).not_found());
    }
    // What `port list` shows beside them.
    let other = |rule: &str, help: String| Err(Problem::new(path, rule).text(text).help(help));
    if let Some(network) = text.strip_prefix("port:gateway:").or(text.strip_prefix("port:egress:")) {
        return other(
            "a gateway is no port that can be watched",
            format!("network:{network} has the guests' side; port:uplink:IF or bond:NAME what goes out"),
        );
    }
    if text.starts_with("port:member:") {
        return other("a member is watched with its bond", "bond:NAME".to_owned());
    }
    match text.split_once(':') {
        Some(("port", word)) => match desired.port.get_key_value(word) {
            Some((name, _)) => Ok(Source::Port(name.clone())),
            None => Err(missing("port", word, desired.port.keys().map(Name::as_str).collect())),
        },
        Some(("network", word)) => match desired.network.get_key_value(word) {
            Some((name, _)) => Ok(Source::Network(name.clone())),
            None => Err(missing("network", word, desired.network.keys().map(Name::as_str).collect())),
        },
        Some(("bond", word)) => match desired.bond.get_key_value(word) {
            Some((name, _)) => Ok(Source::Bond(name.clone())),
            None => Err(missing("bond", word, desired.bond.keys().map(Name::as_str).collect())),
        },
        _ => Err(Problem::new(path, "expected port:NAME, network:NAME or bond:NAME")
            .text(text)
            .help(SOURCE_FORM)),
    }
}

fn target(
    desired: &Desired,
    capture_dir: &Path,
    name: &Name,
    spec: &MirrorSpec,
    problems: &mut Vec<Problem>,
) -> Option<Target> {
    let path = ["mirror", name.as_str(), "to"];
    let found = match spec.to.split_once(':') {
        Some(("pcap", file)) => capture_path(file, capture_dir).map(Target::Capture).map_err(|rule| {
            Problem::new(&path, rule)
                .text(&spec.to)
                .help(format!("a path relative to the capture directory {}", capture_dir.display()))
        }),
        Some(("port", word)) => match desired.port.get_key_value(word) {
            Some((name, _)) => Ok(Target::Port(name.clone())),
            None => Err(Problem::new(&path, "there is no such port")
                .text(&spec.to)
                .help(instead("port", word, desired.port.keys().map(Name::as_str)))
                .not_found()),
        },
        _ => Err(Problem::new(&path, "expected pcap:FILE or port:NAME").text(&spec.to)),
    };
    found.map_err(|problem| problems.push(problem)).ok()
}

/// The path relative to the capture directory, without `.`, `..` and doubled slashes.
fn capture_path(text: &str, capture_dir: &Path) -> Result<PathBuf, String> {
    if text.is_empty() || text.len() > 1024 {
        return Err("a capture file's path has 1 to 1024 bytes".into());
    }
    if text.chars().any(char::is_control) {
        return Err("a path has no control characters".into());
    }
    if text.ends_with('/') {
        return Err("this is a folder, not a file".into());
    }
    let path = Path::new(text);
    let relative = if path.is_absolute() {
        path.strip_prefix(capture_dir)
            .map_err(|_| "an absolute path must lie beneath the capture directory".to_owned())?
    } else {
        path
    };
    let mut clean = PathBuf::new();
    for component in relative.components() {
        match component {
            Component::Normal(part) if part.len() <= 255 => clean.push(part),
            Component::Normal(_) => return Err("a file or folder name has at most 255 bytes".into()),
            Component::CurDir => {}
            _ => return Err("a path has no .. in it".into()),
        }
    }
    if clean.as_os_str().is_empty() {
        return Err("this is a folder, not a file".into());
    }
    Ok(clean)
}

fn rotation(name: &Name, spec: &MirrorSpec, problems: &mut Vec<Problem>) -> Rotation {
    let mut read = |key, text: &Option<String>, parse: fn(&str) -> Result<u64, String>| {
        let text = text.as_deref()?;
        parse(text)
            .map_err(|rule| problems.push(Problem::new(&["mirror", name.as_str(), key], rule).text(text)))
            .ok()
    };
    let size = read("rotate-size", &spec.rotate_size, size);
    let time = read("rotate-time", &spec.rotate_time, time);
    let path = ["mirror", name.as_str(), "rotate-count"];
    in_range(&path, spec.rotate_count.map(u64::from), range::FILES, problems);
    if let (Some(count), None, None) = (spec.rotate_count, &spec.rotate_size, &spec.rotate_time) {
        problems.push(
            Problem::new(&path, "there is nothing to count without rotate-size or rotate-time")
                .number(count)
                .help("give rotate-size or rotate-time too"),
        );
    }
    Rotation { size, time, count: spec.rotate_count }
}

/// Whether the expression compiles is seen when the mirror starts.
fn filter(name: &Name, spec: &MirrorSpec, problems: &mut Vec<Problem>) {
    let Some(text) = &spec.filter else { return };
    let path = ["mirror", name.as_str(), "filter"];
    if text.len() > MAX_FILTER {
        let rule = format!("a filter has at most {MAX_FILTER} bytes");
        problems.push(Problem::new(&path, rule).number(format_args!("of {} bytes", text.len())));
    } else if text.chars().any(char::is_control) {
        problems.push(Problem::new(&path, "a filter has no control characters").text(text));
    }
}

/// A port gets whole frames as they are.
fn only_for_files(name: &Name, spec: &MirrorSpec, problems: &mut Vec<Problem>) {
    let set = [
        ("snaplen", spec.snaplen.is_some()),
        ("segment", spec.segment),
        ("rotate-size", spec.rotate_size.is_some()),
        ("rotate-time", spec.rotate_time.is_some()),
        ("rotate-count", spec.rotate_count.is_some()),
    ];
    for (key, _) in set.iter().filter(|(_, set)| *set) {
        problems.push(
            Problem::new(&["mirror", name.as_str(), key], "this is only for a mirror to a file")
                .help(format!("leave {key} out, or mirror to pcap:FILE")),
        );
    }
}

/// A mirror's target must not be mirrored back to itself: not by being among the mirror's own sources, and
/// not by way of other mirrors. A network as a source makes no loop: a target takes no part in its network.
fn loops(desired: &Desired, plans: &BTreeMap<Name, MirrorPlan>, problems: &mut Vec<Problem>) {
    let mut next: BTreeMap<&Name, Vec<(&Name, &Name)>> = BTreeMap::new();
    for (mirror, plan) in plans {
        if let Target::Port(to) = &plan.to {
            for source in &plan.sources {
                if let Source::Port(from) = source {
                    next.entry(from).or_default().push((to, mirror));
                }
            }
        }
    }
    for (name, plan) in plans {
        let Target::Port(target) = &plan.to else { continue };
        let own: Vec<&Name> = plan
            .sources
            .iter()
            .filter_map(|source| match source {
                Source::Port(port) => Some(port),
                _ => None,
            })
            .collect();
        let path = ["mirror", name.as_str(), "to"];
        if own.contains(&target) {
            problems.push(
                Problem::new(&path, "the target is among the mirror's own sources")
                    .text(&desired.mirror[name].to)
                    .also(&["mirror", name.as_str(), "source"])
                    .help("mirror to another port"),
            );
            continue;
        }
        // Everything that copies sent to the target would reach.
        let mut seen = BTreeSet::from([target]);
        let mut through = BTreeSet::new();
        let mut queue = vec![target];
        while let Some(port) = queue.pop() {
            for &(to, mirror) in next.get(port).into_iter().flatten() {
                through.insert(mirror.as_str());
                if seen.insert(to) {
                    queue.push(to);
                }
            }
        }
        if own.iter().any(|port| seen.contains(port)) {
            through.remove(name.as_str());
            let through: Vec<&str> = through.into_iter().collect();
            problems.push(
                Problem::new(&path, format!("copies would come round again by mirror {}", one_of(&through)))
                    .text(&desired.mirror[name].to)
                    .help("delete one of the mirrors, or mirror to another port")
                    .conflict(),
            );
        }
    }
}
