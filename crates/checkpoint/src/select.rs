//! Which part of a file is taken.

use crate::error::{Error, Result};
use crate::found::{Dict, Found};
use crate::input::Input;
use crate::parts::{Part, Tensors, is_moment, parts};
use crate::said::{Said, quoted};
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
    let mut all = parts(found, tensors, wanted);
    let mut wanted = wanted;
    let is_there = |all: &[Part]| match key {
        Some(key) => !under(all, key).is_empty(),
        None => !all.is_empty(),
    };
    if wanted.is_some() && !is_there(&all) {
        let optimiser = found.dicts.iter().find(|dict| is_of_optimiser(dict));
        if let (None, Some(dict)) = (key, optimiser) {
            return Err(input.bad(an_optimiser(&dict.path)));
        }
        // Nothing there has the network's names; what there is shows in the message about that.
        wanted = None;
        all = parts(found, tensors, None);
    }
    let fits = match wanted {
        Some(wanted) => fitting(&all, tensors, wanted),
        None if found.is_flat => vec![true; all.len()],
        None => likely(&all, tensors),
    };
    let within: Vec<usize> = match key {
        Some(key) => under(&all, key),
        None => (0..all.len()).filter(|&i| fits[i]).collect(),
    };
    let Some(index) = choose(&all, &within, prefer, wanted.is_some()) else {
        return Err(match key {
            Some(key) => no_such(input, found, &all, key),
            None => input.bad(nothing(found, &all)),
        });
    };
    let others = |fit: bool| {
        let others = (0..all.len()).filter(move |&i| i != index);
        let fits = &fits;
        others.filter(move |&i| fits[i] == fit).map(|i| &all[i])
    };
    let said = Said {
        found,
        part: &all[index],
        others: others(true).collect(),
        misfits: match wanted {
            Some(_) => others(false).map(Part::path).collect(),
            None => Vec::new(),
        },
        by_key: key.is_some(),
    };
    let left_out = said.left_out();
    let place = said.place();
    let notes = said.notes(&left_out);
    let alternatives = said.others.iter().map(|part| part.path()).collect();
    Ok(Taken {
        nested_under: (!place.is_empty()).then_some(place),
        alternatives,
        left_out,
        notes,
        part: all.swap_remove(index),
    })
}

/// Which parts fit the network; all of them where none does, so that the message about the misfit has something to show.
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
fn under(all: &[Part], key: &str) -> Vec<usize> {
    let exact: Vec<usize> = (0..all.len()).filter(|&i| all[i].path() == key).collect();
    match exact.is_empty() {
        true => (0..all.len())
            .filter(|&i| all[i].container == key)
            .collect(),
        false => exact,
    }
}

fn no_such(input: &Input<'_>, found: &Found, all: &[Part], key: &str) -> Error {
    let names: Vec<String> = all
        .iter()
        .map(|part| {
            let path = short(&part.path());
            format!("{path:?} ({} tensors)", part.tensors.len())
        })
        .collect();
    let is_list = found.lists.iter().any(|list| list.path == key);
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
