//! Compares two clusters object by object and field by field, apart from the restore's code. Only
//! differences listed in `rules.rs` are allowed.
//!
//! A UID is compared by the object that it names: where one cluster has the UID of its ConfigMap
//! `a/b`, the other must have that of its own. So owners, claims and Job selectors need no rule.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::raw::{Id, ListedCluster};
use super::rules::{DifferenceRule, RULES, SeenDifference};

/// The result of a comparison.
#[derive(Default)]
pub struct ClusterComparison {
    /// Differences that no rule explains: kind, JSON pointer, and the objects with both values.
    pub unexplained: Vec<(String, String, String)>,
    /// The number of differences that each rule explained, by rule and kind.
    pub hits: BTreeMap<(usize, String), u64>,
    /// The number of objects that are in both clusters.
    pub compared: usize,
    /// The kinds of these objects.
    pub kinds: BTreeSet<String>,
}

impl ClusterComparison {
    /// Describes the unexplained differences, with one example of each sort.
    pub fn report(&self) -> String {
        let steps = if self.unexplained.len() > 40 { 5 } else { usize::MAX };
        let mut sorts: BTreeMap<String, (u64, &str)> = BTreeMap::new();
        for (kind, pointer, what) in &self.unexplained {
            let sort: Vec<&str> = pointer.split('/').take(steps).collect();
            sorts.entry(format!("{kind} {}", sort.join("/"))).or_insert((0, what)).0 += 1;
        }
        let lines = sorts.iter().map(|(sort, (count, what))| format!("{count} times {sort}: {what}"));
        format!("{} differences:\n{}", self.unexplained.len(), lines.collect::<Vec<_>>().join("\n"))
    }

    /// Returns rules, with the kind, that explain nothing and should be removed.
    pub fn unused_rules(&self) -> Vec<String> {
        let each =
            RULES.iter().enumerate().flat_map(|(at, rule)| rule.kinds.iter().map(move |kind| (at, *kind)));
        let idle = each.filter(|(at, kind)| !self.hits.contains_key(&(*at, (*kind).to_owned())));
        idle.map(|(at, kind)| format!("{kind} {:?}: {}", RULES[at].pointer, RULES[at].reason)).collect()
    }
}

pub fn compare(old: &ListedCluster, new: &ListedCluster) -> ClusterComparison {
    let (old_uids, new_uids) = (old.uids(), new.uids());
    let mut found = ClusterComparison::default();
    let ids: BTreeSet<&Id> = old.objects.keys().chain(new.objects.keys()).collect();
    for id in ids {
        let (before, after) = (old.objects.get(id), new.objects.get(id));
        let Some(kind) = old.kinds.get(&id.0).or_else(|| new.kinds.get(&id.0)) else { continue };
        if before.is_some() && after.is_some() {
            found.compared += 1;
            found.kinds.insert(id.0.clone());
        }
        let seen = before.or(after).expect("it is in one of them");
        let mut differences = Vec::new();
        let before = before.map(|object| comparable(object, &old_uids));
        let after = after.map(|object| comparable(object, &new_uids));
        differ("", before.as_ref(), after.as_ref(), before.is_some() && after.is_some(), &mut differences);
        for (pointer, before, after) in differences {
            let seen = SeenDifference { kind, object: seen, before: &before, after: &after };
            let rule =
                RULES.iter().enumerate().find_map(|(at, rule)| Some((at, covers(rule, &seen, &pointer)?)));
            match rule {
                Some((at, name)) => *found.hits.entry((at, name.to_owned())).or_default() += 1,
                None => {
                    let what = format!("{}/{}: {before} became {after}", id.1, id.2);
                    found.unexplained.push((kind.kind.clone(), pointer, what));
                }
            }
        }
    }
    found
}

/// Returns the rule's name for the kind (`*` or the kind) if the rule explains a difference at `pointer`.
fn covers(rule: &DifferenceRule, seen: &SeenDifference<'_>, pointer: &str) -> Option<&'static str> {
    let name = rule.kinds.iter().copied().find(|name| *name == "*" || *name == seen.kind.kind)?;
    let mut there = pointer.split('/').skip(1);
    let within = rule.pointer.split('/').skip(1).all(|wanted| {
        there.next().is_some_and(|found| match wanted.split_once('*') {
            Some((start, end)) => {
                found.len() >= start.len() + end.len() && found.starts_with(start) && found.ends_with(end)
            }
            None => found == wanted,
        })
    });
    (within && (rule.when)(seen)).then_some(name)
}

/// Returns an object with UIDs replaced by what they name, and field managers keyed by name.
fn comparable(object: &Value, uids: &BTreeMap<String, Id>) -> Value {
    let mut object = named(object, uids);
    // A server's own controllers apply the objects it ships, at their own time: treated like an update.
    let shipped = object["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults";
    if let Some(managers) = object["metadata"].get_mut("managedFields") {
        let entries = managers.as_array_mut().map(std::mem::take).unwrap_or_default();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let by_name: Map<String, Value> = entries
            .into_iter()
            .map(|entry| {
                let name =
                    ["operation", "subresource", "manager", "apiVersion"].map(|field| text(&entry, field));
                let name = name.join(" ");
                (if shipped { name.replacen("Apply", "Update", 1) } else { name }, entry)
            })
            .collect();
        *managers = Value::Object(by_name);
    }
    object
}

fn named(value: &Value, uids: &BTreeMap<String, Id>) -> Value {
    match value {
        Value::String(text) => match uids.get(text) {
            Some((resource, namespace, name)) => json!(format!("UID of {resource} {namespace}/{name}")),
            None => value.clone(),
        },
        Value::Array(all) => all.iter().map(|one| named(one, uids)).collect(),
        Value::Object(map) => {
            // Keys in managed fields name an owner by its UID.
            let key =
                |key: &str| match key.strip_prefix("k:{\"uid\":\"").and_then(|rest| rest.strip_suffix("\"}"))
                {
                    Some(uid) => named(&json!(uid), uids).to_string(),
                    None => key.to_owned(),
                };
            map.iter().map(|(name, one)| (key(name), named(one, uids))).collect()
        }
        _ => value.clone(),
    }
}

/// JSON pointer, value before, value after.
type Difference = (String, String, String);

/// Collects differing fields. A map or list on one side only is descended into, so that each field
/// needs a rule. An object on one side only (`both` is false) is one difference.
fn differ(at: &str, a: Option<&Value>, b: Option<&Value>, both: bool, out: &mut Vec<Difference>) {
    if a == b {
        return;
    }
    let show = |value: Option<&Value>| {
        let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        text.chars().take(160).collect::<String>()
    };
    if both {
        let maps = (
            a.map_or(Some(None), |a| a.as_object().map(Some)),
            b.map_or(Some(None), |b| b.as_object().map(Some)),
        );
        if let (Some(x), Some(y)) = maps {
            let empty = Map::new();
            let (x, y) = (x.unwrap_or(&empty), y.unwrap_or(&empty));
            let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in &keys {
                let below = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                differ(&below, x.get(*key), y.get(*key), true, out);
            }
            if !keys.is_empty() {
                return;
            }
        }
        if let (Some(x), Some(y)) = (a.and_then(Value::as_array), b.and_then(Value::as_array)) {
            for place in 0..x.len().max(y.len()) {
                differ(&format!("{at}/{place}"), x.get(place), y.get(place), true, out);
            }
            return;
        }
    }
    out.push((at.to_owned(), show(a), show(b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_fields_are_found_at_their_pointers() {
        let mut found = Vec::new();
        let (a, b) = (
            json!({"a": {"x/y": 1, "same": 1}, "l": [1, 2], "gone": {"k": 1}, "empty": {}}),
            json!({"a": {"x/y": 2, "same": 1}, "l": [1, 3, 4]}),
        );
        differ("", Some(&a), Some(&b), true, &mut found);
        let pointers: Vec<&str> = found.iter().map(|(pointer, ..)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/a/x~1y", "/empty", "/gone/k", "/l/1", "/l/2"]);
    }
}
