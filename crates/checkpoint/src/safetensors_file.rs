//! The safetensors container: the length of a header, the header, the numbers.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::input::Input;
use crate::tensors::Place;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// No real header is larger.
pub(crate) const MOST_HEADER: u64 = 100 << 20;

/// Tensors in the order of their numbers, and the metadata.
pub(crate) type Contents = (Vec<(String, Place)>, BTreeMap<String, String>);

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
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|e| input.bad(format!("damaged header: {e}")))?;
    let data = 8 + length;
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::new();
    for (name, value) in header {
        if name == "__metadata__" {
            let Value::Object(fields) = value else {
                return Err(input.bad("damaged header: __metadata__ is no object"));
            };
            metadata = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
                .collect();
            continue;
        }
        let bad = |what: &str| input.bad(format!("damaged header: {name}: {what}"));
        let dtype = value
            .get("dtype")
            .and_then(Value::as_str)
            .ok_or_else(|| bad("no dtype"))?;
        let dtype =
            Dtype::of_safetensors(dtype).ok_or_else(|| bad(&format!("unknown dtype {dtype}")))?;
        let numbers = |key: &str| -> Option<Vec<u64>> {
            value
                .get(key)?
                .as_array()?
                .iter()
                .map(Value::as_u64)
                .collect()
        };
        let shape = numbers("shape").ok_or_else(|| bad("no shape"))?;
        let shape: Vec<usize> = shape
            .into_iter()
            .map(usize::try_from)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| bad("too large"))?;
        let (from, to) = match numbers("data_offsets").as_deref() {
            Some(&[from, to]) if from <= to && to <= input.len.saturating_sub(data) => (from, to),
            Some(_) => {
                return Err(input.bad(format!(
                    "{name} reaches beyond the end: the file is cut off"
                )));
            }
            None => return Err(bad("no data_offsets")),
        };
        let mut strides = vec![1u64; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(shape[i] as u64);
        }
        let numel = (to - from) / dtype.size();
        let place = Place {
            dtype,
            start: data + from,
            numel,
            offset: 0,
            shape,
            strides,
        };
        if place.elements().and_then(|n| n.checked_mul(dtype.size())) != Some(to - from) {
            return Err(bad(&format!(
                "shape {:?} of {dtype} does not take {} bytes",
                place.shape,
                to - from
            )));
        }
        tensors.push((name, place));
    }
    tensors.sort_by(|(a, pa), (b, pb)| (pa.start, pa.numel, a).cmp(&(pb.start, pb.numel, b)));
    for pair in tensors.windows(2) {
        let ((a, pa), (b, pb)) = (&pair[0], &pair[1]);
        if pa.start + pa.numel * pa.dtype.size() > pb.start {
            return Err(input.bad(format!("damaged header: {a} and {b} overlap")));
        }
    }
    Ok((tensors, metadata))
}
