//! The safetensors container: the length of the header, the header, the numbers.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::input::Input;
use crate::short::{short, start};
use crate::tensors::TensorLocation;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// The longest header that is read, as in the reference implementation.
pub(crate) const MOST_HEADER: u64 = 100 << 20;
/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;
/// The most fields of metadata.
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
            "a header of {length} bytes, expected at most {MOST_HEADER}"
        )));
    }
    let header = input.range(8, length)?;
    let header: Header = serde_json::from_slice(&header)
        .map_err(|e| input.bad(format!("damaged header: {}", start(&e.to_string(), 300))))?;
    if header.metadata.len() > MOST_METADATA {
        return Err(input.bad("damaged header: __metadata__ has too many fields"));
    }
    let data = 8 + length;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, info) in header.tensors {
        let location = locate(input, data, &name, info)?;
        tensors.push((name, location));
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

fn locate(input: &Input<'_>, data: u64, name: &str, info: TensorInfo) -> Result<TensorLocation> {
    let bad = |what: &str| input.bad(format!("damaged header: {}: {what}", short(name)));
    let (dtype, shape) = (Dtype::of_safetensors(info.dtype), info.shape);
    if shape.len() > MOST_DIMENSIONS {
        return Err(bad("a tensor of more than 16 dimensions"));
    }
    let (from, to) = info.data_offsets;
    let (from, to) = (from as u64, to as u64);
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
    let location = TensorLocation {
        dtype,
        start: data + from,
        numel: (to - from) / dtype.size(),
        offset: 0,
        shape,
        strides,
        entry: None,
    };
    let takes = location
        .elements()
        .and_then(|n| n.checked_mul(dtype.size()));
    if takes != Some(to - from) && dtype != Dtype::Other {
        return Err(bad(&format!(
            "shape {:?} of {dtype} does not take {} bytes",
            location.shape,
            to - from
        )));
    }
    Ok(location)
}

/// The header. Unlike `safetensors::tensor::Metadata` it names the tensor in every error, keeps a name that occurs twice, so that it is
/// an error, and needs no tree of JSON values in between.
#[derive(Default)]
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
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
                    let named = |e| A::Error::custom(format!("{}: {e}", short(&name)));
                    if name == "__metadata__" {
                        header.metadata = map.next_value().map_err(named)?;
                    } else {
                        let info = map.next_value().map_err(named)?;
                        header.tensors.push((name, info));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
