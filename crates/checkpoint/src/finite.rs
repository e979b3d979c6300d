//! Values that are not finite, counted while they are read.

use half::{bf16, f16};
use std::fmt;

/// How many values of a tensor are not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The tensor.
    pub name: String,
    /// Values that are NaN.
    pub nan: u64,
    /// Values that are infinite, or become infinite as f32.
    pub infinite: u64,
    /// All values.
    pub of: u64,
}

impl fmt::Display for NonFinite {
    /// `conv.weight: 1 of 432 values is NaN`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, of) = (crate::short::short(&self.name), self.of);
        let is = |n: u64| if n == 1 { "is" } else { "are" };
        let values = if of == 1 { "value" } else { "values" };
        match (self.nan, self.infinite) {
            (nan, 0) => write!(f, "{name}: {nan} of {of} {values} {} NaN", is(nan)),
            (0, n) => write!(f, "{name}: {n} of {of} {values} {} infinite", is(n)),
            (nan, n) => write!(
                f,
                "{name}: {nan} of {of} {values} {} NaN, {n} {} infinite",
                is(nan),
                is(n)
            ),
        }
    }
}

/// The first tensors of a list, a line each, and how many more there are.
pub(crate) fn lines(tensors: &[NonFinite]) -> String {
    const MOST: usize = 10;
    let mut lines: Vec<String> = tensors
        .iter()
        .take(MOST)
        .map(|t| format!("  {t}"))
        .collect();
    if tensors.len() > MOST {
        lines.push(format!("  and {} more tensors", tensors.len() - MOST));
    }
    lines.join("\n")
}

/// Counts of NaN and infinite values.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    pub(crate) nan: u64,
    pub(crate) infinite: u64,
}

/// A number that is finite or not.
pub(crate) trait Countable: Copy {
    fn finite(self) -> bool;
    fn nan(self) -> bool;
}

macro_rules! countable {
    ($($float:ty),*) => {$(
        impl Countable for $float {
            #[inline]
            fn finite(self) -> bool {
                self.is_finite()
            }
            #[inline]
            fn nan(self) -> bool {
                self.is_nan()
            }
        }
    )*};
}
countable!(f32, f64, f16, bf16);

macro_rules! whole {
    ($($int:ty),*) => {$(
        impl Countable for $int {
            #[inline]
            fn finite(self) -> bool {
                true
            }
            #[inline]
            fn nan(self) -> bool {
                false
            }
        }
    )*};
}
whole!(u8, u32, i64);

impl Census {
    pub(crate) fn count<T: Countable>(&mut self, values: &[T]) {
        // The first pass does not count, so that the compiler vectorises it; the rest is rarely needed.
        let any = values
            .iter()
            .fold(false, |any, value| any | !value.finite());
        if any {
            let odd = values.iter().filter(|value| !value.finite()).count();
            let nan = values.iter().filter(|value| value.nan()).count();
            self.nan += nan as u64;
            self.infinite += (odd - nan) as u64;
        }
    }

    pub(crate) fn of(self, name: &str, of: u64) -> Option<NonFinite> {
        let Self { nan, infinite } = self;
        (nan + infinite > 0).then(|| NonFinite {
            name: name.to_owned(),
            nan,
            infinite,
            of,
        })
    }
}
