//! A plan's text as a tree of positions: gives a problem found in the typed plan its line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::problem::Position;

/// A node of the YAML text with its position.
#[derive(Debug, Clone)]
pub(super) struct SourceNode {
    at: Option<Position>,
    kind: NodeKind,
}

#[derive(Debug, Clone)]
enum NodeKind {
    Null,
    Scalar,
    Sequence(Vec<SourceNode>),
    Mapping(Vec<(String, Option<Position>, SourceNode)>),
}

pub(super) fn position(location: Location) -> Option<Position> {
    let number = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
    Some(Position { line: number(location.line())?, column: number(location.column())? })
}

impl SourceNode {
    /// Returns the position of `field`, as in `spec.databases[1].name`, or of the nearest enclosing node that
    /// exists.
    pub(super) fn position_of(&self, field: &str) -> Option<Position> {
        let mut here = self;
        let mut best = self.at;
        for step in field.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (&here.kind, step.strip_suffix(']')) {
                (NodeKind::Sequence(list), Some(number)) => {
                    let Some(node) = number.parse::<usize>().ok().and_then(|n| list.get(n)) else { break };
                    best = node.at.or(best);
                    node
                }
                (NodeKind::Mapping(fields), None) => {
                    let Some((_, at, node)) = fields.iter().find(|(name, ..)| name == step) else { break };
                    best = at.or(best);
                    node
                }
                _ => break,
            };
            here = next;
        }
        // The position of a scalar is its own; that of a block is its key's.
        if matches!(here.kind, NodeKind::Scalar) { here.at.or(best) } else { best }
    }

    /// Returns the innermost field whose key or value is at `at`.
    pub(super) fn field_at(&self, at: Position) -> Option<String> {
        let mut found = None;
        self.visit("", &mut |path, key, node| {
            if (node.at == Some(at) || key == Some(at)) && !path.is_empty() {
                found = Some(path.to_owned());
            }
        });
        found
    }

    /// Returns the fields without a value, with their positions.
    pub(super) fn null_fields(&self) -> Vec<(String, Option<Position>)> {
        let mut found = Vec::new();
        self.visit("", &mut |path, key, node| {
            if matches!(node.kind, NodeKind::Null) {
                found.push((path.to_owned(), key.or(node.at)));
            }
        });
        found
    }

    /// Returns the blocks along `path` (`spec.databases[]`) that lack the field `name`, with their positions.
    pub(super) fn missing_in(&self, path: &str, name: &str) -> Vec<(String, Option<Position>)> {
        let mut found = Vec::new();
        self.visit("", &mut |here, key, node| {
            let NodeKind::Mapping(fields) = &node.kind else { return };
            if without_indexes(here) == path && !fields.iter().any(|(field, ..)| field == name) {
                found.push((here.to_owned(), key.or(node.at)));
            }
        });
        found
    }

    fn visit<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, Option<Position>, &'a Self)) {
        if path.is_empty() {
            visit(path, None, self);
        }
        match &self.kind {
            NodeKind::Null | NodeKind::Scalar => {}
            NodeKind::Sequence(list) => {
                for (number, node) in list.iter().enumerate() {
                    let path = format!("{path}[{number}]");
                    visit(&path, None, node);
                    node.visit(&path, visit);
                }
            }
            NodeKind::Mapping(fields) => {
                for (name, key, node) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    visit(&path, *key, node);
                    node.visit(&path, visit);
                }
            }
        }
    }
}

/// Removes the numbers of list elements: `spec.databases[1].name` becomes `spec.databases[].name`.
pub(super) fn without_indexes(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside &= c != ']';
        if !inside {
            text.push(c);
        }
        inside |= c == '[';
    }
    text
}

impl<'de> Deserialize<'de> for SourceNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<NodeKind>::deserialize(deserializer)?;
        Ok(Self { at: position(spanned.referenced), kind: spanned.value })
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($visit:ident: $value:ty),*) => {
        $(fn $visit<E>(self, _: $value) -> Result<NodeKind, E> {
            Ok(NodeKind::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128);
    scalars!(visit_f64: f64, visit_str: &str, visit_bytes: &[u8]);

    fn visit_unit<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Null)
    }
    fn visit_none<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NodeKind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(NodeKind::Sequence(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeKind, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<FieldName>>()? {
            let at = position(key.referenced);
            match key.value.0 {
                Some(name) => fields.push((name, at, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(NodeKind::Mapping(fields))
    }
}

impl<'de> Deserialize<'de> for NodeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// A field's name; `None` for a key that is not text, which the typed parser rejects.
struct FieldName(Option<String>);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<String>::deserialize(deserializer)?))
    }
}
