//! Entries of an archive's table of contents.

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

/// The texts of one entry in the table of contents.
#[derive(Debug, Default)]
pub(super) struct Entry {
    tag: String,
    kind: String,
    statement: String,
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
            Field::MoreTexts(_) => self.entry.statement = text,
            _ if self.entry.kind == "DATABASE" => self.database.owner = Some(text).filter(|t| !t.is_empty()),
            _ => {}
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
            // Definition, drop, copy, schema, tablespace, and since 1.14 the access method.
            Field::Section => Field::MoreTexts(if minor >= 14 { 6 } else { 5 }),
            Field::MoreTexts(texts) => {
                let has_text = self.begin_text(field)?;
                let first = texts == if minor >= 14 { 6 } else { 5 };
                self.kept = (first && has_text && self.entry.is_of_database()).then(Vec::new);
                match texts {
                    1 if minor >= 16 => Field::RelKind,
                    1 => Field::LastTexts(2),
                    _ => Field::MoreTexts(texts - 1),
                }
            }
            Field::RelKind => Field::LastTexts(2),
            Field::LastTexts(texts) => {
                let has_text = self.begin_text(field)?;
                self.kept = (texts == 2 && has_text && self.entry.kind == "DATABASE").then(Vec::new);
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
                if !self.entry.statement.is_empty() {
                    self.database.statements.push(std::mem::take(&mut self.entry.statement));
                }
                return Ok(Self::next_entry(left - 1));
            }
        };
        Ok(State::Entry { left, id, field: next })
    }
}
