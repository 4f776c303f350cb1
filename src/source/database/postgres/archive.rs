//! Scans PostgreSQL's custom archive format as a stream, to prove that an archive is complete.
//!
//! `pg_restore --list` reads only the head of an archive and accepts a truncated one. But the head
//! declares what must follow: its table of contents marks each entry that has data. The data
//! follows as one block per such entry, made of counted pieces and an end mark. So a reader that
//! counts knows at the last byte if every block came and ended. It decodes no data and keeps only a
//! bounded head. Format: `src/bin/pg_dump/pg_backup_archiver.c` and `pg_backup_custom.c` of
//! PostgreSQL, versions 1.12 (PostgreSQL 9.0) to 1.16 (PostgreSQL 17).

use std::collections::HashSet;

/// The longest accepted text in a table of contents, such as the definition of a view or function.
const LONGEST_TEXT: u64 = 64 << 20;
/// The largest accepted number of entries.
const MOST_ENTRIES: u64 = 10_000_000;

/// The proof that an archive is complete.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ArchiveProof {
    /// The format's version, such as (1, 14).
    pub format: (u8, u8),
    /// The number of entries in the table of contents.
    pub entries: u64,
    /// The number of entries with data. Each has exactly one complete block.
    pub blocks: u64,
}

/// The reason why a stream is not a complete archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It does not begin like a custom-format archive.
    #[error("it is no custom-format archive")]
    Foreign,
    /// Its format version is unknown to this reader, so completeness cannot be proved.
    #[error("archive format {0}.{1} is not known")]
    Unknown(u8, u8),
    /// A number or text has an impossible value.
    #[error("it is damaged at byte {at}: {problem}")]
    Damaged {
        /// The byte offset.
        at: u64,
        /// The damaged field.
        problem: &'static str,
    },
    /// It ends too early.
    #[error("it ends at byte {at}, {missing}")]
    Short {
        /// The byte offset of the end.
        at: u64,
        /// The missing part.
        missing: String,
    },
}

/// Reads an archive piece by piece.
#[derive(Debug)]
pub struct ArchiveScanner {
    /// The field expected next.
    state: State,
    /// The bytes of a field that came in part; never more than one fixed-size field.
    pending: Vec<u8>,
    /// The number of bytes still to skip.
    skip: u64,
    at: u64,
    format: (u8, u8),
    int_size: usize,
    offset_size: usize,
    entries: u64,
    expected: HashSet<i64>,
    blocks: u64,
    /// The text of a field that is kept while it is skipped, if it is.
    kept: Option<Vec<u8>>,
    /// The kept texts of the current entry.
    entry: Entry,
    about: DatabaseTexts,
    failed: Option<ArchiveError>,
}

/// The owner and the properties that an archive records for the database itself. `pg_restore`
/// applies them only when it creates the database under its original name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTexts {
    /// The owner, if the archive names one.
    pub owner: Option<String>,
    /// The statements that set its properties, comment and rights. The archive's author may be
    /// malicious: never run this SQL unchanged.
    pub statements: Vec<String>,
}

/// The texts of one entry in the table of contents.
#[derive(Debug, Default)]
struct Entry {
    tag: String,
    kind: String,
    statement: String,
}

impl Entry {
    /// Returns true if the entry describes the database itself and not an object in it.
    fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "COMMENT" | "ACL" | "SECURITY LABEL" => self.tag.starts_with("DATABASE "),
            _ => false,
        }
    }
}

/// The states, in the order of the fields. Each step reads one fixed-size field and decides the next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    Compression,
    /// Numbers of the head that are ignored (the count is how many are left), then texts.
    HeadInts(u8),
    HeadTexts(u8),
    Count,
    Entry {
        left: u64,
        id: i64,
        field: Field,
    },
    BlockType,
    BlockId {
        large: bool,
    },
    Piece,
    Large,
    LargePiece,
}

/// The fields of an entry of the table of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
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

impl Default for ArchiveScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ArchiveScanner {
    /// Creates a scanner at the first byte of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Magic,
            pending: Vec::new(),
            skip: 0,
            at: 0,
            format: (0, 0),
            int_size: 4,
            offset_size: 8,
            entries: 0,
            expected: HashSet::new(),
            blocks: 0,
            kept: None,
            entry: Entry::default(),
            about: DatabaseTexts::default(),
            failed: None,
        }
    }

    /// Scans the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while self.failed.is_none() && !bytes.is_empty() {
            if self.skip > 0 {
                let step = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= step as u64;
                self.at += step as u64;
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(&bytes[..step]);
                }
                bytes = &bytes[step..];
                continue;
            }
            let missing = self.width().saturating_sub(self.pending.len());
            let step = missing.min(bytes.len());
            self.pending.extend_from_slice(&bytes[..step]);
            self.at += step as u64;
            bytes = &bytes[step..];
            if step == missing {
                let field = std::mem::take(&mut self.pending);
                if let Err(error) = self.step(&field) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Takes the texts about the database itself, once the table of contents was scanned.
    pub fn about_database(&mut self) -> DatabaseTexts {
        std::mem::take(&mut self.about)
    }

    /// Takes the kept text, with bytes that are not UTF-8 replaced.
    fn take_kept(&mut self) -> Option<String> {
        self.kept.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stores the text of the field before this one, if it was kept.
    fn file_kept(&mut self, kind: Field) {
        let Some(text) = self.take_kept() else { return };
        match kind {
            // The kept text belongs to the field before: the tag comes before the description, and so on.
            Field::Texts(_) => self.entry.tag = text,
            Field::Section => self.entry.kind = text,
            Field::MoreTexts(_) => self.entry.statement = text,
            _ if self.entry.kind == "DATABASE" => self.about.owner = Some(text).filter(|t| !t.is_empty()),
            _ => {}
        }
    }

    /// Returns the proof, after the last byte.
    ///
    /// # Errors
    /// [`ArchiveError`] if the archive is damaged or incomplete.
    pub fn finish(self) -> Result<ArchiveProof, ArchiveError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let missing = if !matches!(self.state, State::BlockType) || self.skip > 0 || !self.pending.is_empty()
        {
            match self.state {
                State::Magic => return Err(ArchiveError::Foreign),
                State::Piece
                | State::Large
                | State::LargePiece
                | State::BlockId { .. }
                | State::BlockType => "in the middle of a table's data".to_owned(),
                _ => "in the middle of its table of contents".to_owned(),
            }
        } else if !self.expected.is_empty() {
            format!(
                "{} of {} blocks of data are missing",
                self.expected.len(),
                self.blocks + self.expected.len() as u64
            )
        } else {
            return Ok(ArchiveProof { format: self.format, entries: self.entries, blocks: self.blocks });
        };
        Err(ArchiveError::Short { at: self.at, missing })
    }

    /// Returns the width in bytes of the field expected next.
    fn width(&self) -> usize {
        match self.state {
            // "PGDMP", three version bytes, sizes of numbers and offsets, the format's number.
            State::Magic => 11,
            State::Compression => {
                if self.format.1 >= 15 {
                    1
                } else {
                    1 + self.int_size
                }
            }
            State::BlockType => 1,
            State::Entry { field: Field::Offset, .. } => 1 + self.offset_size,
            _ => 1 + self.int_size,
        }
    }

    fn damaged(&self, problem: &'static str) -> ArchiveError {
        ArchiveError::Damaged { at: self.at, problem }
    }

    /// Decodes a number: a sign byte, then little-endian bytes.
    fn number(&self, field: &[u8]) -> Result<i64, ArchiveError> {
        let (sign, digits) = field.split_first().ok_or_else(|| self.damaged("a number"))?;
        let value = digits.iter().rev().fold(0i64, |value, byte| (value << 8) | i64::from(*byte));
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            _ => Err(self.damaged("a number's sign")),
        }
    }

    /// Reads a text's length and skips its bytes. A negative length means no text: then returns false.
    fn text(&mut self, field: &[u8]) -> Result<bool, ArchiveError> {
        let length = self.number(field)?;
        let Ok(length) = u64::try_from(length) else { return Ok(false) };
        if length > LONGEST_TEXT {
            return Err(self.damaged("a text's length"));
        }
        self.skip = length;
        Ok(true)
    }

    fn step(&mut self, field: &[u8]) -> Result<(), ArchiveError> {
        self.state = match self.state {
            State::Magic => self.magic(field)?,
            State::Compression => State::HeadInts(7),
            State::HeadInts(1) => State::HeadTexts(3),
            State::HeadInts(left) => State::HeadInts(left - 1),
            State::HeadTexts(left) => {
                self.text(field)?;
                if left == 1 { State::Count } else { State::HeadTexts(left - 1) }
            }
            State::Count => {
                let count = u64::try_from(self.number(field)?).map_err(|_| self.damaged("its entries"))?;
                if count > MOST_ENTRIES {
                    return Err(self.damaged("the number of its entries"));
                }
                self.entries = count;
                Self::entry(count)
            }
            State::Entry { left, id, field: kind } => self.entry_field(left, id, kind, field)?,
            State::BlockType => match field {
                [1] => State::BlockId { large: false },
                [3] => State::BlockId { large: true },
                _ => return Err(self.damaged("a block's type")),
            },
            State::BlockId { large } => self.block(large, field)?,
            State::Piece => match self.number(field)? {
                0 => State::BlockType,
                length => self.piece(length, State::Piece)?,
            },
            State::Large => match self.number(field)? {
                0 => State::BlockType,
                _ => State::LargePiece,
            },
            State::LargePiece => match self.number(field)? {
                0 => State::Large,
                length => self.piece(length, State::LargePiece)?,
            },
        };
        Ok(())
    }

    fn piece(&mut self, length: i64, next: State) -> Result<State, ArchiveError> {
        self.skip = u64::try_from(length).map_err(|_| self.damaged("a piece's length"))?;
        Ok(next)
    }

    fn magic(&mut self, field: &[u8]) -> Result<State, ArchiveError> {
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _, int_size, offset_size, format] = field else {
            return Err(ArchiveError::Foreign);
        };
        self.format = (*major, *minor);
        if *major != 1 || !(12..=16).contains(minor) || *format != 1 {
            return Err(ArchiveError::Unknown(*major, *minor));
        }
        if *int_size != 4 || *offset_size > 16 {
            return Err(self.damaged("the size of its numbers"));
        }
        (self.int_size, self.offset_size) = (usize::from(*int_size), usize::from(*offset_size));
        Ok(State::Compression)
    }

    /// Returns the state before the first of `left` entries, or before the blocks.
    fn entry(left: u64) -> State {
        if left == 0 { State::BlockType } else { State::Entry { left, id: 0, field: Field::Id } }
    }

    fn entry_field(&mut self, left: u64, id: i64, kind: Field, field: &[u8]) -> Result<State, ArchiveError> {
        let (mut id, minor) = (id, self.format.1);
        self.file_kept(kind);
        let next = match kind {
            Field::Id => {
                self.entry = Entry::default();
                id = self.number(field)?;
                Field::HadDumper
            }
            // The table's OID, the object's OID, tag, description.
            Field::HadDumper => Field::Texts(4),
            Field::Texts(texts) => {
                let there = self.text(field)?;
                self.kept = (texts <= 2 && there).then(Vec::new);
                if texts == 1 { Field::Section } else { Field::Texts(texts - 1) }
            }
            // Definition, drop, copy, schema, tablespace, and since 1.14 the access method.
            Field::Section => Field::MoreTexts(if minor >= 14 { 6 } else { 5 }),
            Field::MoreTexts(texts) => {
                let there = self.text(field)?;
                let first = texts == if minor >= 14 { 6 } else { 5 };
                self.kept = (first && there && self.entry.is_of_database()).then(Vec::new);
                match texts {
                    1 if minor >= 16 => Field::RelKind,
                    1 => Field::LastTexts(2),
                    _ => Field::MoreTexts(texts - 1),
                }
            }
            Field::RelKind => Field::LastTexts(2),
            Field::LastTexts(texts) => {
                let there = self.text(field)?;
                self.kept = (texts == 2 && there && self.entry.kind == "DATABASE").then(Vec::new);
                if texts == 1 { Field::Dependency } else { Field::LastTexts(texts - 1) }
            }
            Field::Dependency => {
                if self.text(field)? {
                    Field::Dependency
                } else {
                    Field::Offset
                }
            }
            Field::Offset => {
                // 1: data follows, at an offset unknown when the archive was written to a pipe; 2:
                // at a known offset; 3: no data.
                match field.first() {
                    Some(1 | 2) if !self.expected.insert(id) => return Err(self.damaged("an entry twice")),
                    Some(1..=3) => {}
                    _ => return Err(self.damaged("an entry's state")),
                }
                if !self.entry.statement.is_empty() {
                    self.about.statements.push(std::mem::take(&mut self.entry.statement));
                }
                return Ok(Self::entry(left - 1));
            }
        };
        Ok(State::Entry { left, id, field: next })
    }

    fn block(&mut self, large: bool, field: &[u8]) -> Result<State, ArchiveError> {
        if !self.expected.remove(&self.number(field)?) {
            return Err(self.damaged("a block that no entry names, or twice"));
        }
        self.blocks += 1;
        Ok(if large { State::Large } else { State::Piece })
    }
}
