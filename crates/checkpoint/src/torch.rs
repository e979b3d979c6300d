//! PyTorch's two containers: a zip archive since version 1.6, a row of pickles before.

use crate::detect::is_legacy;
use crate::dtype::Dtype;
use crate::error::{Problem, Result};
use crate::input::Input;
use crate::inventory::Inventory;
use crate::pickle::{self, Node, Pickle, Storage, Value};
use crate::short::short;
use crate::state::Container;
use crate::tensors::TensorLocation;
use crate::zip::{self, Entry};
use std::collections::{BTreeMap, HashMap};

/// The object in a file, and the locations of its storages.
pub(crate) struct TorchFile {
    pub(crate) pickle: Pickle,
    pub(crate) storages: HashMap<String, Entry>,
    /// It is a zip archive, which has checksums.
    pub(crate) archive: bool,
}

/// Reads any kind of file that holds a pickle.
pub(crate) fn read(input: &mut Input<'_>, container: Container) -> Result<TorchFile> {
    match container {
        Container::TorchZip => read_zip(input),
        Container::Pickle => read_bare(input),
        _ => read_legacy(input),
    }
}

impl TorchFile {
    /// The location of a tensor, by the index of its node, or the problem with it.
    pub(crate) fn place(&self, node: usize) -> std::result::Result<TensorLocation, Problem> {
        let Some(Node::Tensor(view)) = self.pickle.nodes.get(node) else {
            return Err("no tensor".into());
        };
        let storage = &view.storage;
        let key = &*storage.key;
        let entry = self.storages.get(key);
        let entry =
            *entry.ok_or_else(|| Problem(format!("its storage {} is missing", short(key))))?;
        let bytes = storage.numel.checked_mul(storage.dtype.size());
        if bytes.is_none_or(|bytes| bytes > entry.len) {
            return Err(Problem(format!(
                "expected {} numbers, the file has {} bytes",
                storage.numel, entry.len
            )));
        }
        Ok(TensorLocation {
            dtype: storage.dtype,
            start: entry.start,
            numel: storage.numel,
            offset: view.offset,
            shape: view.shape.clone(),
            strides: view.strides.clone(),
            entry: (entry.crc != 0).then_some(entry),
        })
    }

    /// The tensors of the dictionary at the top.
    pub(crate) fn top(&self, input: &Input<'_>) -> Result<Vec<(String, TensorLocation)>> {
        let dicts = Inventory::in_pickle(&self.pickle, None).dicts;
        let top = dicts.into_iter().find(|dict| dict.path.is_empty());
        let entries = top.map(|dict| dict.entries).unwrap_or_default();
        let placed = entries.into_iter().map(|entry| {
            let place = self.place(entry.tensor);
            let place =
                place.map_err(|problem| input.bad(format!("{}: {problem}", short(&entry.name))));
            Ok((entry.name.to_string(), place?))
        });
        placed.collect()
    }
}

/// A zip archive with `data.pkl` and one entry per storage.
fn read_zip(input: &mut Input<'_>) -> Result<TorchFile> {
    let (entries, compressed) = zip::entries(input)?;
    let find = |name: &str| {
        entries
            .iter()
            .find(|(entry, _)| entry.split_once('/').is_some_and(|(_, rest)| rest == name))
    };
    if find("constants.pkl").is_some() || entries.keys().any(|name| name.contains("/code/")) {
        return Err(input.bad("this is a TorchScript program, not a state dict; save model.state_dict() in PyTorch first"));
    }
    if let Some(name) = compressed {
        return Err(input.bad(format!(
            "{} is compressed; PyTorch stores the entries of a checkpoint as they are",
            short(&name)
        )));
    }
    let Some((name, pickle_entry)) = find("data.pkl") else {
        return Err(
            input.bad(if entries.keys().any(|name| name.ends_with(".npy")) {
                "this is a NumPy archive, not a PyTorch checkpoint"
            } else {
                "this zip archive is not a PyTorch checkpoint: it has no data.pkl"
            }),
        );
    };
    let folder = name
        .split_once('/')
        .map_or("", |(folder, _)| folder)
        .to_owned();
    let pickle_entry = *pickle_entry;
    let pickle_name = name.clone();
    if let Some(order) = entries.get(&format!("{folder}/byteorder")).copied() {
        order.verify(input, "byteorder")?;
        let order = input.range(order.start, order.len.min(16))?;
        if order != b"little" {
            return Err(input.bad(format!(
                "the numbers are stored {}-endian, only little-endian is read",
                String::from_utf8_lossy(&order)
            )));
        }
    }
    let prefix = format!("{folder}/data/");
    let storages = entries
        .iter()
        .filter_map(|(name, entry)| Some((name.strip_prefix(&prefix)?.to_owned(), *entry)))
        .collect();
    pickle_entry.verify(input, &pickle_name)?;
    input.seek(pickle_entry.start)?;
    let pickle = pickle::read(input)?;
    if input.position() > pickle_entry.start + pickle_entry.len {
        return Err(input.bad("damaged pickle: it reaches beyond its entry"));
    }
    Ok(TorchFile {
        pickle,
        storages,
        archive: true,
    })
}

/// A pickle alone. Its storages are legacy files inside it.
fn read_bare(input: &mut Input<'_>) -> Result<TorchFile> {
    input.seek(0)?;
    let mut pickle = pickle::read_bare(input)?;
    if input.left() > 0 {
        return Err(input.bad(format!(
            "damaged pickle: {} bytes after its end",
            input.left()
        )));
    }
    Ok(TorchFile {
        storages: std::mem::take(&mut pickle.storages),
        pickle,
        archive: false,
    })
}

fn read_legacy(input: &mut Input<'_>) -> Result<TorchFile> {
    input.seek(0)?;
    let end = input.len;
    let (pickle, storages) = legacy(input, end, &pickle::read)?;
    Ok(TorchFile {
        pickle,
        storages,
        archive: false,
    })
}

/// A storage that was saved alone, as a legacy file in the bytes from `start`.
pub(crate) fn storage_in(input: &mut Input<'_>, start: u64, len: u64) -> Result<(Storage, Entry)> {
    let end = start.saturating_add(len);
    let head = input.range(start, len.min(32))?;
    if !is_legacy(&head) {
        return Err(input.bad(
            "a storage inside the pickle is not in PyTorch's legacy format, in which PyTorch pickles storages",
        ));
    }
    input.seek(start)?;
    let (pickle, storages) = legacy(input, end, &|input| pickle::read_inside(input, end))?;
    let Some(Node::Storage(storage)) = pickle.node(&pickle.root) else {
        return Err(input.bad("expected a storage in the bytes of a storage, found another object"));
    };
    let Some(entry) = storages.get(&*storage.key) else {
        return Err(input.bad("the bytes of a storage do not hold its numbers"));
    };
    let storage = Storage {
        key: storage.key.clone(),
        ..**storage
    };
    Ok((storage, *entry))
}

/// Magic number, protocol, system, the object, the keys of the storages; then each storage with its length. All of it lies before `end`.
fn legacy(
    input: &mut Input<'_>,
    end: u64,
    read: &dyn Fn(&mut Input<'_>) -> Result<Pickle>,
) -> Result<(Pickle, HashMap<String, Entry>)> {
    read(input)?;
    let protocol = read(input)?;
    if !matches!(protocol.root, Value::Int(1001)) {
        return Err(input.bad("a PyTorch checkpoint of an unknown protocol"));
    }
    let system = read(input)?;
    if let Some(Node::Dict(entries)) = system.node(&system.root)
        && entries.iter().any(|(key, value)| {
            matches!((key, value), (Value::Text(key), Value::Bool(false)) if &**key == "little_endian")
        })
    {
        return Err(input.bad("the numbers are stored big-endian, only little-endian is read"));
    }
    let object = read(input)?;
    let keys = read(input)?;
    let Some(Node::List(keys)) = keys.node(&keys.root) else {
        return Err(input.bad("the list of storages is missing"));
    };
    let types: BTreeMap<&str, &Storage> = object
        .nodes
        .iter()
        .filter_map(|node| {
            if let Node::Storage(storage) = node {
                Some((&*storage.key, storage.as_ref()))
            } else {
                None
            }
        })
        .collect();
    let mut storages = HashMap::new();
    let mut at = input.position();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(input.bad("a storage without a name"));
        };
        let Some(storage) = types.get(&**key) else {
            return Err(input.bad(format!("the storage {} belongs to no tensor", short(key))));
        };
        if storage.dtype == Dtype::Other {
            return Err(input.bad(format!(
                "the storage {} has numbers of an unknown type, so the data after it cannot be located",
                short(key)
            )));
        }
        let head = input.range(at, 8)?;
        let mut numel = [0; 8];
        numel.copy_from_slice(&head);
        let len = u64::from_le_bytes(numel).checked_mul(storage.dtype.size());
        match len {
            Some(len) if (at + 8).checked_add(len).is_some_and(|last| last <= end) => {
                let (start, crc) = (at + 8, 0);
                storages.insert(key.to_string(), Entry { start, len, crc });
                at += 8 + len;
            }
            _ => {
                return Err(input.bad(format!(
                    "the storage {} reaches beyond the end: the file is cut off",
                    short(key)
                )));
            }
        }
    }
    Ok((object, storages))
}
