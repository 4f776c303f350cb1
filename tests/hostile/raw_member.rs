//! Tar members as an attacker would write them: any field, any record, a valid checksum.

/// One member, field by field. The defaults are those of the encoder, so that only a case's changes
/// are wrong.
#[derive(Debug, Clone)]
pub struct RawMember {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: Vec<u8>,
    pub uid: Vec<u8>,
    pub gid: Vec<u8>,
    pub size: Vec<u8>,
    pub mtime: Vec<u8>,
    pub magic: Vec<u8>,
    pub prefix: Vec<u8>,
    pub major: Vec<u8>,
    pub minor: Vec<u8>,
    pub checksum: Option<Vec<u8>>,
    /// The records of a PAX header, verbatim.
    pub records: Option<Vec<u8>>,
    /// The size that the PAX header claims, if it is false.
    pub records_size: Option<Vec<u8>>,
    /// The content, padded on output.
    pub content: Vec<u8>,
}

pub fn octal(value: u64, digits: usize) -> Vec<u8> {
    format!("{value:0digits$o}\0").into_bytes()
}

impl RawMember {
    pub fn new(kind: u8, name: &[u8]) -> Self {
        Self {
            name: name.to_vec(),
            kind,
            link: Vec::new(),
            mode: octal(0o644, 7),
            uid: octal(0, 7),
            gid: octal(0, 7),
            size: octal(0, 11),
            mtime: octal(0, 11),
            magic: b"ustar\x0000".to_vec(),
            prefix: Vec::new(),
            major: octal(0, 7),
            minor: octal(0, 7),
            checksum: None,
            records: None,
            records_size: None,
            content: Vec::new(),
        }
    }

    pub fn file(name: &[u8], content: &[u8]) -> Self {
        let size = octal(content.len() as u64, 11);
        Self { size, content: content.to_vec(), ..Self::new(b'0', name) }
    }

    pub fn directory(name: &[u8]) -> Self {
        Self { mode: octal(0o755, 7), ..Self::new(b'5', name) }
    }

    pub fn symlink(name: &[u8], target: &[u8]) -> Self {
        Self { mode: octal(0o777, 7), link: target.to_vec(), ..Self::new(b'2', name) }
    }

    pub fn hard_link(name: &[u8], link_target: &[u8]) -> Self {
        Self { link: link_target.to_vec(), ..Self::new(b'1', name) }
    }

    /// Adds a PAX record of the right length.
    pub fn record(mut self, key: &[u8], value: &[u8]) -> Self {
        self.records.get_or_insert_default().extend_from_slice(&record(key, value));
        self
    }

    /// Sets the bytes of a PAX header.
    pub fn records(mut self, bytes: &[u8]) -> Self {
        self.records = Some(bytes.to_vec());
        self
    }

    /// Applies a change.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(records) = &self.records {
            let mut pax = Self::new(b'x', b"./PaxHeaders/kbak");
            pax.size = self.records_size.clone().unwrap_or_else(|| octal(records.len() as u64, 11));
            out.extend_from_slice(&pax.block());
            out.extend_from_slice(&padded(records));
        }
        out.extend_from_slice(&self.block());
        out.extend_from_slice(&padded(&self.content));
        out
    }

    fn block(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, width: usize, value: &[u8]| {
            let len = value.len().min(width);
            block[at..at + len].copy_from_slice(&value[..len]);
        };
        put(0, 100, &self.name);
        put(100, 8, &self.mode);
        put(108, 8, &self.uid);
        put(116, 8, &self.gid);
        put(124, 12, &self.size);
        put(136, 12, &self.mtime);
        put(148, 8, b"        ");
        put(156, 1, &[self.kind]);
        put(157, 100, &self.link);
        put(257, 8, &self.magic);
        put(329, 8, &self.major);
        put(337, 8, &self.minor);
        put(345, 155, &self.prefix);
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        let checksum = self.checksum.clone().unwrap_or_else(|| format!("{sum:06o}\0 ").into_bytes());
        block[148..156].copy_from_slice(&checksum);
        block
    }
}

/// Returns a PAX record with its own length in front.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    let length =
        (1..10).map(|digits| body.len() + digits).find(|len| body.len() + len.to_string().len() == *len);
    [length.expect("a length").to_string().as_bytes(), &body].concat()
}

/// Returns a file with holes: its real size, the map as text, the content of its extents.
pub fn sparse(name: &[u8], size: u64, map: &str, content: &[u8]) -> RawMember {
    let stored = [padded(map.as_bytes()), content.to_vec()].concat();
    let mut raw = RawMember::file(&[b"GNUSparseFile.0/", name].concat(), &stored);
    raw.records = Some(
        [
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.name", name),
            record(b"GNU.sparse.realsize", size.to_string().as_bytes()),
        ]
        .concat(),
    );
    raw
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

/// Returns a whole stream.
pub fn stream(members: &[RawMember]) -> Vec<u8> {
    let mut all: Vec<u8> = members.iter().flat_map(RawMember::bytes).collect();
    all.extend_from_slice(&[0u8; 1024]);
    all
}
