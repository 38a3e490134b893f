//! Steps in words, for `--dry-run` and `diff`: one change an object, each key with its old and new value.

use super::plan::Step;
use std::collections::BTreeMap;
use switchd_api::reply::Change;

#[derive(Default)]
struct Object {
    old: Option<Keys>,
    new: Option<Keys>,
    /// Changed without being made anew.
    in_place: bool,
    entries: BTreeMap<String, (Option<String>, Option<String>)>,
}

type Keys = serde_json::Map<String, serde_json::Value>;

/// In the order network, bond, port, mirror, each by name. An object that is only interrupted, because something
/// that it hangs on is made anew, is told as changed too.
pub fn changes(steps: &[Step]) -> Vec<Change> {
    let mut objects: BTreeMap<(u8, &str), Object> = BTreeMap::new();
    for step in steps {
        match step {
            Step::DeleteMirror { name, spec } => {
                objects.entry((3, name.as_str())).or_default().old = keys(spec)
            }
            Step::CreateMirror { name, spec } => {
                objects.entry((3, name.as_str())).or_default().new = keys(spec)
            }
            Step::DeleteBond { name, spec } => {
                objects.entry((1, name.as_str())).or_default().old = keys(spec)
            }
            Step::CreateBond { name, spec } => {
                objects.entry((1, name.as_str())).or_default().new = keys(spec)
            }
            Step::SetBond { name, old, new } => {
                let object = objects.entry((1, name.as_str())).or_default();
                (object.old, object.new, object.in_place) = (keys(old), keys(new), true);
            }
            Step::DetachPort { name, spec, .. } => {
                objects.entry((2, name.as_str())).or_default().old = keys(spec)
            }
            Step::AttachPort { name, spec } => {
                objects.entry((2, name.as_str())).or_default().new = keys(spec)
            }
            Step::DeleteNetwork { name, spec, .. } => {
                objects.entry((0, name.as_str())).or_default().old = keys(spec);
            }
            Step::CreateNetwork { name, spec } => {
                objects.entry((0, name.as_str())).or_default().new = keys(spec);
            }
            Step::SetNetwork { name, old, new } => {
                let object = objects.entry((0, name.as_str())).or_default();
                (object.old, object.new, object.in_place) = (keys(old), keys(new), true);
            }
            Step::SetPort { name, old, new } => {
                let object = objects.entry((2, name.as_str())).or_default();
                (object.old, object.new, object.in_place) = (keys(old), keys(new), true);
            }
            Step::DeleteStatic { network, key, port } => {
                let object = objects.entry((0, network.as_str())).or_default();
                object.entries.entry(key.clone()).or_default().0 = Some(port.clone());
            }
            Step::AddStatic { network, key, port } => {
                let object = objects.entry((0, network.as_str())).or_default();
                object.entries.entry(key.clone()).or_default().1 = Some(port.clone());
            }
        }
    }
    objects.into_iter().filter_map(|((section, name), object)| change(section, name, object)).collect()
}

fn change(section: u8, name: &str, object: Object) -> Option<Change> {
    let section = ["network", "bond", "port", "mirror"][usize::from(section)];
    let action = match (&object.old, &object.new) {
        (None, Some(_)) => "create",
        (Some(_), None) => "delete",
        _ => "change",
    };
    let mut details = Vec::new();
    if action != "delete" {
        let empty = Keys::new();
        let old = object.old.as_ref().unwrap_or(&empty);
        let new = object.new.as_ref().unwrap_or(&empty);
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in names {
            let (was, is) = (old.get(key), new.get(key));
            if was != is {
                details.push(detail(action, key, was.map(shown), is.map(shown)));
            }
        }
        for (key, (was, is)) in object.entries {
            if was != is {
                details.push(detail(action, &format!("fdb {key}"), was, is));
            }
        }
        if action == "change" && object.old.is_some() && !object.in_place {
            details.push("made anew: its traffic is interrupted".to_owned());
        }
        // A static entry that only makes way for its port's return is no change of the network.
        if action == "change" && details.is_empty() {
            return None;
        }
    }
    Some(Change { action: action.to_owned(), object: format!("{section} {name}"), details })
}

fn detail(action: &str, key: &str, was: Option<String>, is: Option<String>) -> String {
    let default = || "default".to_owned();
    // An entry of a map.
    let (was, is) = match key.contains(' ') {
        true => (was.unwrap_or_else(|| "none".to_owned()), is.unwrap_or_else(|| "none".to_owned())),
        false => (was.unwrap_or_else(default), is.unwrap_or_else(default)),
    };
    if action == "create" { format!("{key}: {is}") } else { format!("{key}: {was} → {is}") }
}

/// The entries of a map stand each for itself: `forward tcp/8080`.
fn keys<T: serde::Serialize>(spec: &T) -> Option<Keys> {
    let Ok(serde_json::Value::Object(keys)) = serde_json::to_value(spec) else { return Some(Keys::new()) };
    let mut flat = Keys::new();
    for (key, value) in keys {
        match value {
            serde_json::Value::Object(entries) => {
                let entries = entries.into_iter();
                flat.extend(entries.map(|(entry, value)| (format!("{key} {}", entry.escape_debug()), value)));
            }
            value => drop(flat.insert(key, value)),
        }
    }
    Some(flat)
}

/// `1 change`, `2 changes`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Text without quotes, lists with commas.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.escape_debug().to_string(),
        serde_json::Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
