//! PyTorch's two containers: a zip archive since version 1.6, a row of pickles before.

use crate::error::Result;
use crate::input::Input;
use crate::pickle::{self, Node, Pickle, Storage, Value};
use crate::zip::{self, Entry};
use std::collections::{BTreeMap, HashMap};

/// The object in a file, and where its storages are.
pub(crate) struct TorchFile {
    pub(crate) pickle: Pickle,
    pub(crate) storages: HashMap<String, Entry>,
}

/// A zip archive with `data.pkl` and one entry per storage.
pub(crate) fn read_zip(input: &mut Input<'_>) -> Result<TorchFile> {
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
            "{name} is compressed; PyTorch stores the entries of a checkpoint as they are"
        )));
    }
    let Some((name, pickle_entry)) = find("data.pkl") else {
        return Err(
            input.bad(if entries.keys().any(|name| name.ends_with(".npy")) {
                "this is a NumPy archive, not a PyTorch checkpoint"
            } else {
                "this zip archive is no PyTorch checkpoint: it has no data.pkl"
            }),
        );
    };
    let folder = name
        .split_once('/')
        .map_or("", |(folder, _)| folder)
        .to_owned();
    let pickle_entry = *pickle_entry;
    if let Some(order) = entries.get(&format!("{folder}/byteorder")).copied() {
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
    input.seek(pickle_entry.start)?;
    let pickle = pickle::read(input)?;
    if input.position()? > pickle_entry.start + pickle_entry.len {
        return Err(input.bad("damaged pickle: it reaches beyond its entry"));
    }
    Ok(TorchFile { pickle, storages })
}

/// Magic number, protocol, system, the object, the keys of the storages; then each storage with its length.
pub(crate) fn read_legacy(input: &mut Input<'_>) -> Result<TorchFile> {
    input.seek(0)?;
    pickle::read(input)?;
    let protocol = pickle::read(input)?;
    if !matches!(protocol.root, Value::Int(1001)) {
        return Err(input.bad("a PyTorch checkpoint of an unknown protocol"));
    }
    let system = pickle::read(input)?;
    if let Some(Node::Dict(entries)) = system.node(&system.root)
        && entries.iter().any(|(key, value)| {
            matches!((key, value), (Value::Text(key), Value::Bool(false)) if &**key == "little_endian")
        })
    {
        return Err(input.bad("the numbers are stored big-endian, only little-endian is read"));
    }
    let object = pickle::read(input)?;
    let keys = pickle::read(input)?;
    let Some(Node::List(keys)) = keys.node(&keys.root) else {
        return Err(input.bad("the list of storages is missing"));
    };
    let types: BTreeMap<&str, &Storage> = object
        .nodes
        .iter()
        .filter_map(|node| {
            if let Node::Storage(storage) = node {
                Some((storage.key.as_str(), storage.as_ref()))
            } else {
                None
            }
        })
        .collect();
    let mut storages = HashMap::new();
    let mut at = input.position()?;
    for key in keys {
        let Value::Text(key) = key else {
            return Err(input.bad("a storage without a name"));
        };
        let Some(storage) = types.get(&**key) else {
            return Err(input.bad(format!("the storage {key} belongs to no tensor")));
        };
        let head = input.range(at, 8)?;
        let mut numel = [0; 8];
        numel.copy_from_slice(&head);
        let len = u64::from_le_bytes(numel).checked_mul(storage.dtype.size());
        match len {
            Some(len)
                if (at + 8)
                    .checked_add(len)
                    .is_some_and(|end| end <= input.len) =>
            {
                storages.insert(key.to_string(), Entry { start: at + 8, len });
                at += 8 + len;
            }
            _ => {
                return Err(input.bad(format!(
                    "the storage {key} reaches beyond the end: the file is cut off"
                )));
            }
        }
    }
    Ok(TorchFile {
        pickle: object,
        storages,
    })
}
