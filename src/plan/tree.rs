//! A plan's text as a tree of positions, so that a problem found in the typed plan is reported with line and
//! column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::problem::Position;

/// A node of the YAML text with its position.
#[derive(Debug, Clone)]
pub(super) struct Place {
    at: Option<Position>,
    inside: Inside,
}

#[derive(Debug, Clone)]
enum Inside {
    Nothing,
    Scalar,
    List(Vec<Place>),
    Fields(Vec<(String, Option<Position>, Place)>),
}

pub(super) fn position(location: Location) -> Option<Position> {
    let number = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
    Some(Position { line: number(location.line())?, column: number(location.column())? })
}

impl Place {
    /// Returns the position of `field`, as in `spec.databases[1].name`, or of the nearest enclosing node that
    /// exists.
    pub(super) fn of(&self, field: &str) -> Option<Position> {
        let mut here = self;
        let mut best = self.at;
        for step in field.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (&here.inside, step.strip_suffix(']')) {
                (Inside::List(list), Some(number)) => {
                    let Some(place) = number.parse::<usize>().ok().and_then(|n| list.get(n)) else { break };
                    best = place.at.or(best);
                    place
                }
                (Inside::Fields(fields), None) => {
                    let Some((_, at, place)) = fields.iter().find(|(name, ..)| name == step) else { break };
                    best = at.or(best);
                    place
                }
                _ => break,
            };
            here = next;
        }
        // The position of a scalar is its own; that of a block is its key's.
        if matches!(here.inside, Inside::Scalar) { here.at.or(best) } else { best }
    }

    /// Returns the innermost field whose key or value is at `at`.
    pub(super) fn field_at(&self, at: Position) -> Option<String> {
        let mut found = None;
        self.each("", &mut |path, key, place| {
            if (place.at == Some(at) || key == Some(at)) && !path.is_empty() {
                found = Some(path.to_owned());
            }
        });
        found
    }

    /// Returns the fields without a value, with their positions.
    pub(super) fn without_value(&self) -> Vec<(String, Option<Position>)> {
        let mut found = Vec::new();
        self.each("", &mut |path, key, place| {
            if matches!(place.inside, Inside::Nothing) {
                found.push((path.to_owned(), key.or(place.at)));
            }
        });
        found
    }

    /// Returns the blocks along `path` (`spec.databases[]`) that lack the field `name`, with their positions.
    pub(super) fn lacking(&self, path: &str, name: &str) -> Vec<(String, Option<Position>)> {
        let mut found = Vec::new();
        self.each("", &mut |here, key, place| {
            let Inside::Fields(fields) = &place.inside else { return };
            if without_numbers(here) == path && !fields.iter().any(|(field, ..)| field == name) {
                found.push((here.to_owned(), key.or(place.at)));
            }
        });
        found
    }

    fn each<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, Option<Position>, &'a Self)) {
        if path.is_empty() {
            visit(path, None, self);
        }
        match &self.inside {
            Inside::Nothing | Inside::Scalar => {}
            Inside::List(list) => {
                for (number, place) in list.iter().enumerate() {
                    let path = format!("{path}[{number}]");
                    visit(&path, None, place);
                    place.each(&path, visit);
                }
            }
            Inside::Fields(fields) => {
                for (name, key, place) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    visit(&path, *key, place);
                    place.each(&path, visit);
                }
            }
        }
    }
}

/// Removes the numbers of list elements: `spec.databases[1].name` becomes `spec.databases[].name`.
pub(super) fn without_numbers(path: &str) -> String {
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

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Inside>::deserialize(deserializer)?;
        Ok(Self { at: position(spanned.referenced), inside: spanned.value })
    }
}

struct InsideVisitor;

impl<'de> Visitor<'de> for InsideVisitor {
    type Value = Inside;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Inside, E> {
        Ok(Inside::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }
    fn visit_none<E>(self) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inside, A::Error> {
        let mut places = Vec::new();
        while let Some(place) = list.next_element()? {
            places.push(place);
        }
        Ok(Inside::List(places))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inside, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let at = position(key.referenced);
            match key.value.0 {
                Some(name) => fields.push((name, at, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Inside::Fields(fields))
    }
}

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InsideVisitor)
    }
}

/// A field's name; `None` for a key that is not text, which the typed parser rejects.
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<String>::deserialize(deserializer)?))
    }
}
