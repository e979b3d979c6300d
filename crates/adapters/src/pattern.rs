//! Patterns of names.

use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Names that an error lists.
const SHOWN: usize = 6;

/// Whether the pattern is the whole name or its end after a dot; `*` stands for any text.
///
/// Source: peft's `target_modules`, which are ends of names.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let ends = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    std::iter::once(name)
        .chain(ends)
        .any(|end| is_whole(pattern, end))
}

/// Whether the pattern matches the whole text.
fn is_whole(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The names that match at least one of the patterns.
///
/// # Errors
/// A pattern that matches no name.
pub(crate) fn select<'a>(
    key: &'static str,
    patterns: &[String],
    names: &[&'a str],
) -> Result<BTreeSet<&'a str>> {
    let mut selected = BTreeSet::new();
    for pattern in patterns {
        let mut found = names
            .iter()
            .filter(|name| matches(pattern, name))
            .peekable();
        if found.peek().is_none() {
            return Err(no_match(key, &format!("{pattern:?}"), names));
        }
        selected.extend(found);
    }
    Ok(selected)
}

/// The error about patterns that match none of the names.
pub(crate) fn no_match(key: &'static str, patterns: &str, names: &[&str]) -> Error {
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    let more = if names.len() > SHOWN { ", .." } else { "" };
    Error::config(
        key,
        format!(
            "{patterns} matches nothing; expected names, or their ends, with * for any text: {}{more}",
            shown.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_its_end_with_stars_for_any_text() {
        let name = "down_blocks.1.attentions.0.to_out.0";
        for pattern in [
            name,
            "to_out.0",
            "attentions.*",
            "*.attentions.*",
            "down_*to_*.0",
            "*",
            "*0",
            "**0",
        ] {
            assert!(matches(pattern, name), "{pattern}");
        }
        for pattern in [
            "",
            "out.0",
            "to_out",
            "attentions",
            "up_*",
            "down_*x*",
            "*1",
            "1*1",
        ] {
            assert!(!matches(pattern, name), "{pattern}");
        }
        // One character is not both ends.
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn a_pattern_without_a_match_is_an_error_that_lists_names() {
        let names = ["a.qkv", "b.qkv", "c.op"];
        let patterns = ["qkv".to_owned()];
        assert_eq!(
            select("targets", &patterns, &names).unwrap(),
            BTreeSet::from(["a.qkv", "b.qkv"])
        );
        let patterns = ["qkv".to_owned(), "to_q".to_owned()];
        let error = select("targets", &patterns, &names).unwrap_err();
        let error = error.to_string();
        for words in ["adapter.targets", "\"to_q\"", "c.op"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
