//! Selects the part of a file to read.

use crate::error::{Error, Result};
use crate::input::Input;
use crate::inventory::{Dict, Inventory};
use crate::notes::{Choice, quoted};
use crate::parts::{Part, Tensors, is_moment, parts};
use crate::short::{list, short};
use sdft_files::plural;
use std::collections::BTreeMap;

/// The weights to take if a file has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The moving average, which samplers use.
    #[default]
    Ema,
    /// The weights as trained.
    Raw,
}

/// The network that a file is read for, by which its weights are recognised.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Names that only this network has. The part of a file with one of them is taken, and its prefix there is removed from all names.
    pub marks: &'static [&'static str],
    /// Returns whether names and shapes are those of the network.
    pub fits: fn(&BTreeMap<String, Vec<usize>>) -> bool,
}

/// The part that was taken, and notes about it.
pub(crate) struct Taken {
    pub(crate) part: Part,
    /// Its path, if it is not at the top.
    pub(crate) nested_under: Option<String>,
    /// Other parts that could have been taken.
    pub(crate) alternatives: Vec<String>,
    /// Other names in the same dictionary.
    pub(crate) left_out: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Takes the part at `key`, or the one that fits: averages or raw weights first, as preferred.
pub(crate) fn take(
    input: &Input<'_>,
    inventory: &Inventory,
    tensors: &dyn Tensors,
    key: Option<&str>,
    prefer: Prefer,
    wanted: Option<&Wanted>,
) -> Result<Taken> {
    if inventory.more {
        return Err(input.bad("it has thousands of dictionaries of tensors; expected a checkpoint"));
    }
    let mut all = parts(inventory, tensors, wanted);
    let mut wanted = wanted;
    let is_there = |all: &[Part]| match key {
        Some(key) => !under(all, key).is_empty(),
        None => !all.is_empty(),
    };
    if wanted.is_some() && !is_there(&all) {
        let optimiser = inventory.dicts.iter().find(|dict| is_of_optimiser(dict));
        if let (None, Some(dict)) = (key, optimiser) {
            return Err(input.bad(an_optimiser(&dict.path)));
        }
        // No part has the network's names; the error shows what the file has.
        wanted = None;
        all = parts(inventory, tensors, None);
    }
    let fits = match wanted {
        Some(wanted) => fitting(&all, tensors, wanted),
        None if inventory.is_flat => vec![true; all.len()],
        None => likely(&all, tensors),
    };
    let within: Vec<usize> = match key {
        Some(key) => under(&all, key),
        None => (0..all.len()).filter(|&i| fits[i]).collect(),
    };
    let Some(index) = choose(&all, &within, prefer, wanted.is_some()) else {
        return Err(match key {
            Some(key) => no_such(input, inventory, &all, key),
            None => input.bad(nothing(inventory, &all)),
        });
    };
    let others = |fit: bool| {
        let others = (0..all.len()).filter(move |&i| i != index);
        let fits = &fits;
        others.filter(move |&i| fits[i] == fit).map(|i| &all[i])
    };
    let choice = Choice {
        inventory,
        part: &all[index],
        others: others(true).collect(),
        misfits: match wanted {
            Some(_) => others(false).map(Part::path).collect(),
            None => Vec::new(),
        },
        by_key: key.is_some(),
    };
    let left_out = choice.left_out();
    let place = choice.place();
    let notes = choice.notes(&left_out);
    let alternatives = choice.others.iter().map(|part| part.path()).collect();
    Ok(Taken {
        nested_under: (!place.is_empty()).then_some(place),
        alternatives,
        left_out,
        notes,
        part: all.swap_remove(index),
    })
}

/// The parts that fit the network; all of them if none does, so that the error shows what does not fit.
fn fitting(all: &[Part], tensors: &dyn Tensors, wanted: &Wanted) -> Vec<bool> {
    let fits = all.iter().map(|part| {
        let named = part.tensors.iter();
        let shape = |tensor| tensors.shape(tensor).to_vec();
        let shapes = named.map(|named| (named.name().to_owned(), shape(named.tensor)));
        (wanted.fits)(&shapes.collect())
    });
    let fits: Vec<bool> = fits.collect();
    match fits.contains(&true) {
        true => fits,
        false => vec![true; all.len()],
    }
}

/// For an unknown network: parts with at least half as many tensors of more than one value as the largest part.
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
fn under(all: &[Part], key: &str) -> Vec<usize> {
    let exact: Vec<usize> = (0..all.len()).filter(|&i| all[i].path() == key).collect();
    match exact.is_empty() {
        true => (0..all.len())
            .filter(|&i| all[i].container == key)
            .collect(),
        false => exact,
    }
}

fn no_such(input: &Input<'_>, inventory: &Inventory, all: &[Part], key: &str) -> Error {
    let names: Vec<String> = all
        .iter()
        .map(|part| {
            let path = short(&part.path());
            format!(
                "{path:?} ({})",
                plural(part.tensors.len(), "tensor", "tensors")
            )
        })
        .collect();
    let is_list = inventory.lists.iter().any(|list| list.path == key);
    let available = match (is_list, names.is_empty()) {
        (true, _) => "a list of tensors there, which fits the names of no other part".to_owned(),
        (false, true) => "no named tensors".to_owned(),
        (false, false) => list(&names, 20),
    };
    Error::Key {
        path: input.path.clone(),
        key: short(key),
        available,
    }
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
    format!("expected weights, {place}; take the file of the model")
}

/// An error about a file without weights.
fn nothing(inventory: &Inventory, all: &[Part]) -> String {
    if let Some(optimiser) = inventory.optimisers.first() {
        return an_optimiser(optimiser);
    }
    if let Some(list) = inventory.lists.iter().max_by_key(|list| list.tensors.len()) {
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
