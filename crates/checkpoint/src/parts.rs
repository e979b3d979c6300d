//! The parts of a file that may be weights: dictionaries, parts of one with a common prefix, and lists of tensors.

use crate::inventory::{Dict, Inventory, List, join};
use crate::select::Wanted;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The shapes of a file's tensors, by index.
pub(crate) trait Tensors {
    fn shape(&self, tensor: usize) -> &[usize];
    fn is_float(&self, tensor: usize) -> bool;
}

/// A name without its prefix, and its tensor.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    whole: Rc<str>,
    skip: usize,
    pub(crate) tensor: usize,
}

impl Named {
    pub(crate) fn name(&self) -> &str {
        &self.whole[self.skip..]
    }
}

/// Named tensors that may be the weights.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The dictionary or list.
    pub(crate) container: String,
    /// The prefix that was removed from its names.
    pub(crate) prefix: String,
    pub(crate) tensors: Vec<Named>,
    /// Whether its path is that of a moving average.
    pub(crate) average: bool,
    /// The index of the dictionary; none for a list.
    pub(crate) dict: Option<usize>,
    /// The part whose names a list took.
    pub(crate) named_after: Option<String>,
}

impl Part {
    /// The path with dots, as `--key` takes it.
    pub(crate) fn path(&self) -> String {
        join(&self.container, self.prefix.trim_end_matches('.'))
    }
}

/// The most prefixes that are tried.
const MOST_PREFIXES: usize = 16;
/// Prefixes that wrappers add to every name.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// The parts with the names of the wanted network; every dictionary if `wanted` is none.
pub(crate) fn parts(
    inventory: &Inventory,
    tensors: &dyn Tensors,
    wanted: Option<&Wanted>,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (number, dict) in inventory.dicts.iter().enumerate() {
        match wanted {
            Some(wanted) => parts.extend(marked(number, dict, wanted.marks)),
            None => parts.push(unwrapped(number, dict)),
        }
    }
    // Lists take the names of the largest parts.
    let mut named: Vec<usize> = (0..parts.len()).collect();
    named.sort_by_key(|&i| std::cmp::Reverse(parts[i].tensors.len()));
    let lists = inventory.lists.iter().filter(|list| list.tensors.len() > 1);
    for list in lists.take(MOST_PREFIXES) {
        let mut likely = named.iter().take(MOST_PREFIXES);
        let part = likely.find_map(|&i| after(list, &parts[i], tensors));
        parts.extend(part);
    }
    if inventory.is_list {
        averages_of_a_list(&mut parts);
    }
    parts
}

/// A dictionary without the prefixes of wrappers.
fn unwrapped(number: usize, dict: &Dict) -> Part {
    let mut prefix = String::new();
    // What `AveragedModel` keeps next to the module.
    let inside = |name: &str| name != "n_averaged";
    loop {
        let wraps = |wrapper: &&&str| {
            let whole = format!("{prefix}{wrapper}");
            let mut names = dict.entries.iter().map(|entry| &*entry.name);
            let mut some = false;
            names.all(|name| {
                some |= name.starts_with(&whole);
                name.starts_with(&whole) || !inside(name)
            }) && some
        };
        match WRAPPERS.iter().find(wraps) {
            Some(wrapper) if prefix.len() < 64 => prefix.push_str(wrapper),
            _ => break,
        }
    }
    cut(number, dict, prefix)
}

/// The part of a dictionary with this prefix.
fn cut(number: usize, dict: &Dict, prefix: String) -> Part {
    let inside = dict.entries.iter().filter(|e| e.name.starts_with(&prefix));
    let tensors = inside.map(|entry| Named {
        whole: entry.name.clone(),
        skip: prefix.len(),
        tensor: entry.tensor,
    });
    Part {
        average: is_average(&join(&dict.path, &prefix)),
        container: dict.path.clone(),
        tensors: tensors.collect(),
        prefix,
        dict: Some(number),
        named_after: None,
    }
}

/// Whether a name is that of an optimiser's state of some weight.
pub(crate) fn is_moment(name: &str) -> bool {
    let mut words = name.split('.');
    words.any(|word| {
        matches!(
            word,
            "exp_avg" | "exp_avg_sq" | "momentum_buffer" | "max_exp_avg_sq"
        )
    })
}

/// The parts of a dictionary that have a mark: one for each prefix of a mark.
fn marked(number: usize, dict: &Dict, marks: &[&str]) -> Vec<Part> {
    let mut prefixes: Vec<&str> = Vec::new();
    let mut dotless: Vec<(&str, &str)> = Vec::new();
    for mark in marks {
        let bare = mark.replace('.', "");
        for entry in &dict.entries {
            let name = &*entry.name;
            if let Some(prefix) = name.strip_suffix(mark) {
                let at_a_dot = prefix.is_empty() || prefix.ends_with('.');
                let at_a_dot = at_a_dot && !is_moment(prefix);
                if at_a_dot && !prefixes.contains(&prefix) && prefixes.len() < MOST_PREFIXES {
                    prefixes.push(prefix);
                }
            } else if let Some(prefix) = name.strip_suffix(bare.as_str())
                && dotless.len() < MOST_PREFIXES
            {
                dotless.push((prefix, mark));
            }
        }
    }
    let mut parts: Vec<Part> = prefixes
        .iter()
        .map(|prefix| cut(number, dict, (*prefix).to_owned()))
        .collect();
    if dotless.is_empty() {
        return parts;
    }
    // An average next to the weights whose names have no dots: `model_ema.diffusion_modelout2weight`.
    let by_name: HashMap<&str, usize> = dict
        .entries
        .iter()
        .map(|entry| (&*entry.name, entry.tensor))
        .collect();
    let raw = parts.clone();
    for (prefix, mark) in dotless {
        let with = raw.iter().filter(|part| {
            let mut names = part.tensors.iter().map(Named::name);
            names.any(|name| name == mark)
        });
        for part in with {
            parts.extend(without_dots(dict, prefix, part, &by_name));
        }
    }
    parts
}

/// The tensors under `prefix` whose names are those of `part` without dots, if none is missing and all are different.
fn without_dots(
    dict: &Dict,
    prefix: &str,
    part: &Part,
    by_name: &HashMap<&str, usize>,
) -> Option<Part> {
    let mut used = HashSet::new();
    let mut tensors = Vec::with_capacity(part.tensors.len());
    for named in &part.tensors {
        let bare = format!("{prefix}{}", named.name().replace('.', ""));
        let tensor = *by_name.get(bare.as_str())?;
        if !used.insert(tensor) {
            return None;
        }
        tensors.push(Named {
            tensor,
            ..named.clone()
        });
    }
    Some(Part {
        average: is_average(&join(&dict.path, prefix)),
        container: dict.path.clone(),
        prefix: prefix.to_owned(),
        tensors,
        dict: part.dict,
        named_after: Some(part.path()),
    })
}

/// A list of tensors with the names of a part, in order, if there is exactly one way.
///
/// A list that holds an average has the parameters in order, without buffers; the buffers are those of the part.
fn after(list: &List, part: &Part, tensors: &dyn Tensors) -> Option<Part> {
    let slots: Vec<usize> = (0..part.tensors.len())
        .filter(|&i| tensors.is_float(part.tensors[i].tensor))
        .collect();
    let shape_of = |slot: usize| tensors.shape(part.tensors[slot].tensor);
    let given: Vec<&[usize]> = list.tensors.iter().map(|&t| tensors.shape(t)).collect();
    let mut ahead = slots.iter().copied();
    let first: Option<Vec<usize>> = given
        .iter()
        .map(|shape| ahead.find(|&slot| shape_of(slot) == *shape))
        .collect();
    let mut back = slots.iter().rev().copied();
    let last: Option<Vec<usize>> = given
        .iter()
        .rev()
        .map(|shape| back.find(|&slot| shape_of(slot) == *shape))
        .collect();
    let (first, mut last) = (first?, last?);
    last.reverse();
    // Few tensors that happen to fit are not the network's parameters; most of them must be there.
    if first != last || 2 * first.len() < slots.len() {
        return None;
    }
    let mut named = part.tensors.clone();
    for (slot, tensor) in first.into_iter().zip(&list.tensors) {
        named[slot].tensor = *tensor;
    }
    Some(Part {
        container: list.path.clone(),
        prefix: String::new(),
        tensors: named,
        average: is_average(&list.path),
        dict: None,
        named_after: Some(part.path()),
    })
}

/// Tools that save `[weights, optimiser, epoch, step, average]` give the average no name; it has the names of the weights.
fn averages_of_a_list(parts: &mut [Part]) {
    let top = |part: &Part| part.container.split('.').next().map(str::to_owned);
    let Some(first) = parts.first().cloned() else {
        return;
    };
    let names = |part: &Part| {
        let names = part.tensors.iter().map(|named| named.name().to_owned());
        names.collect::<HashSet<String>>()
    };
    let of_first = names(&first);
    if let Some(last) = parts.last_mut()
        && top(last) != top(&first)
        && names(last) == of_first
    {
        last.average = true;
    }
}

/// Whether a path is that of a moving average; the innermost word decides.
fn is_average(path: &str) -> bool {
    // Whole words, so that `semantic_encoder` is not a moving average.
    let path = path.to_lowercase();
    let mut words = path.rsplit(['.', '_', '-']);
    words
        .find_map(|word| match word {
            "ema" | "average" | "averaged" | "avg" | "shadow" | "swa" => Some(true),
            "online" | "raw" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}
