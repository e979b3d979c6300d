//! Weights in several files, with an index of the file of each tensor.

use crate::detect::detect;
use crate::error::Result;
use crate::input::Input;
use crate::safetensors_file;
use crate::short::{list, short, start};
use crate::state::Container;
use crate::tensors::TensorLocation;
use crate::torch;
use crate::write::sha256_file;
use sdft_files::sha256_bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The size limit of an index.
const MOST_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "unique")]
    weight_map: BTreeMap<String, String>,
}

/// A map in which no name occurs twice. serde's own maps keep the last of them.
fn unique<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with the file of each tensor")
        }
        fn visit_map<A: MapAccess<'de>>(
            self,
            mut map: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                let twice = format!("{} occurs twice", short(&tensor));
                if out.insert(tensor, file).is_some() {
                    return Err(A::Error::custom(twice));
                }
            }
            Ok(out)
        }
    }
    deserializer.deserialize_map(Unique)
}

/// A tensor of a set of files: its name, the number of its file, and its location in the file.
type Placed = (String, usize, TensorLocation);

/// The files of an index, and their tensors.
pub(crate) fn read(input: &mut Input<'_>) -> Result<(Vec<Input<'static>>, Vec<Placed>)> {
    let (files, index) = files(input)?;
    let mut inputs = Vec::with_capacity(files.len());
    let mut all = Vec::new();
    for (number, (name, file)) in files.iter().enumerate() {
        let mut shard = Input::open(file)?;
        for (tensor, place) in tensors(&mut shard)? {
            if index.weight_map.get(&tensor) == Some(name) {
                all.push((tensor, number, place));
            }
        }
        inputs.push(shard);
    }
    let there: BTreeSet<&str> = all.iter().map(|(tensor, ..)| tensor.as_str()).collect();
    let missing: Vec<&str> = index
        .weight_map
        .keys()
        .map(String::as_str)
        .filter(|tensor| !there.contains(tensor))
        .collect();
    if !missing.is_empty() {
        return Err(input.bad(format!(
            "{} of {} tensors are not in the files that the index names: {}",
            missing.len(),
            index.weight_map.len(),
            list(&missing, 5)
        )));
    }
    Ok((inputs, all))
}

/// Names and paths of the files, and the index itself.
fn files(input: &mut Input<'_>) -> Result<(Vec<(String, PathBuf)>, Index)> {
    if input.len > MOST_INDEX {
        return Err(input.bad(format!(
            "an index of {} bytes, expected at most {MOST_INDEX}",
            input.len
        )));
    }
    let text = input.range(0, input.len)?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| input.bad(format!("damaged index: {}", start(&e.to_string(), 300))))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() || names.len() > 4096 {
        return Err(input.bad(format!(
            "expected an index of 1 to 4096 files, found {}",
            names.len()
        )));
    }
    let folder = input.path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        // An index names files next to it, nothing else.
        let mut parts = Path::new(name).components();
        let plain = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
        if !plain {
            return Err(input.bad(format!(
                "the index names {}, expected a file in its own folder",
                short(name)
            )));
        }
        files.push((name.clone(), folder.join(name)));
    }
    Ok((files, index))
}

/// All tensors at the top of one of the files.
fn tensors(input: &mut Input<'_>) -> Result<Vec<(String, TensorLocation)>> {
    match detect(input)? {
        Container::Safetensors => Ok(safetensors_file::read(input)?.tensors),
        Container::Shards => Err(input.bad("expected a file of weights, found another index")),
        container => torch::read(input, container)?.top(input),
    }
}

/// SHA-256 of weights, in hexadecimal: that of the file, or for an index one of the index and all its files.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_weights(path: &Path) -> Result<String> {
    let own = sha256_file(path)?;
    let mut input = Input::open(path)?;
    let is_index = matches!(detect(&mut input), Ok(Container::Shards));
    if !is_index {
        return Ok(own);
    }
    let mut parts = own;
    for (name, file) in files(&mut input)?.0 {
        let hash = sha256_file(&file)?;
        parts.push_str(&format!("\n{name} {hash}"));
    }
    Ok(sha256_bytes(parts.as_bytes()))
}
