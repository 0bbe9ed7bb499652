//! A chunk as it may come over the wire: it opens to what its digest says, or is refused, within the declared memory.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pgconvoy_proto::frame::{MAX_RAW_BYTES, Opener, Sealer};
use pgconvoy_proto::model::{Buckets, Pair, SlimPair};
use pgconvoy_proto::wire;

fuzz_target!(|input: (u8, Vec<u8>, u32, Vec<u8>, bool, u16, u8)| {
    let (level, payload, raw_length, digest, compressed, at, flip) = input;
    let mut opener = Opener::new().expect("zstd");

    let forged = wire::Chunk { payload: payload.clone().into(), raw_length, digest: digest.clone().into(), compressed };
    if let Ok(raw) = opener.open(forged) {
        assert!(raw.len() == raw_length as usize && raw.len() <= MAX_RAW_BYTES);
    }

    let mut sealer = Sealer::new(i32::from(level % 4)).expect("a level");
    let chunk = sealer.seal(payload.clone().into()).expect("memory");
    assert_eq!(opener.open(chunk.clone()).expect("what was sealed"), payload);
    let mut damaged = chunk.payload.to_vec();
    if let Some(byte) = damaged.get_mut(usize::from(at)).filter(|_| flip != 0) {
        *byte ^= flip;
        let damaged = wire::Chunk { payload: damaged.into(), ..chunk };
        // zstd may not notice, but what it then gives is what was sealed, or the digest does not agree.
        if let Ok(raw) = opener.open(damaged) {
            assert_eq!(raw, payload);
        }
    }

    if let Ok(pairs) = Pair::unpack_all(&payload) {
        let mut packed = Vec::new();
        pairs.for_each(|pair| pair.pack(&mut packed));
        assert_eq!(packed, payload);
    }
    if let Ok(pairs) = SlimPair::unpack_all(&payload) {
        assert_eq!(SlimPair::pack_all(&pairs), payload);
    }
    if let Ok(buckets) = Buckets::new(raw_length, digest) {
        assert!(buckets.len() <= buckets.count);
        buckets.contains(u128::MAX);
    }
});
