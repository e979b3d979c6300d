//! The safetensors container: the length of a header, the header, the numbers.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::input::Input;
use crate::short::short;
use crate::tensors::TensorLocation;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// No real header is larger.
pub(crate) const MOST_HEADER: u64 = 100 << 20;
/// More dimensions than any tensor has.
const MOST_DIMENSIONS: usize = 16;
/// More fields of metadata than any file has.
const MOST_METADATA: usize = 10_000;

/// Tensors in the order of their numbers, and the metadata.
pub(crate) struct Contents {
    pub(crate) tensors: Vec<(String, TensorLocation)>,
    pub(crate) metadata: BTreeMap<String, String>,
}

pub(crate) fn read(input: &mut Input<'_>) -> Result<Contents> {
    let mut length = [0; 8];
    length.copy_from_slice(&input.range(0, 8)?);
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER {
        return Err(input.bad(format!(
            "a header of {length} bytes, at most {MOST_HEADER} are read"
        )));
    }
    let header = input.range(8, length)?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|e| input.bad(format!("damaged header: {e}")))?;
    let data = 8 + length;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, entry) in header.tensors {
        let place = place(input, data, &name, entry)?;
        tensors.push((name, place));
    }
    tensors.sort_by(|(a, pa), (b, pb)| (pa.start, pa.numel, a).cmp(&(pb.start, pb.numel, b)));
    for pair in tensors.windows(2) {
        let ((a, pa), (b, pb)) = (&pair[0], &pair[1]);
        if pa.start + pa.numel * pa.dtype.size() > pb.start {
            return Err(input.bad(format!(
                "damaged header: {} and {} overlap",
                short(a),
                short(b)
            )));
        }
    }
    Ok(Contents {
        tensors,
        metadata: header.metadata,
    })
}

fn place(input: &Input<'_>, data: u64, name: &str, entry: Entry) -> Result<TensorLocation> {
    let bad = |what: &str| input.bad(format!("damaged header: {}: {what}", short(name)));
    let dtype = entry.dtype.ok_or_else(|| bad("no dtype"))?.0;
    let shape = entry.shape.ok_or_else(|| bad("no shape"))?.0;
    let shape: Vec<usize> = shape
        .into_iter()
        .map(usize::try_from)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| bad("too large"))?;
    let [from, to] = entry.data_offsets.ok_or_else(|| bad("no data_offsets"))?;
    if from > to || to > input.len.saturating_sub(data) {
        return Err(input.bad(format!(
            "{} reaches beyond the end: the file is cut off",
            short(name)
        )));
    }
    let mut strides = vec![1u64; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i] as u64);
    }
    let place = TensorLocation {
        dtype,
        start: data + from,
        numel: (to - from) / dtype.size(),
        offset: 0,
        shape,
        strides,
        entry: None,
    };
    let takes = place.elements().and_then(|n| n.checked_mul(dtype.size()));
    if takes != Some(to - from) && dtype != Dtype::Other {
        return Err(bad(&format!(
            "shape {:?} of {dtype} does not take {} bytes",
            place.shape,
            to - from
        )));
    }
    Ok(place)
}

/// The header, read without a tree of values in between: that would take many times its size.
#[derive(Default)]
struct Header {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: Option<Type>,
    shape: Option<Shape>,
    data_offsets: Option<[u64; 2]>,
}

struct Type(Dtype);

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.len() > 16 || !name.chars().all(known) {
            return Err(D::Error::custom(format!("unknown dtype {}", short(&name))));
        }
        Ok(Self(Dtype::of_safetensors(&name)))
    }
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Vec<u64>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Vec<u64>, A::Error> {
                let mut out = Vec::new();
                while let Some(size) = list.next_element()? {
                    if out.len() == MOST_DIMENSIONS {
                        return Err(A::Error::custom("a tensor of more than 16 dimensions"));
                    }
                    out.push(size);
                }
                Ok(out)
            }
        }
        deserializer.deserialize_seq(Numbers).map(Self)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value::<Metadata>()?.0;
                    } else {
                        let entry = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("{}: {e}", short(&name))))?;
                        header.tensors.push((name, entry));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("__metadata__, an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Metadata, A::Error> {
                let mut out = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if out.len() == MOST_METADATA {
                        return Err(A::Error::custom("__metadata__ has too many fields"));
                    }
                    out.insert(key, value);
                }
                Ok(Metadata(out))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
