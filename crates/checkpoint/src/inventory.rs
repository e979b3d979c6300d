//! Every dictionary and list of tensors in a pickle, and every network in one without a container.

use crate::error::Problem;
use crate::module;
use crate::pickle::{Node, Pickle, Value};
use crate::short::short;
use std::rc::Rc;

/// A name, and the index of its tensor in the file's list of tensors.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Rc<str>,
    pub(crate) tensor: usize,
}

/// A dictionary with tensors. `path` has dots, and is empty for the top of the file.
#[derive(Clone, Debug)]
pub(crate) struct Dict {
    pub(crate) path: String,
    pub(crate) entries: Vec<Entry>,
}

/// A list of tensors without names.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) path: String,
    pub(crate) tensors: Vec<usize>,
}

/// The dictionaries and lists of a file.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) dicts: Vec<Dict>,
    pub(crate) lists: Vec<List>,
    /// Paths of the states of optimisers, whose tensors are not weights.
    pub(crate) optimisers: Vec<String>,
    /// Whether the file is a list of dictionaries and lists.
    pub(crate) is_list: bool,
    /// Whether the file is a single dictionary by its format.
    pub(crate) is_flat: bool,
    /// Whether the file has too many dictionaries and lists.
    pub(crate) more: bool,
    /// Paths of networks that are objects, whose tensors are among the dictionaries, and the objects.
    pub(crate) networks: Vec<(String, Value)>,
    /// A network whose tensors cannot be listed.
    pub(crate) problem: Option<Problem>,
}

/// The deepest level that is searched.
const DEEPEST: usize = 5;
/// The most dictionaries and lists of tensors.
const MOST: usize = 4096;

impl Inventory {
    /// What a pickle has; `networks` is the length of a file whose objects may be networks.
    pub(crate) fn in_pickle(pickle: &Pickle, networks: Option<u64>) -> Self {
        let mut found = Self {
            is_list: matches!(
                pickle.node(&pickle.root),
                Some(Node::List(_) | Node::Tuple(_))
            ),
            ..Self::default()
        };
        let mut seen = vec![false; pickle.nodes.len()];
        let within = Within { pickle, networks };
        found.visit(&within, &pickle.root, String::new(), 0, &mut seen);
        found
    }

    fn visit(
        &mut self,
        within: &Within<'_>,
        value: &Value,
        path: String,
        depth: usize,
        seen: &mut [bool],
    ) {
        let pickle = within.pickle;
        let (Value::Node(i), Some(node)) = (value, pickle.node(value)) else {
            return;
        };
        // Each container is visited once, so that shared or circular ones cost nothing.
        if depth > DEEPEST || std::mem::replace(&mut seen[*i], true) {
            return;
        }
        if self.dicts.len() + self.lists.len() + self.optimisers.len() >= MOST {
            self.more = true;
            return;
        }
        let tensor = |value: &Value| match (value, pickle.node(value)) {
            (Value::Node(i), Some(Node::Tensor(_))) => Some(*i),
            _ => None,
        };
        match node {
            Node::Dict(entries) if is_optimiser(entries) => self.optimisers.push(path),
            Node::Dict(entries) => {
                let named = entries.iter().filter_map(|(key, value)| match key {
                    Value::Text(name) => Some(Entry {
                        name: name.clone(),
                        tensor: tensor(value)?,
                    }),
                    _ => None,
                });
                let named: Vec<Entry> = named.collect();
                if !named.is_empty() {
                    self.dicts.push(Dict {
                        path: path.clone(),
                        entries: named,
                    });
                }
                for (key, value) in entries {
                    let key = match key {
                        Value::Text(key) => short(key),
                        Value::Int(key) => key.to_string(),
                        _ => continue,
                    };
                    self.visit(within, value, join(&path, &key), depth + 1, seen);
                }
            }
            Node::List(items) | Node::Tuple(items) => {
                let tensors: Vec<usize> = items.iter().filter_map(tensor).collect();
                if !tensors.is_empty() && tensors.len() == items.len() {
                    self.lists.push(List { path, tensors });
                    return;
                }
                for (n, value) in items.iter().enumerate() {
                    // Paths are made only for values that may hold tensors.
                    if pickle.node(value).is_some() {
                        self.visit(within, value, join(&path, &n.to_string()), depth + 1, seen);
                    }
                }
            }
            Node::Object(_) => {
                let Some(file_len) = within.networks else {
                    return;
                };
                match module::tensors(pickle, value, file_len) {
                    Ok(Some(entries)) => {
                        self.networks.push((path.clone(), value.clone()));
                        self.dicts.push(Dict { path, entries });
                    }
                    Ok(None) => {}
                    Err(problem) => self.problem = Some(problem),
                }
            }
            _ => {}
        }
    }
}

/// Where dictionaries are looked for.
struct Within<'a> {
    pickle: &'a Pickle,
    networks: Option<u64>,
}

pub(crate) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

/// PyTorch's optimisers keep `state` and `param_groups`.
fn is_optimiser(entries: &[(Value, Value)]) -> bool {
    let has = |name: &str| {
        let mut keys = entries.iter().map(|(key, _)| key);
        keys.any(|key| matches!(key, Value::Text(key) if &**key == name))
    };
    has("param_groups") && has("state")
}
