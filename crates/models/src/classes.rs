//! The classes of a class-conditional network.

use crate::error::brief;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The classes of a class-conditional network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The name of each class; the label of a class is its place.
    pub names: Vec<String>,
    /// The label of the null class, which stands for "no class" in classifier-free guidance: the number of names. `None` if the network
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<u32>,
}

impl Classes {
    /// Classes of these names, with or without a null class.
    pub fn new(names: Vec<String>, has_null: bool) -> Self {
        let null = u32::try_from(names.len()).ok().filter(|_| has_null);
        Self { names, null }
    }

    /// `n` classes whose names are their labels.
    pub fn numbered(n: usize, has_null: bool) -> Self {
        Self::new((0..n).map(|label| label.to_string()).collect(), has_null)
    }

    /// Number of labels, that of the null class included.
    pub fn n_labels(&self) -> usize {
        self.names.len() + usize::from(self.null.is_some())
    }

    /// The label of a class: of its whole name, or of one of the synonyms in it, as in `tench, Tinca tinca`, if no other class has it.
    pub fn label(&self, name: &str) -> Option<u32> {
        let whole = self.names.iter().position(|known| known == name);
        let is_synonym = |known: &String| known.split(',').any(|word| word.trim() == name);
        let place = whole.or_else(|| {
            let all = self.names.iter().enumerate();
            let mut places = all.filter(|(_, known)| is_synonym(known));
            let (place, _) = places.next()?;
            places.next().is_none().then_some(place)
        })?;
        u32::try_from(place).ok()
    }

    /// A message about classes that are not valid.
    pub(crate) fn problem(&self) -> Option<String> {
        let n = self.names.len();
        if n == 0 {
            return Some("expected the name of at least one class, found none".to_owned());
        }
        let mut seen = BTreeSet::new();
        if let Some(name) = self.names.iter().find(|name| !seen.insert(*name)) {
            return Some(format!(
                "expected different names, found {} twice",
                brief(name)
            ));
        }
        match self.null {
            Some(null) if null as usize != n => Some(format!(
                "null: expected {n}, the label after those of {n} classes, found {null}"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_found_by_its_name_or_by_a_synonym_that_no_other_has() {
        let names = [
            "tench, Tinca tinca",
            "crane",
            "crane, derrick",
            "goldfish, fish",
            "shark, fish",
        ];
        let classes = Classes::new(names.map(str::to_owned).into(), false);
        for (name, label) in [
            ("tench, Tinca tinca", Some(0)),
            ("Tinca tinca", Some(0)),
            ("crane", Some(1)),
            ("derrick", Some(2)),
            ("fish", None),
            ("ench", None),
        ] {
            assert_eq!(classes.label(name), label, "{name}");
        }
    }
}
