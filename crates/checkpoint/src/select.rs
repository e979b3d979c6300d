//! Which part of a file is taken.

use crate::error::{Error, Result};
use crate::found::{Dict, Found};
use crate::input::Input;
use crate::parts::{Part, Tensors, is_moment, parts};
use crate::short::{list, short};
use std::collections::BTreeMap;

/// Which weights to take where a file holds both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The moving average, which is what is sampled.
    #[default]
    Ema,
    /// The weights as trained.
    Raw,
}

/// The network that a file is read for, so that its weights are found by what they are.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Names that tell the network: the part of a file with one of them is taken, and what precedes it there is taken off all names.
    pub marks: &'static [&'static str],
    /// Whether names and shapes are those of the network.
    pub fits: fn(&BTreeMap<String, Vec<usize>>) -> bool,
}

/// The part that was taken, and what should be known about that.
pub(crate) struct Taken {
    pub(crate) part: Part,
    /// Where it is, if not at the top.
    pub(crate) nested_under: Option<String>,
    /// Other parts that could have been taken.
    pub(crate) alternatives: Vec<String>,
    /// Names next to those of the part, in the same dictionary.
    pub(crate) left_out: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Takes the part that `key` names, or else the one that fits, averages or raw weights first as preferred.
pub(crate) fn take(
    input: &Input<'_>,
    found: &Found,
    tensors: &dyn Tensors,
    key: Option<&str>,
    prefer: Prefer,
    wanted: Option<&Wanted>,
) -> Result<Taken> {
    if found.more {
        return Err(
            input.bad("it holds thousands of dictionaries of tensors, which is no checkpoint")
        );
    }
    let mut marked = wanted.is_some();
    let mut all = parts(found, tensors, wanted);
    if all.is_empty() && marked {
        if let Some(dict) = found.dicts.iter().find(|dict| is_of_optimiser(dict)) {
            return Err(input.bad(an_optimiser(&dict.path)));
        }
        // Nothing has the network's names; what there is shows in the message about that.
        marked = false;
        all = parts(found, tensors, None);
    }
    let shapes = |part: &Part| -> BTreeMap<String, Vec<usize>> {
        let named = part.tensors.iter();
        named
            .map(|named| {
                (
                    named.name().to_owned(),
                    tensors.shape(named.tensor).to_vec(),
                )
            })
            .collect()
    };
    let fits: Vec<bool> = match wanted.filter(|_| marked) {
        Some(wanted) => {
            let fits: Vec<bool> = all
                .iter()
                .map(|part| (wanted.fits)(&shapes(part)))
                .collect();
            match fits.contains(&true) {
                true => fits,
                false => vec![true; all.len()],
            }
        }
        None if found.is_flat => vec![true; all.len()],
        None => likely(&all, tensors),
    };
    let within: Vec<usize> = match key {
        Some(key) => under(input, found, &all, key)?,
        None => (0..all.len()).filter(|&i| fits[i]).collect(),
    };
    let Some(index) = choose(&all, &within, prefer, marked) else {
        return Err(input.bad(nothing(found, &all)));
    };
    let others: Vec<usize> = (0..all.len()).filter(|&i| i != index && fits[i]).collect();
    let mut outside = std::mem::take(&mut all[index].outside);
    let mut place = all[index].container.clone();
    for &other in &others {
        let other = &all[other];
        if other.container == all[index].container {
            place = all[index].path();
            // What belongs to another part is named with that part.
            outside.retain(|name| other.prefix.is_empty() || !name.starts_with(&other.prefix));
        }
    }
    let others: Vec<String> = others.into_iter().map(|i| all[i].path()).collect();
    let part = all.swap_remove(index);
    let mut notes = Vec::new();
    let after = match &part.named_after {
        Some(other) if part.prefix.is_empty() => format!(
            ", a list of tensors, which took the names of {}",
            quoted(other)
        ),
        Some(other) => format!(", whose names without dots are those of {}", quoted(other)),
        None => String::new(),
    };
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(|other| quoted(other)).collect();
        let key = if key.is_some() {
            ""
        } else {
            " (--key takes another)"
        };
        notes.push(format!(
            "took the weights under {}{after}; there are also {}{key}",
            quoted(&place),
            list(&others, 10)
        ));
    } else if !after.is_empty() {
        notes.push(format!("took the weights under {}{after}", quoted(&place)));
    }
    if !part.prefix.is_empty() && part.named_after.is_none() {
        notes.push(format!(
            "took {:?} off the names of the tensors",
            short(&part.prefix)
        ));
    }
    if !outside.is_empty() {
        notes.push(format!(
            "left out what is next to them: {}",
            list(&outside, 5)
        ));
    }
    let used = |path: &str| path == part.container;
    let unnamed: Vec<String> = found
        .lists
        .iter()
        .filter(|list| list.tensors.len() > 1 && !used(&list.path))
        .filter(|list| !others.contains(&list.path))
        .map(|list| format!("{} ({} tensors)", quoted(&list.path), list.tensors.len()))
        .collect();
    if !unnamed.is_empty() && key.is_none() {
        notes.push(format!(
            "left out tensors without names, which fit those of no part: {}",
            list(&unnamed, 5)
        ));
    }
    Ok(Taken {
        nested_under: (!place.is_empty()).then_some(place),
        alternatives: others,
        left_out: outside,
        part,
        notes,
    })
}

fn quoted(path: &str) -> String {
    match path {
        "" => "the top".to_owned(),
        path => format!("{:?}", short(path)),
    }
}

/// Without knowing the network: parts with tensors of more than one value, and at least half as many as the largest has.
fn likely(all: &[Part], tensors: &dyn Tensors) -> Vec<bool> {
    let real = |part: &Part| {
        let shapes = part.tensors.iter().map(|named| tensors.shape(named.tensor));
        shapes.filter(|shape| shape.iter().any(|n| *n != 1)).count()
    };
    let counts: Vec<usize> = all.iter().map(real).collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    counts.into_iter().map(|n| n > 0 && 2 * n >= most).collect()
}

/// The parts that a key names: one, or those inside a dictionary.
fn under(input: &Input<'_>, found: &Found, all: &[Part], key: &str) -> Result<Vec<usize>> {
    let exact: Vec<usize> = (0..all.len()).filter(|&i| all[i].path() == key).collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let inside: Vec<usize> = (0..all.len())
        .filter(|&i| all[i].container == key)
        .collect();
    if !inside.is_empty() {
        return Ok(inside);
    }
    let names: Vec<String> = all
        .iter()
        .map(|part| format!("{:?} ({} tensors)", short(&part.path()), part.tensors.len()))
        .collect();
    let is_list = found.lists.iter().any(|list| list.path == key);
    let available = match (is_list, names.is_empty()) {
        (true, _) => "a list of tensors there, which fits the names of no other part".to_owned(),
        (false, true) => "no named tensors".to_owned(),
        (false, false) => list(&names, 20),
    };
    Err(Error::Key {
        path: input.path.clone(),
        key: short(key),
        available,
    })
}

/// The index of the part to take. Without marks the top counts first, if nothing nested is larger.
fn choose(all: &[Part], within: &[usize], prefer: Prefer, marked: bool) -> Option<usize> {
    let size = |i: usize| all[i].tensors.len();
    let most = within.iter().map(|&i| size(i)).max()?;
    let top = within.iter().find(|&&i| all[i].path().is_empty());
    if let Some(&top) = top
        && (marked || size(top) == most)
        && !all[top].average
        && (prefer == Prefer::Raw || !marked)
    {
        return Some(top);
    }
    let wanted = |i: &usize| all[*i].average == (prefer == Prefer::Ema);
    let largest = |among: &mut dyn Iterator<Item = usize>| {
        among.max_by_key(|&i| (size(i), std::cmp::Reverse(i)))
    };
    largest(&mut within.iter().copied().filter(wanted))
        .or_else(|| largest(&mut within.iter().copied()))
}

/// Whether most names are those of an optimiser's moments.
fn is_of_optimiser(dict: &Dict) -> bool {
    let moments = dict.entries.iter().filter(|entry| is_moment(&entry.name));
    2 * moments.count() >= dict.entries.len() && !dict.entries.is_empty()
}

fn an_optimiser(path: &str) -> String {
    let place = match path {
        "" => "this is the state of an optimiser".to_owned(),
        path => format!("there is the state of an optimiser under {}", quoted(path)),
    };
    format!("expected weights, {place} and no network; take the file of the model")
}

/// What there is instead of weights.
fn nothing(found: &Found, all: &[Part]) -> String {
    if let Some(optimiser) = found.optimisers.first() {
        return an_optimiser(optimiser);
    }
    if let Some(list) = found.lists.iter().max_by_key(|list| list.tensors.len()) {
        return format!(
            "expected named tensors, found a list of {} under {} and no names for them",
            list.tensors.len(),
            quoted(&list.path)
        );
    }
    let singles: Vec<String> = all
        .iter()
        .flat_map(|part| part.tensors.iter().map(|named| named.name().to_owned()))
        .take(1000)
        .collect();
    match singles.is_empty() {
        true => "expected a dictionary of tensors, found none".to_owned(),
        false => format!(
            "expected weights, found single numbers only: {}",
            list(&singles, 10)
        ),
    }
}
