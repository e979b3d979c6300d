//! Compares computed tensors with those of a case, within its tolerance.

use crate::array::Array;
use crate::case::Case;
use crate::stage::rounding_slack;
use anyhow::{Result, anyhow, bail};
use std::collections::BTreeMap;

/// The largest error as a share of its tolerance, and the name of that tensor.
///
/// A tensor agrees when `max|got - expected| <= atol + rtol max|expected|`, both maxima over the whole tensor; NaN agrees with nothing.
/// `change` may alter the expected values: a test uses it to show that a wrong value is an error.
///
/// # Errors
/// Every tensor that does not agree, with its error and its tolerance, that was not computed, or that has another shape.
pub fn compare(
    case: &Case,
    computed: &BTreeMap<String, Array>,
    change: impl Fn(&str, Array) -> Array,
) -> Result<(f64, String)> {
    let mut worst = (0.0f64, String::new());
    let mut problems = Vec::new();
    for name in &case.expected {
        let expected = change(name, Array::of(&case.stored(name)?)?);
        match computed.get(name) {
            None => problems.push(format!("{name} is not computed")),
            Some(got) => match agreement(got, &expected, tolerance(case, name)?) {
                Ok(share) if share >= worst.0 => worst = (share, name.clone()),
                Ok(_) => {}
                Err(error) => problems.push(format!("{name}: {error}")),
            },
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(worst)
}

/// The tolerance of a tensor: its case's, or with half precision a share of the largest value of all tensors of its kind (`grad.`,
/// `delta.`) if that is more, because some gradients are zero except for rounding.
fn tolerance(case: &Case, name: &str) -> Result<(f64, f64)> {
    if rounding_slack() == 0.0 {
        return Ok(case.tolerance);
    }
    let kind = |name: &str| name.split_once('.').map(|(kind, _)| kind.to_owned());
    let mut largest = 0.0f64;
    for other in case
        .expected
        .iter()
        .filter(|other| kind(other) == kind(name))
    {
        let values = Array::of(&case.stored(other)?)?.data;
        let finite = values.iter().filter(|v| v.is_finite());
        largest = finite.fold(largest, |m, v| m.max(v.abs()));
    }
    Ok((
        case.tolerance.0.max(rounding_slack() * largest),
        case.tolerance.1,
    ))
}

/// The error as a share of the tolerance; 0 where both are 0.
fn agreement(got: &Array, expected: &Array, (atol, rtol): (f64, f64)) -> Result<f64> {
    if got.shape != expected.shape {
        bail!("shape {:?}, expected {:?}", got.shape, expected.shape);
    }
    // An infinity agrees with itself only, and must not make the tolerance infinite.
    let finite = expected.data.iter().filter(|v| v.is_finite());
    let largest = finite.fold(0.0f64, |m, v| m.max(v.abs()));
    let tolerance = atol + rtol * largest;
    // `f64::max` would drop a NaN; this keeps the first one.
    let error = got
        .data
        .iter()
        .zip(&expected.data)
        .fold(0.0f64, |m, (g, e)| {
            let d = if g == e { 0.0 } else { (g - e).abs() };
            if m.is_nan() || d <= m { m } else { d }
        });
    if error.is_nan() || error > tolerance {
        return Err(anyhow!("error {error:e}, tolerance {tolerance:e}"));
    }
    Ok(if tolerance > 0.0 {
        error / tolerance
    } else {
        0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(got: &[f64], expected: &[f64], tolerance: (f64, f64)) -> Option<f64> {
        let [got, expected] = [got, expected].map(|data| Array::vector(data.to_vec()));
        agreement(&got, &expected, tolerance).ok()
    }

    #[test]
    fn the_tolerance_is_absolute_plus_relative_to_the_largest_expected_value() {
        assert_eq!(share(&[2.25, 4.0], &[2.0, -4.0], (0.0, 0.0)), None);
        assert_eq!(share(&[2.25, -4.0], &[2.0, -4.0], (0.5, 0.0)), Some(0.5));
        assert_eq!(share(&[2.25, -4.0], &[2.0, -4.0], (0.0, 0.125)), Some(0.5));
        assert_eq!(share(&[2.25, -4.0], &[2.0, -4.0], (0.1, 0.03)), None);
        assert_eq!(share(&[7.0], &[7.0], (0.0, 0.0)), Some(0.0));
    }

    #[test]
    fn nan_agrees_with_nothing_and_infinities_with_themselves_only() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert_eq!(share(&[nan, 1.0], &[1.0, 1.0], (9.0, 9.0)), None);
        assert_eq!(share(&[1.0, nan], &[1.0, nan], (9.0, 9.0)), None);
        assert_eq!(share(&[3.0, nan, 3.0], &[1.0; 3], (9.0, 9.0)), None);
        assert_eq!(share(&[1.0, -inf], &[1.0, -inf], (0.0, 0.0)), Some(0.0));
        assert_eq!(share(&[1.0, 5.0], &[1.0, inf], (9.0, 9.0)), None);
        assert_eq!(share(&[2.0, inf], &[1.0, inf], (0.0, 0.5)), None);
    }

    #[test]
    fn shapes_must_agree_even_if_values_could_be_broadcast() {
        let wide = Array {
            shape: vec![2, 1],
            data: vec![1.0; 2],
        };
        let error = agreement(&Array::vector(vec![1.0; 2]), &wide, (1.0, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "shape [2], expected [2, 1]");
    }
}
