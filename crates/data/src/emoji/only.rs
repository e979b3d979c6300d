//! Which emoji a set has, by their attributes.

use std::collections::{BTreeMap, BTreeSet};

use sdft_files::did_you_mean;

use super::entry::{COLUMN_NAMES, COLUMNS, EmojiEntry, TEXTS};
use crate::{DataError, Result};

/// The values that are accepted in columns of [`EmojiEntry::value`]; an emoji must fit all columns. A column without values accepts all.
pub type Only = BTreeMap<String, Vec<String>>;

/// Values that an error lists.
const LISTED: usize = 100;

/// Whether an emoji fits.
pub(super) fn fits(only: &Only, entry: &EmojiEntry) -> bool {
    only.iter().all(|(column, accepted)| {
        let value = entry.value(column);
        accepted.is_empty() || accepted.iter().any(|one| Some(one.as_str()) == value)
    })
}

/// Fails unless all columns and values exist.
pub(super) fn check(only: &Only, entries: &[EmojiEntry]) -> Result<()> {
    for (column, accepted) in only {
        let known = COLUMNS.iter().find(|(name, _)| name == column);
        let values: BTreeSet<&str> = match known {
            Some((_, values)) => values.iter().copied().collect(),
            None if TEXTS.contains(&column.as_str()) => entries
                .iter()
                .filter_map(|entry| entry.value(column))
                .collect(),
            None => {
                let columns = COLUMN_NAMES.iter().copied();
                return Err(DataError::Only {
                    column: None,
                    expected: COLUMN_NAMES.join(", "),
                    found: format!("{column:?}{}", did_you_mean(column, columns)),
                });
            }
        };
        let unknown = accepted
            .iter()
            .find(|value| !values.contains(value.as_str()));
        if let Some(value) = unknown {
            let listed: Vec<&str> = match known {
                Some((_, values)) => values.to_vec(),
                None => values
                    .iter()
                    .copied()
                    .filter(|value| !value.is_empty())
                    .collect(),
            };
            let expected = match listed.len() {
                n if n > LISTED => format!("one of {n} values, as in assets/emoji/index.tsv"),
                _ => listed.join(", "),
            };
            return Err(DataError::Only {
                column: Some(column.clone()),
                expected,
                found: format!("{value:?}{}", did_you_mean(value, listed)),
            });
        }
    }
    Ok(())
}
