//! The chunk frame: about 1 MiB of COPY data, compressed, with a digest of what it was before.
//!
//! Invariant 1 (bytes): what reaches `COPY FROM` is byte for byte what left `COPY TO` (but for padding, which `padding.rs` of the agents
//! takes off before a chunk is made). [`Opener::open`] is the only way to get at a
//! chunk's data, and gives none that does not agree with its digest. The digest finds faults, not forgers: a forger is kept out
//! by mutual TLS.
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::wire;

/// COPY data is cut into chunks of this size, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A chunk that says it is larger than this is refused before anything is allocated for it.
pub const MAX_RAW_BYTES: usize = 4 << 20;

/// Limit for one gRPC message: a chunk that does not compress, and its frame.
pub const MAX_MESSAGE_BYTES: usize = MAX_RAW_BYTES + (1 << 20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("chunk says it holds {0} bytes; the limit is {MAX_RAW_BYTES}")]
    TooLarge(usize),
    #[error("chunk cannot be decompressed ({0})")]
    Zstd(std::io::Error),
    #[error("chunk has {found} bytes after decompression, {expected} were sent")]
    Length { expected: usize, found: usize },
    #[error("chunk's digest does not agree with its bytes: it was damaged on the way")]
    Digest,
}

/// The level for a link that is faster than compressing: repetitive rows cost less compressed than encrypted and sent whole, all
/// others go as they are.
pub const THRIFTY: i32 = -1;

/// Compressing that saves less than one byte in so many is not worth the time.
const WORTH: usize = 16;
/// Under [`THRIFTY`]: a chunk has to become so many times smaller.
const WORTH_ON_A_FAST_LINK: usize = 8;
/// After so many chunks in a row that were not worth it (images, encrypted data)...
const FRUITLESS: u32 = 4;
/// ...so many go as they are, before it is tried again.
const PAUSE: u32 = 32;

/// Seals chunks at one compression level; one per stream.
pub struct Sealer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    thrifty: bool,
    /// Where chunks are compressed: kept, and what is sent is copied out of it in its own size.
    packed: Vec<u8>,
    /// Chunks in a row that compression did not make worth it.
    fruitless: u32,
    /// Chunks that are not tried.
    pause: u32,
}

impl Sealer {
    /// `level`: of zstd, or [`THRIFTY`]; 0 is off. Errors when zstd refuses the level.
    pub fn new(level: i32) -> std::io::Result<Self> {
        let thrifty = level == THRIFTY;
        let zstd = match level {
            0 => None,
            THRIFTY => Some(zstd::bulk::Compressor::new(1)?),
            level => Some(zstd::bulk::Compressor::new(level)?),
        };
        Ok(Self {
            zstd,
            thrifty,
            packed: Vec::new(),
            fruitless: 0,
            pause: 0,
        })
    }

    /// For the chunks that follow, of a sealer that compresses. Errors when zstd refuses the level.
    pub fn set_level(&mut self, level: i32) -> std::io::Result<()> {
        match &mut self.zstd {
            Some(zstd) => zstd.set_compression_level(level),
            None => Ok(()),
        }
    }

    pub fn seal(&mut self, raw: Bytes) -> std::io::Result<wire::Chunk> {
        let digest = Bytes::copy_from_slice(&xxh3_128(&raw).to_be_bytes());
        let raw_length = raw.len() as u32;
        let packed = self.pack(&raw)?;
        Ok(wire::Chunk {
            compressed: packed.is_some(),
            payload: packed.unwrap_or(raw),
            raw_length,
            digest,
        })
    }

    /// None when the chunk is to go as it is.
    fn pack(&mut self, raw: &[u8]) -> std::io::Result<Option<Bytes>> {
        let Some(zstd) = &mut self.zstd else {
            return Ok(None);
        };
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(None);
        }
        self.packed.clear();
        self.packed
            .reserve(zstd::zstd_safe::compress_bound(raw.len()));
        zstd.compress_to_buffer(raw, &mut self.packed)?;
        let worth = match self.thrifty {
            true => raw.len() / WORTH_ON_A_FAST_LINK,
            false => raw
                .len()
                .saturating_sub(1)
                .min(raw.len() - raw.len() / WORTH),
        };
        if self.packed.len() <= worth {
            self.fruitless = 0;
            return Ok(Some(Bytes::copy_from_slice(&self.packed)));
        }
        self.fruitless += 1;
        if self.fruitless >= FRUITLESS {
            self.pause = PAUSE;
        }
        Ok(None)
    }
}

/// Opens chunks; one per stream.
pub struct Opener {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Opener {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Decompressor::new()?,
        })
    }

    /// The chunk's data, checked against its digest.
    pub fn open(&mut self, chunk: wire::Chunk) -> Result<Bytes, Error> {
        let expected = chunk.raw_length as usize;
        if expected > MAX_RAW_BYTES {
            return Err(Error::TooLarge(expected));
        }
        let raw = if chunk.compressed {
            Bytes::from(
                self.zstd
                    .decompress(&chunk.payload, expected)
                    .map_err(Error::Zstd)?,
            )
        } else {
            chunk.payload
        };
        if raw.len() != expected {
            return Err(Error::Length {
                expected,
                found: raw.len(),
            });
        }
        if xxh3_128(&raw).to_be_bytes()[..] != chunk.digest[..] {
            return Err(Error::Digest);
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn data() -> Bytes {
        (0..200_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn what_is_sealed_opens_at_every_level() {
        for level in [0, 1, 3, 9] {
            let chunk = Sealer::new(level).unwrap().seal(data()).unwrap();
            assert_eq!(chunk.compressed, level != 0);
            assert_eq!(Opener::new().unwrap().open(chunk).unwrap(), data());
        }
    }

    #[test]
    fn what_does_not_compress_is_soon_sent_as_it_is_and_tried_again_later() {
        let mut state = 1u64;
        let noise: Bytes = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(10_000)
        .collect();
        let mut sealer = Sealer::new(1).unwrap();
        for _ in 0..FRUITLESS {
            assert!(!sealer.seal(noise.clone()).unwrap().compressed);
        }
        let paused = (0..2 * PAUSE).take_while(|_| !sealer.seal(data()).unwrap().compressed);
        assert_eq!(paused.count() as u32, PAUSE);
        assert!(sealer.seal(data()).unwrap().compressed);
    }

    #[test]
    fn a_fast_link_gets_compressed_only_what_shrinks_a_lot() {
        let rows: Bytes = b"42, a name, and blanks                                 "
            .repeat(1000)
            .into();
        let mut sealer = Sealer::new(THRIFTY).unwrap();
        let chunk = sealer.seal(rows.clone()).unwrap();
        assert!(chunk.compressed && chunk.payload.len() <= rows.len() / WORTH_ON_A_FAST_LINK);
        assert_eq!(Opener::new().unwrap().open(chunk).unwrap(), rows);
        // Half its size, or a quarter.
        let words: Bytes = (0..20_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes())
            .collect::<Vec<_>>()
            .into();
        assert!(
            Sealer::new(1)
                .unwrap()
                .seal(words.clone())
                .unwrap()
                .compressed
        );
        assert!(!sealer.seal(words).unwrap().compressed);
    }

    #[test]
    fn any_flipped_byte_is_found() {
        for level in [0, 1] {
            let chunk = Sealer::new(level).unwrap().seal(data()).unwrap();
            for at in (0..chunk.payload.len()).step_by(chunk.payload.len() / 50) {
                let mut damaged = chunk.clone();
                let mut payload = damaged.payload.to_vec();
                payload[at] ^= 0x20;
                damaged.payload = payload.into();
                assert!(
                    Opener::new().unwrap().open(damaged).is_err(),
                    "level {level}, byte {at}"
                );
            }
        }
    }

    #[test]
    fn a_chunk_that_claims_too_much_is_refused() {
        let mut chunk = Sealer::new(1).unwrap().seal(data()).unwrap();
        chunk.raw_length = u32::MAX;
        assert!(matches!(
            Opener::new().unwrap().open(chunk),
            Err(Error::TooLarge(_))
        ));
    }

    #[test]
    fn a_shortened_length_is_found() {
        let mut chunk = Sealer::new(1).unwrap().seal(data()).unwrap();
        chunk.raw_length -= 1;
        assert!(Opener::new().unwrap().open(chunk).is_err());
    }
}
