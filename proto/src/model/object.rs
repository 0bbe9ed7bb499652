//! Files of storage buckets: what is proven of them.
use std::fmt;

use xxhash_rust::xxh3::Xxh3;

use super::Malformed;
use crate::wire;

/// The table whose rows say which files there are.
pub const TABLE: (&str, &str) = ("storage", "objects");
/// Its column that the target's Storage API chooses for itself: not copied, and no part of the table's digest, where files are carried.
pub const VERSION: &str = "version";

/// A file in a bucket, by the names that the Storage API knows it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    pub bucket: String,
    /// With slashes.
    pub name: String,
}

impl Object {
    pub fn new(bucket: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.name)
    }
}

impl TryFrom<wire::ObjectName> for Object {
    type Error = Malformed;

    fn try_from(name: wire::ObjectName) -> Result<Self, Malformed> {
        if name.bucket.is_empty() || name.name.is_empty() {
            return Err(Malformed::new("a file has a bucket and a name"));
        }
        Ok(Self::new(name.bucket, name.name))
    }
}

impl From<Object> for wire::ObjectName {
    fn from(object: Object) -> Self {
        Self {
            bucket: object.bucket,
            name: object.name,
        }
    }
}

/// Of a request.
pub fn objects(names: Vec<wire::ObjectName>) -> Result<Vec<Object>, Malformed> {
    names.into_iter().map(Object::try_from).collect()
}

/// How long a file is, and the XXH3-128 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest {
    pub bytes: u64,
    pub sum: u128,
}

impl FileDigest {
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }

    pub fn parse(bytes: u64, hex: &str) -> Result<Self, Malformed> {
        let sum = u128::from_str_radix(hex, 16)
            .map_err(|_| Malformed::new("a file's digest is no hexadecimal number"))?;
        Ok(Self { bytes, sum })
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {}", self.bytes, self.hex())
    }
}

/// Digests a file as it passes.
#[derive(Default)]
pub struct FileDigester {
    bytes: u64,
    sum: Xxh3,
}

impl FileDigester {
    pub fn feed(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.sum.update(data);
    }

    pub fn finish(&self) -> FileDigest {
        FileDigest {
            bytes: self.bytes,
            sum: self.sum.digest128(),
        }
    }
}

impl TryFrom<wire::FileDigest> for FileDigest {
    type Error = Malformed;

    fn try_from(file: wire::FileDigest) -> Result<Self, Malformed> {
        let sum: [u8; 16] = file.digest[..]
            .try_into()
            .map_err(|_| Malformed::new("a file's digest has 16 bytes"))?;
        Ok(Self {
            bytes: file.bytes,
            sum: u128::from_be_bytes(sum),
        })
    }
}

impl From<FileDigest> for wire::FileDigest {
    fn from(file: FileDigest) -> Self {
        Self {
            bytes: file.bytes,
            digest: file.sum.to_be_bytes().to_vec().into(),
        }
    }
}

/// What the target's ledger has of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Of the source's row: another one when the file is.
    pub mark: String,
    pub state: ObjectState,
    /// As the source agent read it.
    pub file: Option<FileDigest>,
    /// As the target agent read it back; None inside: it found none.
    pub read: Option<Option<FileDigest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// The target's API took it. Set by PutObject, in one transaction with the row.
    Copied,
    /// The source has a row and no file.
    Missing,
    /// The target's API does not take it.
    Refused,
}

impl ObjectState {
    /// As the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Malformed> {
        [Self::Copied, Self::Missing, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Malformed::new(format!("a file cannot be {text:?}")))
    }
}

impl TryFrom<wire::ObjectEntry> for ObjectEntry {
    type Error = Malformed;

    fn try_from(entry: wire::ObjectEntry) -> Result<Self, Malformed> {
        let file = |file: Option<wire::FileDigest>| file.map(TryInto::try_into).transpose();
        let read = file(entry.read)?;
        Ok(Self {
            mark: entry.mark,
            state: ObjectState::parse(&entry.state)?,
            file: file(entry.file)?,
            read: entry.looked.then_some(read),
        })
    }
}

impl From<ObjectEntry> for wire::ObjectEntry {
    fn from(entry: ObjectEntry) -> Self {
        Self {
            mark: entry.mark,
            state: entry.state.as_str().into(),
            file: entry.file.map(Into::into),
            looked: entry.read.is_some(),
            read: entry.read.flatten().map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_digested_in_pieces_is_the_same_file() {
        let mut pieces = FileDigester::default();
        for piece in [&b"a"[..], b"", b"bcd"] {
            pieces.feed(piece);
        }
        let mut whole = FileDigester::default();
        whole.feed(b"abcd");
        assert_eq!(pieces.finish(), whole.finish());
        let file = whole.finish();
        assert_eq!(FileDigest::parse(4, &file.hex()).unwrap(), file);
        assert_eq!(
            FileDigest::try_from(wire::FileDigest::from(file)).unwrap(),
            file
        );
    }

    #[test]
    fn what_was_looked_for_and_not_found_survives_the_wire() {
        for read in [
            None,
            Some(None),
            Some(Some(FileDigester::default().finish())),
        ] {
            let entry = ObjectEntry {
                mark: "m".into(),
                state: ObjectState::Copied,
                file: Some(FileDigester::default().finish()),
                read,
            };
            let sent = wire::ObjectEntry::from(entry.clone());
            assert_eq!(ObjectEntry::try_from(sent).unwrap(), entry);
        }
    }
}
