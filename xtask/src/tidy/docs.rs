//! Checks that the documents mention all crates and cited equations.

use std::collections::BTreeSet;

const MAP: &str = "docs/ARCHITECTURE.md";
const EQUATIONS: &str = "docs/EQUATIONS.md";

/// The numbers `n` of all `Eq. (n)` in a text.
pub(super) fn equations(text: &str) -> BTreeSet<u32> {
    let number = |rest: &str| {
        rest.split_once(')')
            .and_then(|(number, _)| number.trim().parse().ok())
    };
    text.split("Eq. (").skip(1).filter_map(number).collect()
}

/// One line for each crate that the map does not mention as `crates/NAME` or `sdft-NAME`.
pub(super) fn check_map(folders: &[&str], map: Option<&str>) -> Vec<String> {
    let Some(map) = map else {
        return vec![format!("{MAP}: missing; add the table of crates")];
    };
    let words: BTreeSet<&str> = map
        .split(|c: char| !(c.is_alphanumeric() || "-_/".contains(c)))
        .collect();
    let crates = folders
        .iter()
        .filter_map(|folder| folder.strip_prefix("crates/"));
    crates
        .filter(|name| {
            let spellings = [
                format!("crates/{name}"),
                format!("crates/{name}/"),
                format!("sdft-{name}"),
            ];
            !spellings
                .iter()
                .any(|spelling| words.contains(spelling.as_str()))
        })
        .map(|name| format!("{MAP}: crates/{name} is not mentioned; add a line with its invariant"))
        .collect()
}

/// One line for each cited equation (with the file that cites it) that is not in the table of equations.
pub(super) fn check_equations(cited: &[(String, u32)], table: Option<&str>) -> Vec<String> {
    let known = table.map(equations);
    match known {
        None if cited.is_empty() => Vec::new(),
        None => vec![format!(
            "{EQUATIONS}: missing; add the table of equations, functions and tests"
        )],
        Some(known) => cited
            .iter()
            .filter(|(_, number)| !known.contains(number))
            .map(|(path, number)| {
                format!("{path}: cites Eq. ({number}), which is not in {EQUATIONS}; add its row")
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_read_from_prose() {
        let text = "See Eq. (3), then Eq. (12) and Eq. (x); Eq. 4 and Eq. ( are no citations. Again Eq. (3).";
        assert_eq!(equations(text), BTreeSet::from([3, 12]));
    }

    #[test]
    fn crates_missing_from_the_map_are_reported() {
        let folders = ["crates/nn", "crates/noise", "crates/adm", "xtask"];
        let map =
            "`crates/noise/` draws numbers, sdft-adm is the network. crates/nnn is something else.";
        assert_eq!(
            check_map(&folders, Some(map)),
            ["docs/ARCHITECTURE.md: crates/nn is not mentioned; add a line with its invariant"]
        );
        assert_eq!(check_map(&folders, None).len(), 1);
    }

    #[test]
    fn equations_missing_from_the_table_are_reported() {
        let cited = [
            ("crates/losses/src/a.rs".to_owned(), 3),
            ("crates/losses/src/b.rs".to_owned(), 7),
        ];
        assert_eq!(
            check_equations(&cited, Some("| Eq. (3) | distill |")),
            [
                "crates/losses/src/b.rs: cites Eq. (7), which is not in docs/EQUATIONS.md; add its row"
            ]
        );
        assert_eq!(check_equations(&cited, None).len(), 1);
        assert!(check_equations(&[], None).is_empty());
    }
}
