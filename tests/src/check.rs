use crate::array::Array;
use crate::case::Case;
use crate::kinds::{BUILT, compute};
use anyhow::{Context, Result, anyhow};
use std::path::Path;

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
    /// The kind, if it could be read.
    pub kind: String,
    /// How it went.
    pub outcome: Outcome,
}

/// Computes a case and compares it.
pub fn run(dir: &Path) -> Verdict {
    match Case::read(dir) {
        Ok(case) => Verdict {
            kind: case.kind.clone(),
            outcome: verdict(&case, |_, array| array),
        },
        Err(error) => Verdict {
            kind: "?".into(),
            outcome: Outcome::Failed(format!("{error:#}")),
        },
    }
}

/// As [`run`] for a case that is read already; `change` may alter what is expected, to see that it matters.
pub fn verdict(case: &Case, change: impl Fn(&str, Array) -> Array) -> Outcome {
    if !BUILT.contains(&case.kind.as_str()) {
        return Outcome::NotBuilt;
    }
    match compare(case, change) {
        Ok((worst, tensor)) => Outcome::Passed { worst, tensor },
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn compare(case: &Case, change: impl Fn(&str, Array) -> Array) -> Result<(f64, String)> {
    let computed = compute(case)?;
    let (atol, rtol) = case.tolerance;
    let mut worst = (0.0f64, String::new());
    let mut problems = Vec::new();
    for name in &case.expected {
        let want = change(name, Array::of(&case.stored(name)?)?);
        let got = computed
            .get(name)
            .ok_or_else(|| anyhow!("{name} is not computed"))?;
        let got = got.broadcast(&want.shape).with_context(|| name.clone())?;
        let largest = want.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let tolerance = atol + rtol * largest;
        // `max` would drop a NaN; this keeps it.
        let error = got.data.iter().zip(&want.data).fold(0.0f64, |m, (g, w)| {
            let d = if g == w { 0.0 } else { (g - w).abs() };
            if d <= m { m } else { d }
        });
        if error <= tolerance {
            let share = if tolerance > 0.0 {
                error / tolerance
            } else {
                0.0
            };
            if share >= worst.0 {
                worst = (share, name.clone());
            }
        } else {
            problems.push(format!("{name}: error {error:e}, tolerance {tolerance:e}"));
        }
    }
    if problems.is_empty() {
        Ok(worst)
    } else {
        Err(anyhow!("{}", problems.join("; ")))
    }
}
