//! All fixtures of the kinds that are built.

use rayon::prelude::*;
use sdft_tests::{BUILT, Case, Outcome, find, packaged, run, verdict};
use std::collections::BTreeSet;

#[test]
fn every_case_agrees_with_its_reference_implementation() {
    let given = std::env::var_os("SDFT_PARITY_DIR");
    let root = given.as_ref().map_or_else(packaged, Into::into);
    let dirs = find(&root).unwrap();
    let verdicts: Vec<_> = dirs.par_iter().map(|dir| run(dir)).collect();
    let failures: Vec<String> = dirs
        .iter()
        .zip(&verdicts)
        .filter_map(|(dir, verdict)| match &verdict.outcome {
            Outcome::Failed(reason) => Some(format!("{}: {reason}", dir.display())),
            Outcome::Passed { .. } | Outcome::NotBuilt => None,
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        dirs.len(),
        failures.join("\n")
    );
    if given.is_none() {
        let seen: BTreeSet<&str> = verdicts.iter().map(|v| v.kind.as_str()).collect();
        for kind in BUILT {
            assert!(seen.contains(kind), "no case of kind {kind}");
        }
    }
}

#[test]
fn a_number_that_is_off_is_noticed_in_every_kind() {
    let mut left: BTreeSet<&str> = BUILT.into_iter().collect();
    for dir in find(&packaged()).unwrap() {
        let case = Case::read(&dir).unwrap();
        if !left.remove(case.kind.as_str()) {
            continue;
        }
        let (atol, rtol) = case.tolerance;
        for victim in &case.expected {
            let outcome = verdict(&case, |name, mut array| {
                if name == victim {
                    let largest = array.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    let at = array.data.len() / 2;
                    array.data[at] += 3.0 * (atol + rtol * largest) + 1e-9;
                }
                array
            });
            assert!(
                matches!(&outcome, Outcome::Failed(reason) if reason.contains(victim.as_str())),
                "{victim} of {}: {outcome:?}",
                dir.display()
            );
        }
    }
    assert!(left.is_empty(), "{left:?}");
}
