//! Entries of an archive's table of contents.

use std::collections::BTreeMap;

use super::{ArchiveError, ArchiveScanner, State};

/// The owner and the properties that an archive records for the database itself. `pg_restore`
/// applies them only when it creates the database under its original name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseStatements {
    /// The owner, if the archive names one.
    pub owner: Option<String>,
    /// The statements that set its properties, comment and rights, after the one that says how backslashes in
    /// them are to be read. The archive's author may be malicious: never run this SQL unchanged.
    pub statements: Vec<String>,
}

/// The most groups of entries that are kept: more than any database has owners and schemas.
const MAX_GROUPS: usize = 10_000;

/// A kind of entries that need the same rights of the user who restores them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryGroup {
    /// The kind of object, as the archive names it: `TABLE`.
    pub kind: String,
    /// The schema; empty for an object outside of schemas.
    pub schema: String,
    /// The owner; empty for an object without one, and for data.
    pub owner: String,
    /// The object's name, for kinds of which each object needs a right of its own; else empty.
    pub name: String,
}

/// The entries of an archive in groups, with the name of the first and the number of each.
pub type EntryGroups = BTreeMap<EntryGroup, (String, u64)>;

/// The texts of one entry in the table of contents.
#[derive(Debug, Default)]
pub(super) struct Entry {
    tag: String,
    kind: String,
    schema: String,
    owner: String,
    statement: String,
    /// True if the object can be dropped: an entry that describes an object, and not its data.
    has_drop: bool,
}

impl Entry {
    /// Returns true if the entry describes the database itself and not an object in it, or says how the
    /// texts of such entries are to be read.
    fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" | "STDSTRINGS" => true,
            "COMMENT" | "ACL" | "SECURITY LABEL" => self.tag.starts_with("DATABASE "),
            _ => false,
        }
    }

    /// Returns the group, and the name in it; none for an entry without rights of its own.
    fn group(&self) -> Option<(EntryGroup, String)> {
        let is_of_extension = self.kind == "COMMENT" && self.tag.starts_with("EXTENSION ");
        if !(self.has_drop || is_of_extension) {
            return None;
        }
        let has_own = is_of_extension || ["EXTENSION", "SCHEMA"].contains(&self.kind.as_str());
        let group = EntryGroup {
            kind: self.kind.clone(),
            schema: self.schema.clone(),
            owner: self.owner.clone(),
            name: if has_own { self.tag.clone() } else { String::new() },
        };
        Some((group, self.tag.clone()))
    }
}

/// The fields of an entry of the table of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    HadDumper,
    /// A run of texts; the count is how many are left.
    Texts(u8),
    Section,
    /// Definition, drop and copy statements, schema, tablespace, access method.
    MoreTexts(u8),
    RelKind,
    /// Owner and "with OIDs".
    LastTexts(u8),
    Dependency,
    Offset,
}

impl ArchiveScanner {
    /// Returns true when the table of contents was scanned, or cannot be.
    pub fn is_past_contents(&self) -> bool {
        let in_contents = matches!(
            self.state,
            State::Magic
                | State::Compression
                | State::HeadInts(_)
                | State::HeadTexts(_)
                | State::Count
                | State::Entry { .. }
        );
        self.failed.is_some() || !in_contents
    }

    /// Takes the groups of entries, once the table of contents was scanned.
    pub fn take_groups(&mut self) -> EntryGroups {
        std::mem::take(&mut self.groups)
    }

    /// Takes the statements about the database itself, once the table of contents was scanned.
    pub fn take_database_statements(&mut self) -> DatabaseStatements {
        std::mem::take(&mut self.database)
    }

    /// Stores the text of the field before this one, if it was kept.
    fn store_kept_text(&mut self, kind: Field) {
        let Some(bytes) = self.kept.take() else { return };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match kind {
            // The kept text belongs to the field before: the tag comes before the description, and so on.
            Field::Texts(_) => self.entry.tag = text,
            Field::Section => self.entry.kind = text,
            Field::MoreTexts(left) if left == self.more_texts() - 1 => self.entry.statement = text,
            Field::MoreTexts(_) => self.entry.schema = text,
            _ => self.entry.owner = text,
        }
    }

    /// Returns the number of texts after the section: definition, drop, copy, schema, tablespace, and since 1.14
    /// the access method.
    fn more_texts(&self) -> u8 {
        if self.format.1 >= 14 { 6 } else { 5 }
    }

    /// Returns true if a text after the section is kept: the definition of the database, and the schema. Of the
    /// statement that drops the object it is noted that there is one.
    fn keeps_more_text(&mut self, texts: u8) -> bool {
        match self.more_texts() - texts {
            0 => self.entry.is_of_database(),
            1 => {
                self.entry.has_drop = self.skip > 0;
                false
            }
            3 => true,
            _ => false,
        }
    }

    /// Stores what an entry says, once all of it was read.
    fn end_entry(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        if let Some((group, name)) = entry.group()
            && (self.groups.len() < MAX_GROUPS || self.groups.contains_key(&group))
        {
            self.groups.entry(group).or_insert((name, 0)).1 += 1;
        }
        if entry.kind == "DATABASE" && !entry.owner.is_empty() {
            self.database.owner = Some(entry.owner);
        }
        if !entry.statement.is_empty() {
            self.database.statements.push(entry.statement);
        }
    }

    /// Reads one field of an entry; `left` counts the entries not yet read.
    pub(super) fn read_entry_field(
        &mut self,
        left: u64,
        id: i64,
        kind: Field,
        field: &[u8],
    ) -> Result<State, ArchiveError> {
        let (mut id, minor) = (id, self.format.1);
        self.store_kept_text(kind);
        let next = match kind {
            Field::Id => {
                self.entry = Entry::default();
                id = self.parse_number(field)?;
                Field::HadDumper
            }
            // The table's OID, the object's OID, tag, description.
            Field::HadDumper => Field::Texts(4),
            Field::Texts(texts) => {
                let has_text = self.begin_text(field)?;
                self.kept = (texts <= 2 && has_text).then(Vec::new);
                if texts == 1 { Field::Section } else { Field::Texts(texts - 1) }
            }
            Field::Section => Field::MoreTexts(self.more_texts()),
            Field::MoreTexts(texts) => {
                let has_text = self.begin_text(field)?;
                self.kept = (self.keeps_more_text(texts) && has_text).then(Vec::new);
                match texts {
                    1 if minor >= 16 => Field::RelKind,
                    1 => Field::LastTexts(2),
                    _ => Field::MoreTexts(texts - 1),
                }
            }
            Field::RelKind => Field::LastTexts(2),
            Field::LastTexts(texts) => {
                let has_text = self.begin_text(field)?;
                self.kept = (texts == 2 && has_text).then(Vec::new);
                if texts == 1 { Field::Dependency } else { Field::LastTexts(texts - 1) }
            }
            Field::Dependency if self.begin_text(field)? => Field::Dependency,
            Field::Dependency => Field::Offset,
            Field::Offset => {
                // 1: data follows, at an unknown offset (a pipe); 2: at a known offset; 3: no data.
                match field.first() {
                    Some(1 | 2) if !self.expected.insert(id) => return Err(self.damaged("an entry twice")),
                    Some(1..=3) => {}
                    _ => return Err(self.damaged("an entry's state")),
                }
                self.end_entry();
                return Ok(Self::next_entry(left - 1));
            }
        };
        Ok(State::Entry { left, id, field: next })
    }
}
