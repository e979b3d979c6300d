//! Notes about the selected part of a file.

use crate::inventory::Inventory;
use crate::parts::Part;
use crate::short::{list, short};

/// The most names that are collected.
const MOST: usize = 1000;

/// The note that a prefix was removed from every name. For callers whose networks have the prefix in their names.
pub fn removed_prefix(prefix: &str) -> String {
    format!("removed the prefix {prefix:?} from the names of the tensors")
}

pub(crate) struct Choice<'a> {
    pub(crate) inventory: &'a Inventory,
    /// The part that was taken.
    pub(crate) part: &'a Part,
    /// Parts that could have been taken.
    pub(crate) others: Vec<&'a Part>,
    /// Parts that have some of the network's names, but do not fit it.
    pub(crate) misfits: Vec<String>,
    /// Whether the user chose the part.
    pub(crate) by_key: bool,
}

pub(crate) fn quoted(path: &str) -> String {
    match path {
        "" => "the top".to_owned(),
        path => format!("{:?}", short(path)),
    }
}

impl Choice<'_> {
    /// Other parts of the same dictionary.
    fn siblings(&self) -> impl Iterator<Item = &&Part> {
        let others = self.others.iter();
        others.filter(|other| other.container == self.part.container)
    }

    /// The path of the part: its dictionary, with its prefix if the dictionary has other parts.
    pub(crate) fn place(&self) -> String {
        match self.siblings().next() {
            Some(_) => self.part.path(),
            None => self.part.container.clone(),
        }
    }

    /// Names in the part's dictionary that belong to none of the parts.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let Some(dict) = self.part.dict.and_then(|n| self.inventory.dicts.get(n)) else {
            return Vec::new();
        };
        let mut prefixes = vec![self.part.prefix.as_str()];
        prefixes.extend(self.siblings().map(|other| other.prefix.as_str()));
        let inside = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let names = dict.entries.iter().map(|entry| &*entry.name);
        let outside = names.filter(|name| !inside(name)).take(MOST);
        outside.map(short).collect()
    }

    pub(crate) fn notes(&self, left_out: &[String]) -> Vec<String> {
        let mut notes = Vec::new();
        let (part, place) = (self.part, quoted(&self.place()));
        let named = match &part.named_after {
            Some(other) if part.dict.is_none() => format!(
                ", a list of tensors, which took the names of {}",
                quoted(other)
            ),
            Some(other) => format!(", whose names without dots are those of {}", quoted(other)),
            None => String::new(),
        };
        if !self.others.is_empty() {
            let others = self.others.iter().take(MOST);
            let others: Vec<String> = others.map(|other| quoted(&other.path())).collect();
            let key = match self.by_key {
                true => "",
                false => " (--key takes another)",
            };
            notes.push(format!(
                "took the weights under {place}{named}; there are also {}{key}",
                list(&others, 10)
            ));
        } else if !named.is_empty() {
            notes.push(format!("took the weights under {place}{named}"));
        }
        if !self.misfits.is_empty() {
            let misfits: Vec<String> = self.misfits.iter().map(|path| quoted(path)).collect();
            notes.push(format!(
                "left out incomplete networks: {}",
                list(&misfits, 5)
            ));
        }
        if !part.prefix.is_empty() && part.named_after.is_none() {
            notes.push(removed_prefix(&short(&part.prefix)));
        }
        if !left_out.is_empty() {
            notes.push(format!(
                "left out other tensors next to the weights: {}",
                list(left_out, 5)
            ));
        }
        notes.extend(self.unnamed());
        notes
    }

    /// A note about lists that do not fit the names of any part.
    fn unnamed(&self) -> Option<String> {
        let taken = |path: &String| {
            let mut all = self.others.iter().chain([&self.part]);
            all.any(|part| part.container == *path)
        };
        let lists = self
            .inventory
            .lists
            .iter()
            .filter(|list| list.tensors.len() > 1);
        let lists = lists.filter(|list| !taken(&list.path)).take(MOST);
        let unnamed: Vec<String> = lists
            .map(|list| format!("{} ({} tensors)", quoted(&list.path), list.tensors.len()))
            .collect();
        (!unnamed.is_empty() && !self.by_key).then(|| {
            format!(
                "left out tensors without names, which do not fit the names of any part: {}",
                list(&unnamed, 5)
            )
        })
    }
}
