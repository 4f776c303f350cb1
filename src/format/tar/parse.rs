//! A strict, incremental reader of the tar streams that kbak writes. It does no I/O and holds at most
//! one header and one map (some 4 MiB at the very worst, 2 KiB for common files). It refuses
//! everything that [`crate::format::tar`] would not have written.
//!
//! It also checks the order of the stream: every path must come after the one before
//! ([`order::compare`]). That excludes duplicates and, with one check of the path before, any path
//! through something that is no directory.

use crate::format::tar;
use crate::format::tar::{BLOCK, Entry, Extent, Kind, order};

use crate::format::tar::decode;
pub use crate::format::tar::decode::HeaderError;
use crate::format::tar::decode::{Fields, Map};

/// The next part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A member begins.
    Member(Box<Entry>),
    /// Bytes of its content.
    Data {
        /// Their offset in the file; bytes in between are a hole.
        at: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The member's content is complete.
    MemberEnd,
    /// The stream is complete.
    End,
}

/// The error for a stream that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, at byte {offset} of the stream: {kind}", self.name())]
pub struct ParseError {
    /// The member, or the one before if its own name is not known.
    pub path: Vec<u8>,
    /// True if `path` is the member before.
    pub after: bool,
    /// Offset in the stream, in bytes, at which reading stopped.
    pub offset: u64,
    /// The fault.
    #[source]
    pub kind: ParseErrorKind,
}

impl ParseError {
    fn name(&self) -> String {
        let path = String::from_utf8_lossy(&self.path);
        match (self.after, self.path.is_empty()) {
            (_, true) => "the first member".to_owned(),
            (true, false) => format!("the member after {path:?}"),
            (false, false) => format!("{path:?}"),
        }
    }
}

/// The fault in a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A member's header is invalid.
    #[error("{0}")]
    Header(#[source] HeaderError),
    /// A PAX header is empty, or longer than [`tar::MAX_PAX`].
    #[error("an extended header of {0} bytes")]
    PaxSize(u64),
    /// A path does not come after the one before: it is a duplicate, or out of order.
    #[error("it does not come after the member before it")]
    Order,
    /// A path leads through a member that is no directory.
    #[error("its path leads through a member that is no directory")]
    NotBeneathDirectory,
    /// Padding is not zeros.
    #[error("its padding is not zeros")]
    Padding,
    /// One block of zeros has no second.
    #[error("a single block of zeros")]
    LoneZeros,
    /// Bytes follow the end.
    #[error("bytes after the end")]
    Trailing,
    /// The bytes stop before the end.
    #[error("it stops in the middle")]
    Truncated,
}

#[derive(Debug)]
enum State {
    /// Gathering a block: the first of a member, or zeros.
    First,
    /// Gathering the second block of zeros.
    Zeros,
    /// Gathering records and padding of a PAX header.
    Records {
        len: usize,
    },
    /// Gathering the ustar block after a PAX header.
    Main {
        records: usize,
    },
    /// Gathering the map.
    Map {
        fields: Box<Fields>,
        map: Map,
    },
    Content(Content),
    Over,
}

#[derive(Debug)]
struct Content {
    extents: Vec<Extent>,
    extent: usize,
    within: u64,
    padding: usize,
}

/// The end that a stream must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A whole stream, ended by two blocks of zeros.
    Stream,
    /// Members from anywhere in a stream, in order; it may stop after any of them.
    Members,
}

/// Parses one stream.
#[derive(Debug)]
pub struct Parser {
    expect: Expect,
    state: State,
    /// Blocks of the header that is being gathered.
    header: Vec<u8>,
    block: Vec<u8>,
    path: Vec<u8>,
    path_is_directory: bool,
    known: bool,
    offset: u64,
}

impl Parser {
    /// Returns a parser at the start of a member.
    #[must_use]
    pub fn new(expect: Expect) -> Self {
        Self {
            expect,
            state: State::First,
            header: Vec::new(),
            block: Vec::with_capacity(BLOCK),
            path: Vec::new(),
            path_is_directory: true,
            known: false,
            offset: 0,
        }
    }

    /// Returns the next event, and takes the bytes of it from the front of `input`. `None` if `input`
    /// is empty and more is needed.
    ///
    /// # Errors
    /// [`ParseError`]; the parser must not be used after it.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ParseError> {
        loop {
            if let State::Content(content) = &mut self.state {
                if let Some(event) = content.next(input, &mut self.offset) {
                    let event = event.map_err(|kind| self.error(kind))?;
                    if event == Event::MemberEnd {
                        self.state = State::First;
                        self.known = false;
                    }
                    return Ok(Some(event));
                }
                return Ok(None);
            }
            if input.is_empty() {
                return Ok(None);
            }
            if matches!(self.state, State::Over) {
                return Err(self.error(ParseErrorKind::Trailing));
            }
            if !self.gather(input) {
                return Ok(None);
            }
            if let Some(event) = self.step().map_err(|kind| self.error(kind))? {
                return Ok(Some(event));
            }
        }
    }

    /// Checks that the stream may end here. Called when there are no more bytes.
    ///
    /// # Errors
    /// [`ParseErrorKind::Truncated`] if the bytes stop in the middle.
    pub fn finish(&self) -> Result<(), ParseError> {
        match (&self.state, self.expect) {
            (State::Over, _) => Ok(()),
            (State::First, Expect::Members) if self.block.is_empty() => Ok(()),
            _ => Err(self.error(ParseErrorKind::Truncated)),
        }
    }

    /// Collects the bytes that the state needs into `block`. Returns true if it is complete.
    fn gather(&mut self, input: &mut &[u8]) -> bool {
        let need = match &self.state {
            State::Records { len } => len + tar::padding(*len as u64),
            _ => BLOCK,
        };
        let take = (need - self.block.len()).min(input.len());
        let (now, later) = input.split_at(take);
        self.block.extend_from_slice(now);
        self.offset += take as u64;
        *input = later;
        self.block.len() == need
    }

    /// Processes the gathered block.
    fn step(&mut self) -> Result<Option<Event<'static>>, ParseErrorKind> {
        let gathered = std::mem::take(&mut self.block);
        let header = |error| ParseErrorKind::Header(error);
        match std::mem::replace(&mut self.state, State::Over) {
            State::First if gathered.iter().all(|&byte| byte == 0) => self.state = State::Zeros,
            State::First => {
                let (kind, size) = decode::block(array(&gathered)?).map_err(header)?;
                self.header.clear();
                self.header.extend_from_slice(&gathered);
                if kind != b'x' {
                    return self.main(0);
                }
                let len = usize::try_from(size).ok().filter(|len| (1..=tar::MAX_PAX).contains(len));
                self.state = State::Records { len: len.ok_or(ParseErrorKind::PaxSize(size))? };
            }
            State::Zeros => {
                if gathered.iter().any(|&byte| byte != 0) {
                    return Err(ParseErrorKind::LoneZeros);
                }
                return Ok(Some(Event::End));
            }
            State::Records { len } => {
                self.header.extend_from_slice(&gathered);
                self.state = State::Main { records: len };
            }
            State::Main { records } => {
                decode::block(array(&gathered)?).map_err(header)?;
                self.header.extend_from_slice(&gathered);
                return self.main(records);
            }
            State::Map { fields, mut map } => {
                if map.push(&gathered).map_err(header)? {
                    let entry = decode::entry(*fields, &self.header, &map.bytes).map_err(header)?;
                    return Ok(Some(self.begin(entry)));
                }
                if map.bytes.len() as u64 >= fields.stored {
                    return Err(ParseErrorKind::Header(HeaderError::Map));
                }
                self.state = State::Map { fields, map };
            }
            State::Content(_) | State::Over => {}
        }
        // The buffer is reused.
        self.block = gathered;
        self.block.clear();
        Ok(None)
    }

    /// Decodes the member's own block, which is complete.
    fn main(&mut self, records: usize) -> Result<Option<Event<'static>>, ParseErrorKind> {
        let header = |error| ParseErrorKind::Header(error);
        let from = if records == 0 { 0 } else { BLOCK };
        let main = self.header.last_chunk::<BLOCK>().ok_or(ParseErrorKind::Truncated)?;
        let fields = decode::fields(&self.header[from..from + records], main).map_err(header)?;
        self.follow(&fields.entry)?;
        if fields.sparse.is_some() {
            self.state = State::Map { fields: Box::new(fields), map: Map::default() };
            return Ok(None);
        }
        let entry = decode::entry(fields, &self.header, &[]).map_err(header)?;
        Ok(Some(self.begin(entry)))
    }

    /// Checks the path against the one before it.
    fn follow(&mut self, entry: &Entry) -> Result<(), ParseErrorKind> {
        let first = self.path.is_empty();
        let after = first || order::compare(&self.path, &entry.path).is_lt();
        let through = !self.path_is_directory && order::is_below(&entry.path, &self.path);
        self.path.clone_from(&entry.path);
        self.path_is_directory = entry.kind == Kind::Directory;
        self.known = true;
        match (after, through) {
            (false, _) => Err(ParseErrorKind::Order),
            (true, true) => Err(ParseErrorKind::NotBeneathDirectory),
            (true, false) => Ok(()),
        }
    }

    fn begin(&mut self, entry: Entry) -> Event<'static> {
        let extents = match &entry.kind {
            Kind::File { size } => vec![Extent { offset: 0, len: *size }],
            Kind::Sparse { extents, .. } => extents.clone(),
            _ => Vec::new(),
        };
        let stored: u64 = extents.iter().map(|extent| extent.len).sum();
        self.state = State::Content(Content { extents, extent: 0, within: 0, padding: tar::padding(stored) });
        Event::Member(Box::new(entry))
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError { path: self.path.clone(), after: !self.known, offset: self.offset, kind }
    }
}

impl Content {
    /// Returns the next piece of content, or its end; `None` if more input is needed.
    fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        offset: &mut u64,
    ) -> Option<Result<Event<'a>, ParseErrorKind>> {
        while let Some(extent) = self.extents.get(self.extent) {
            let left = extent.len - self.within;
            if left == 0 {
                (self.extent, self.within) = (self.extent + 1, 0);
                continue;
            }
            if input.is_empty() {
                return None;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (bytes, later) = input.split_at(take);
            let at = extent.offset + self.within;
            *input = later;
            *offset += take as u64;
            self.within += take as u64;
            return Some(Ok(Event::Data { at, bytes }));
        }
        let (zeros, later) = input.split_at(self.padding.min(input.len()));
        *input = later;
        *offset += zeros.len() as u64;
        self.padding -= zeros.len();
        if zeros.iter().any(|&byte| byte != 0) {
            return Some(Err(ParseErrorKind::Padding));
        }
        (self.padding == 0).then_some(Ok(Event::MemberEnd))
    }
}

fn array(block: &[u8]) -> Result<&[u8; BLOCK], ParseErrorKind> {
    block.try_into().map_err(|_| ParseErrorKind::Truncated)
}
