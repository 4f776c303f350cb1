//! A strict, incremental reader of the tar streams that kbak writes. It does no I/O and holds at most
//! one header and one map (some 4 MiB at the very worst, 2 KiB for common files). It refuses
//! everything that [`super::encode`] would not have written.
//!
//! It also checks the order of the stream: every path must come after the one before
//! ([`order::compare`]). That excludes duplicates and, with one check of the path before, any path
//! through something that is no directory.

pub use super::decode::HeaderError;
use super::decode::{self, DecodedHeader, SparseMap};
use super::{BLOCK, EntryKind, Extent, MAX_PAX, TarEntry, order, padding};

/// The next part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// A member begins.
    Member(Box<TarEntry>),
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
    pub is_after: bool,
    /// Offset in the stream, in bytes, at which reading stopped.
    pub offset: u64,
    /// The fault.
    #[source]
    pub kind: ParseErrorKind,
}

impl ParseError {
    fn name(&self) -> String {
        let path = String::from_utf8_lossy(&self.path);
        match (self.is_after, self.path.is_empty()) {
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
    /// A PAX header is empty, or longer than [`MAX_PAX`].
    #[error("an extended header of {0} bytes")]
    PaxSize(u64),
    /// A path does not come after the one before: it is a duplicate, or out of order.
    #[error("it is a duplicate or out of order")]
    Order,
    /// A path leads through a member that is no directory.
    #[error("its path leads through a member that is no directory")]
    NotBeneathDirectory,
    /// Padding is not zeros.
    #[error("its padding is not zeros")]
    Padding,
    /// One block of zeros has no second.
    #[error("a single block of zeros, where two end the stream")]
    LoneZeros,
    /// Bytes follow the end.
    #[error("bytes follow the end of the stream")]
    Trailing,
    /// The bytes stop before the end.
    #[error("the stream ends too early")]
    Truncated,
}

#[derive(Debug)]
enum ParserState {
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
        fields: Box<DecodedHeader>,
        map: SparseMap,
    },
    Content(ContentCursor),
    Over,
}

#[derive(Debug)]
struct ContentCursor {
    extents: Vec<Extent>,
    extent: usize,
    within: u64,
    padding: usize,
}

/// The end that a stream must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedInput {
    /// A whole stream, ended by two blocks of zeros.
    Stream,
    /// Members from anywhere in a stream, in order; it may stop after any of them.
    Members,
}

/// Parses one stream.
#[derive(Debug)]
pub struct TarParser {
    expect: ExpectedInput,
    state: ParserState,
    /// Blocks of the header that is being gathered.
    header: Vec<u8>,
    block: Vec<u8>,
    path: Vec<u8>,
    path_is_directory: bool,
    is_path_known: bool,
    offset: u64,
}

impl TarParser {
    /// Returns a parser at the start of a member.
    #[must_use]
    pub fn new(expect: ExpectedInput) -> Self {
        Self {
            expect,
            state: ParserState::First,
            header: Vec::new(),
            block: Vec::with_capacity(BLOCK),
            path: Vec::new(),
            path_is_directory: true,
            is_path_known: false,
            offset: 0,
        }
    }

    /// Returns the next event, and takes the bytes of it from the front of `input`. `None` if `input` is
    /// empty and more is needed. The parser must not be used after an error.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, ParseError> {
        loop {
            if let ParserState::Content(content) = &mut self.state {
                if let Some(event) = content.next(input, &mut self.offset) {
                    let event = event.map_err(|kind| self.error(kind))?;
                    if event == TarEvent::MemberEnd {
                        self.state = ParserState::First;
                        self.is_path_known = false;
                    }
                    return Ok(Some(event));
                }
                return Ok(None);
            }
            if input.is_empty() {
                return Ok(None);
            }
            if matches!(self.state, ParserState::Over) {
                return Err(self.error(ParseErrorKind::Trailing));
            }
            if !self.gather(input) {
                return Ok(None);
            }
            if let Some(event) = self.process_block().map_err(|kind| self.error(kind))? {
                return Ok(Some(event));
            }
        }
    }

    /// Checks that the stream may end here. Called when there are no more bytes.
    /// Fails with [`ParseErrorKind::Truncated`] if the bytes stop in the middle.
    pub fn finish(&self) -> Result<(), ParseError> {
        match (&self.state, self.expect) {
            (ParserState::Over, _) => Ok(()),
            (ParserState::First, ExpectedInput::Members) if self.block.is_empty() => Ok(()),
            _ => Err(self.error(ParseErrorKind::Truncated)),
        }
    }

    /// Collects the bytes that the state needs into `block`. Returns true if it is complete.
    fn gather(&mut self, input: &mut &[u8]) -> bool {
        let need = match &self.state {
            ParserState::Records { len } => len + padding(*len as u64),
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
    fn process_block(&mut self) -> Result<Option<TarEvent<'static>>, ParseErrorKind> {
        let gathered = std::mem::take(&mut self.block);
        let header = |error| ParseErrorKind::Header(error);
        match std::mem::replace(&mut self.state, ParserState::Over) {
            ParserState::First if gathered.iter().all(|&byte| byte == 0) => self.state = ParserState::Zeros,
            ParserState::First => {
                let (kind, size) = decode::check_block(as_block(&gathered)?).map_err(header)?;
                self.header.clear();
                self.header.extend_from_slice(&gathered);
                if kind != b'x' {
                    return self.decode_member(0);
                }
                let len = usize::try_from(size).ok().filter(|len| (1..=MAX_PAX).contains(len));
                self.state = ParserState::Records { len: len.ok_or(ParseErrorKind::PaxSize(size))? };
            }
            ParserState::Zeros => {
                if gathered.iter().any(|&byte| byte != 0) {
                    return Err(ParseErrorKind::LoneZeros);
                }
                return Ok(Some(TarEvent::End));
            }
            ParserState::Records { len } => {
                self.header.extend_from_slice(&gathered);
                self.state = ParserState::Main { records: len };
            }
            ParserState::Main { records } => {
                decode::check_block(as_block(&gathered)?).map_err(header)?;
                self.header.extend_from_slice(&gathered);
                return self.decode_member(records);
            }
            ParserState::Map { fields, mut map } => {
                if map.push(&gathered).map_err(header)? {
                    let entry = decode::finish_entry(*fields, &self.header, &map.bytes).map_err(header)?;
                    return Ok(Some(self.begin_member(entry)));
                }
                if map.bytes.len() as u64 >= fields.stored {
                    return Err(ParseErrorKind::Header(HeaderError::Map));
                }
                self.state = ParserState::Map { fields, map };
            }
            ParserState::Content(_) | ParserState::Over => {}
        }
        // The buffer is reused.
        self.block = gathered;
        self.block.clear();
        Ok(None)
    }

    /// Decodes the member's own block, which is complete.
    fn decode_member(&mut self, records: usize) -> Result<Option<TarEvent<'static>>, ParseErrorKind> {
        let header = |error| ParseErrorKind::Header(error);
        let from = if records == 0 { 0 } else { BLOCK };
        let main = self.header.last_chunk::<BLOCK>().ok_or(ParseErrorKind::Truncated)?;
        let fields = decode::decode_header(&self.header[from..from + records], main).map_err(header)?;
        self.check_order(&fields.entry)?;
        if fields.sparse.is_some() {
            self.state = ParserState::Map { fields: Box::new(fields), map: SparseMap::default() };
            return Ok(None);
        }
        let entry = decode::finish_entry(fields, &self.header, &[]).map_err(header)?;
        Ok(Some(self.begin_member(entry)))
    }

    /// Checks the path against the one before it.
    fn check_order(&mut self, entry: &TarEntry) -> Result<(), ParseErrorKind> {
        let first = self.path.is_empty();
        let after = first || order::compare(&self.path, &entry.path).is_lt();
        let through = !self.path_is_directory && order::is_below(&entry.path, &self.path);
        self.path.clone_from(&entry.path);
        self.path_is_directory = entry.kind == EntryKind::Directory;
        self.is_path_known = true;
        match (after, through) {
            (false, _) => Err(ParseErrorKind::Order),
            (true, true) => Err(ParseErrorKind::NotBeneathDirectory),
            (true, false) => Ok(()),
        }
    }

    fn begin_member(&mut self, entry: TarEntry) -> TarEvent<'static> {
        let extents = match &entry.kind {
            EntryKind::File { size } => vec![Extent { offset: 0, len: *size }],
            EntryKind::Sparse { extents, .. } => extents.clone(),
            _ => Vec::new(),
        };
        let stored: u64 = extents.iter().map(|extent| extent.len).sum();
        self.state =
            ParserState::Content(ContentCursor { extents, extent: 0, within: 0, padding: padding(stored) });
        TarEvent::Member(Box::new(entry))
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError { path: self.path.clone(), is_after: !self.is_path_known, offset: self.offset, kind }
    }
}

impl ContentCursor {
    /// Returns the next piece of content, or its end; `None` if more input is needed.
    fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        offset: &mut u64,
    ) -> Option<Result<TarEvent<'a>, ParseErrorKind>> {
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
            return Some(Ok(TarEvent::Data { at, bytes }));
        }
        let (zeros, later) = input.split_at(self.padding.min(input.len()));
        *input = later;
        *offset += zeros.len() as u64;
        self.padding -= zeros.len();
        if zeros.iter().any(|&byte| byte != 0) {
            return Some(Err(ParseErrorKind::Padding));
        }
        (self.padding == 0).then_some(Ok(TarEvent::MemberEnd))
    }
}

fn as_block(block: &[u8]) -> Result<&[u8; BLOCK], ParseErrorKind> {
    block.try_into().map_err(|_| ParseErrorKind::Truncated)
}
