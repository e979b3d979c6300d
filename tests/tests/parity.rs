//! All cases of the supported kinds.

use sdft_testing::{Array, Case, compare, find_cases, parity_folder};
use sdft_tests::{BUILT, Outcome, compute, walk};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn every_case_agrees_with_its_reference_implementation() {
    let given = std::env::var_os("SDFT_PARITY_DIR");
    let root = given.as_ref().map_or_else(parity_folder, Into::into);
    let verdicts = walk(&root, |kind| BUILT.contains(&kind)).unwrap();
    assert!(!verdicts.is_empty(), "{}: nothing to do", root.display());
    let failures: Vec<String> = verdicts
        .iter()
        .filter_map(|verdict| match &verdict.outcome {
            Outcome::Failed(reason) => Some(format!("{}: {reason}", verdict.dir.display())),
            Outcome::Passed { .. } | Outcome::NotBuilt => None,
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        verdicts.len(),
        failures.join("\n")
    );
}

/// The first case of every kind, with its computed tensors.
fn one_of_each_kind() -> Vec<(Case, BTreeMap<String, Array>)> {
    let mut left: BTreeSet<&str> = BUILT.iter().copied().collect();
    let mut cases = Vec::new();
    for dir in find_cases(&parity_folder()).unwrap() {
        let case = Case::read(&dir).unwrap();
        if left.remove(case.kind.as_str()) {
            let computed = compute(&case).unwrap();
            cases.push((case, computed));
        }
    }
    assert!(left.is_empty(), "no case of {left:?}");
    cases
}

#[test]
fn a_wrong_number_is_an_error_in_every_tensor_of_every_kind() {
    for (case, computed) in one_of_each_kind() {
        assert!(compare(&case, &computed, |_, array| array).is_ok());
        let (atol, rtol) = case.tolerance;
        for victim in &case.expected {
            let changed = |change: &dyn Fn(&mut f64, f64)| {
                compare(&case, &computed, |name, mut array| {
                    if name == victim {
                        let largest = array.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                        let middle = array.data.len() / 2;
                        change(
                            &mut array.data[middle],
                            3.0 * (atol + rtol * largest) + 1e-9,
                        );
                    }
                    array
                })
            };
            for change in [
                &|value: &mut f64, far: f64| *value += far,
                &|value: &mut f64, _: f64| *value = f64::NAN,
            ] as [&dyn Fn(&mut f64, f64); 2]
            {
                let error = changed(change).expect_err(victim).to_string();
                assert!(
                    error.starts_with(&format!("{victim}: error ")) && error.contains("tolerance"),
                    "{}: {error}",
                    case.dir.display()
                );
            }
        }
    }
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_an_error() {
    let mut computed = Array::scalar(1.0);
    let case = Case::read(&parity_folder().join("diffusion/q_sample_linear")).unwrap();
    let mut all = compute(&case).unwrap();
    std::mem::swap(all.get_mut("mean").unwrap(), &mut computed);
    let error = compare(&case, &all, |_, array| array).unwrap_err();
    assert!(error.to_string().starts_with("mean: shape [], expected ["));
    all.remove("mean");
    let error = compare(&case, &all, |_, array| array).unwrap_err();
    assert_eq!(error.to_string(), "mean is not computed");
}
