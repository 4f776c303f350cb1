//! Scans PostgreSQL's custom archive format as a stream, to prove that an archive is complete.
//!
//! `pg_restore --list` reads only the head of an archive and accepts a truncated one. But the head
//! declares what must follow: its table of contents marks each entry that has data. The data
//! follows as one block per such entry, made of counted pieces and an end mark. So a reader that
//! counts knows at the last byte if every block came and ended. It decodes no data and keeps only a
//! bounded head. Format: `src/bin/pg_dump/pg_backup_archiver.c` and `pg_backup_custom.c` of
//! PostgreSQL, versions 1.12 (PostgreSQL 9.0) to 1.16 (PostgreSQL 17).

mod entry;

use std::collections::HashSet;

pub use entry::{DatabaseStatements, EntryGroup, EntryGroups};
use entry::{Entry, Field};

use crate::source::database::{ArchiveProof, CompletenessCheck, Proof};

/// The longest accepted text in a table of contents, such as the definition of a view or function.
const MAX_TEXT: u64 = 64 << 20;
/// The largest accepted number of entries.
const MAX_ENTRIES: u64 = 10_000_000;

/// The reason why a stream is not a complete archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It does not begin like a custom-format archive.
    #[error("not a pg_dump custom-format archive")]
    NotAnArchive,
    /// Its format version is unknown to this reader, so completeness cannot be proved.
    #[error("archive format {0}.{1} is unknown")]
    UnknownVersion(u8, u8),
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
    Truncated {
        /// The byte offset of the end.
        at: u64,
        /// The missing part.
        missing: String,
    },
}

/// Reads an archive piece by piece.
#[derive(Debug, Default)]
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
    database: DatabaseStatements,
    groups: EntryGroups,
    failed: Option<ArchiveError>,
}

/// The states, in the order of the fields. Each step reads one fixed-size field and decides the next state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
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

impl ArchiveScanner {
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

    /// Returns the proof, after the last byte. Fails if the archive is damaged or incomplete.
    pub fn finish(self) -> Result<ArchiveProof, ArchiveError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let absent = self.expected.len() as u64;
        let missing = match self.state {
            State::Magic => return Err(ArchiveError::NotAnArchive),
            State::BlockType if self.skip == 0 && self.pending.is_empty() && absent == 0 => {
                let (format, entries, blocks) = (self.format, self.entries, self.blocks);
                return Ok(ArchiveProof { format, entries, blocks });
            }
            State::BlockType if self.skip == 0 && self.pending.is_empty() => {
                format!("{absent} of {} blocks of data are missing", self.blocks + absent)
            }
            State::Piece | State::Large | State::LargePiece | State::BlockId { .. } | State::BlockType => {
                "in the middle of a table's data".to_owned()
            }
            _ => "in the middle of its table of contents".to_owned(),
        };
        Err(ArchiveError::Truncated { at: self.at, missing })
    }

    /// Returns the width in bytes of the field expected next.
    fn width(&self) -> usize {
        match self.state {
            // "PGDMP", three version bytes, sizes of numbers and offsets, the format's number.
            State::Magic => 11,
            State::Compression if self.format.1 >= 15 => 1,
            State::BlockType => 1,
            State::Entry { field: Field::Offset, .. } => 1 + self.offset_size,
            _ => 1 + self.int_size,
        }
    }

    fn damaged(&self, problem: &'static str) -> ArchiveError {
        ArchiveError::Damaged { at: self.at, problem }
    }

    /// Decodes a number: a sign byte, then little-endian bytes.
    fn parse_number(&self, field: &[u8]) -> Result<i64, ArchiveError> {
        let (sign, digits) = field.split_first().ok_or_else(|| self.damaged("a number"))?;
        let value = digits.iter().rev().fold(0i64, |value, byte| (value << 8) | i64::from(*byte));
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            _ => Err(self.damaged("a number's sign")),
        }
    }

    /// Reads a text's length and skips its bytes. A negative length means no text: then returns false.
    fn begin_text(&mut self, field: &[u8]) -> Result<bool, ArchiveError> {
        let length = self.parse_number(field)?;
        let Ok(length) = u64::try_from(length) else { return Ok(false) };
        if length > MAX_TEXT {
            return Err(self.damaged("a text's length"));
        }
        self.skip = length;
        Ok(true)
    }

    fn step(&mut self, field: &[u8]) -> Result<(), ArchiveError> {
        self.state = match self.state {
            State::Magic => self.read_magic(field)?,
            State::Compression => State::HeadInts(7),
            State::HeadInts(1) => State::HeadTexts(3),
            State::HeadInts(left) => State::HeadInts(left - 1),
            State::HeadTexts(left) => {
                self.begin_text(field)?;
                if left == 1 { State::Count } else { State::HeadTexts(left - 1) }
            }
            State::Count => {
                let count =
                    u64::try_from(self.parse_number(field)?).map_err(|_| self.damaged("its entries"))?;
                if count > MAX_ENTRIES {
                    return Err(self.damaged("the number of its entries"));
                }
                self.entries = count;
                Self::next_entry(count)
            }
            State::Entry { left, id, field: kind } => self.read_entry_field(left, id, kind, field)?,
            State::BlockType => match field {
                [1] => State::BlockId { large: false },
                [3] => State::BlockId { large: true },
                _ => return Err(self.damaged("a block's type")),
            },
            State::BlockId { large } => self.begin_block(large, field)?,
            State::Piece => match self.parse_number(field)? {
                0 => State::BlockType,
                length => self.begin_piece(length, State::Piece)?,
            },
            State::Large => match self.parse_number(field)? {
                0 => State::BlockType,
                _ => State::LargePiece,
            },
            State::LargePiece => match self.parse_number(field)? {
                0 => State::Large,
                length => self.begin_piece(length, State::LargePiece)?,
            },
        };
        Ok(())
    }

    fn begin_piece(&mut self, length: i64, next: State) -> Result<State, ArchiveError> {
        self.skip = u64::try_from(length).map_err(|_| self.damaged("a piece's length"))?;
        Ok(next)
    }

    fn read_magic(&mut self, field: &[u8]) -> Result<State, ArchiveError> {
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _, int_size, offset_size, format] = field else {
            return Err(ArchiveError::NotAnArchive);
        };
        self.format = (*major, *minor);
        if *major != 1 || !(12..=16).contains(minor) || *format != 1 {
            return Err(ArchiveError::UnknownVersion(*major, *minor));
        }
        if *int_size != 4 || *offset_size > 16 {
            return Err(self.damaged("the size of its numbers"));
        }
        (self.int_size, self.offset_size) = (usize::from(*int_size), usize::from(*offset_size));
        Ok(State::Compression)
    }

    /// Returns the state before the first of `left` entries, or before the blocks.
    fn next_entry(left: u64) -> State {
        if left == 0 { State::BlockType } else { State::Entry { left, id: 0, field: Field::Id } }
    }

    fn begin_block(&mut self, large: bool, field: &[u8]) -> Result<State, ArchiveError> {
        if !self.expected.remove(&self.parse_number(field)?) {
            return Err(self.damaged("a block that no entry names, or twice"));
        }
        self.blocks += 1;
        Ok(if large { State::Large } else { State::Piece })
    }
}

impl CompletenessCheck for ArchiveScanner {
    fn feed(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }

    fn finish(self: Box<Self>) -> Result<Proof, String> {
        match (*self).finish() {
            Ok(proof) => Ok(Proof::Archive(proof)),
            Err(ArchiveError::UnknownVersion(major, minor)) => {
                Ok(Proof::ExitStatus { format: (major, minor) })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
