use crate::array::Array;
use crate::case::{Case, find, kind_of};
use crate::kinds::{BUILT, compute};
use crate::stage::{device, slack};
use anyhow::{Result, anyhow, bail};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How a case went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every expected tensor agrees; the largest error as a share of its tolerance (0 for equality), and whose it is.
    Passed {
        /// Error over tolerance.
        worst: f64,
        /// The tensor.
        tensor: String,
    },
    /// Something does not.
    Failed(String),
    /// The kind is still to come.
    NotBuilt,
}

/// A case and how it went.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Its folder.
    pub dir: PathBuf,
    /// The kind; `?` if it could not be read.
    pub kind: String,
    /// How it went.
    pub outcome: Outcome,
}

/// Runs every case below `root` whose kind `wanted` names, in parallel; the verdicts come in the order of the folders.
///
/// A case whose kind cannot be read is never left out.
///
/// # Errors
/// A folder that cannot be read; none that holds a case.
pub fn walk(root: &Path, wanted: impl Fn(&str) -> bool + Sync) -> Result<Vec<Verdict>> {
    let dirs = find(root)?;
    let one = |dir: &PathBuf| match kind_of(dir) {
        Ok(kind) if !wanted(&kind) => None,
        _ => Some(run(dir)),
    };
    // A GPU does one thing after the other anyhow.
    let verdicts: Vec<Option<Verdict>> = if device().is_cpu() {
        dirs.par_iter().map(one).collect()
    } else {
        dirs.iter().map(one).collect()
    };
    Ok(verdicts.into_iter().flatten().collect())
}

/// Computes a case and compares it.
pub fn run(dir: &Path) -> Verdict {
    let (kind, outcome) = match kind_of(dir) {
        Ok(kind) if !BUILT.contains(&kind.as_str()) => (kind, Outcome::NotBuilt),
        Ok(kind) => (kind, judge(dir)),
        Err(error) => ("?".to_owned(), Outcome::Failed(one_line(&error))),
    };
    Verdict {
        dir: dir.to_owned(),
        kind,
        outcome,
    }
}

/// A message in one line, without the backtrace that candle's errors carry where `RUST_BACKTRACE` is set.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines = text.lines().map(str::trim);
    let message: Vec<&str> = lines.take_while(|line| !line.starts_with("0: ")).collect();
    message.join(" ")
}

fn judge(dir: &Path) -> Outcome {
    // One case that panics must not take the verdicts of all others with it.
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        let case = Case::read(dir)?;
        compare(&case, &compute(&case)?, |_, expected| expected)
    }));
    match verdict {
        Ok(Ok((worst, tensor))) => Outcome::Passed { worst, tensor },
        Ok(Err(error)) => Outcome::Failed(one_line(&error)),
        Err(_) => Outcome::Failed("panicked, which is a defect of the crates".to_owned()),
    }
}

/// Compares what was computed with what is expected: the largest error as a share of its tolerance, and whose it is.
///
/// A tensor agrees when `max|got - expected| <= atol + rtol max|expected|`, both maxima over the whole tensor; a NaN never does.
/// `change` may alter what is expected, to see that it matters.
///
/// # Errors
/// Every tensor that does not agree, with its error and its tolerance; one that was not computed or has another shape.
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

/// The tolerance of a tensor: its case's, unless half maps explain more. That is a share of the largest value of all tensors of its kind
/// (`grad.`, `delta.`), since among gradients there are some that are zero but for rounding.
fn tolerance(case: &Case, name: &str) -> Result<(f64, f64)> {
    if slack() == 0.0 {
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
    Ok((case.tolerance.0.max(slack() * largest), case.tolerance.1))
}

/// The error as a share of the tolerance, which is 0 where both are.
fn agreement(got: &Array, expected: &Array, (atol, rtol): (f64, f64)) -> Result<f64> {
    if got.shape != expected.shape {
        bail!("shape {:?}, expected {:?}", got.shape, expected.shape);
    }
    // An infinity is met by itself only, and must not make the tolerance infinite.
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
    fn what_is_no_number_agrees_with_nothing_and_infinities_with_themselves_only() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert_eq!(share(&[nan, 1.0], &[1.0, 1.0], (9.0, 9.0)), None);
        assert_eq!(share(&[1.0, nan], &[1.0, nan], (9.0, 9.0)), None);
        assert_eq!(share(&[3.0, nan, 3.0], &[1.0; 3], (9.0, 9.0)), None);
        assert_eq!(share(&[1.0, -inf], &[1.0, -inf], (0.0, 0.0)), Some(0.0));
        assert_eq!(share(&[1.0, 5.0], &[1.0, inf], (9.0, 9.0)), None);
        assert_eq!(share(&[2.0, inf], &[1.0, inf], (0.0, 0.5)), None);
    }

    #[test]
    fn shapes_must_agree_even_where_values_could_be_repeated() {
        let wide = Array {
            shape: vec![2, 1],
            data: vec![1.0; 2],
        };
        let error = agreement(&Array::vector(vec![1.0; 2]), &wide, (1.0, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "shape [2], expected [2, 1]");
    }
}
