use crate::model::{Buckets, Malformed, Place, RowValues, TableDigest, Value, required};
use crate::wire;

impl TryFrom<wire::TableDigest> for TableDigest {
    type Error = Malformed;

    fn try_from(digest: wire::TableDigest) -> Result<Self, Malformed> {
        let (sums, rest) = digest.buckets.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Malformed::new("a bucket that is cut"));
        }
        Ok(Self {
            digest: required(digest.digest, "digest")?.try_into()?,
            generated: digest
                .generated
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            buckets: sums.iter().map(|sum| u64::from_be_bytes(*sum)).collect(),
        })
    }
}

impl From<TableDigest> for wire::TableDigest {
    fn from(digest: TableDigest) -> Self {
        let sums = digest.buckets.iter().flat_map(|sum| sum.to_be_bytes());
        Self {
            digest: Some(digest.digest.into()),
            generated: (digest.generated.rows > 0).then(|| digest.generated.into()),
            buckets: sums.collect::<Vec<u8>>().into(),
        }
    }
}

impl TryFrom<wire::Buckets> for Buckets {
    type Error = Malformed;

    fn try_from(buckets: wire::Buckets) -> Result<Self, Malformed> {
        Self::new(buckets.count, buckets.bits.into())
    }
}

impl From<Buckets> for wire::Buckets {
    fn from(buckets: Buckets) -> Self {
        Self {
            count: buckets.count,
            bits: buckets.bits().to_vec().into(),
        }
    }
}

impl TryFrom<wire::Place> for Place {
    type Error = Malformed;

    fn try_from(place: wire::Place) -> Result<Self, Malformed> {
        Ok(Self {
            table: place.table,
            block: place.block,
            offset: u16::try_from(place.offset)
                .map_err(|_| Malformed::new("a ctid that cannot be"))?,
        })
    }
}

impl From<Place> for wire::Place {
    fn from(place: Place) -> Self {
        Self {
            table: place.table,
            block: place.block,
            offset: place.offset.into(),
        }
    }
}

impl TryFrom<wire::RowValues> for RowValues {
    type Error = Malformed;

    fn try_from(row: wire::RowValues) -> Result<Self, Malformed> {
        Ok(Self {
            place: required(row.place, "place")?.try_into()?,
            values: row
                .values
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<RowValues> for wire::RowValues {
    fn from(row: RowValues) -> Self {
        Self {
            place: Some(row.place.into()),
            values: row.values.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Value> for Value {
    type Error = Malformed;

    fn try_from(value: wire::Value) -> Result<Self, Malformed> {
        let hash = match value.hash.len() {
            0 => None,
            _ => Some(u128::from_be_bytes(
                value
                    .hash
                    .as_ref()
                    .try_into()
                    .map_err(|_| Malformed::new("a value's hash that is cut"))?,
            )),
        };
        Ok(Self {
            hash,
            text: value.text,
        })
    }
}

impl From<Value> for wire::Value {
    fn from(value: Value) -> Self {
        let hash = value.hash.map(|hash| hash.to_be_bytes().to_vec());
        Self {
            hash: hash.unwrap_or_default().into(),
            text: value.text,
        }
    }
}
