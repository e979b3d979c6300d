//! Which steps diffusers' schedulers visit.

use std::{fmt, str::FromStr};

use crate::error::{Result, ScheduleError};

/// How diffusers' schedulers choose `n` of the `T` steps of a process (`timestep_spacing`).
///
/// Source: Lin et al. 2023, Table 2; diffusers `DDIMScheduler.set_timesteps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Spacing {
    /// `0, r, 2r, ..` with `r = T // n`, shifted by an offset.
    #[default]
    Leading,
    /// Evenly from 0 to `T - 1`, rounded.
    Linspace,
    /// `T - 1, T - 1 - r, ..` with `r = T / n`, rounded.
    Trailing,
}

impl Spacing {
    /// Every spacing.
    pub const ALL: [Self; 3] = [Self::Leading, Self::Linspace, Self::Trailing];

    /// The name in files and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
        }
    }

    /// The `wanted` steps visited of a process with `n_steps` steps, ascending and distinct. Only [`Leading`](Self::Leading) has an `offset`.
    ///
    /// # Errors
    /// Fails if no step or more than `n_steps` are wanted, or if the offset shifts a step beyond the process.
    pub fn indices(self, n_steps: usize, wanted: usize, offset: usize) -> Result<Vec<usize>> {
        if wanted == 0 || wanted > n_steps {
            return Err(ScheduleError::StepCount { wanted, n_steps });
        }
        let (total, count) = (n_steps as f64, wanted as f64);
        // Both round half to even, like numpy. The casts are of numbers from 0 to `n_steps`.
        let kept: Vec<usize> = match self {
            Self::Leading => {
                let ratio = n_steps / wanted;
                (0..wanted)
                    .map(|i| (i * ratio).saturating_add(offset))
                    .collect()
            }
            Self::Linspace => {
                let stride = (total - 1.0) / (count - 1.0).max(1.0);
                (0..wanted)
                    .map(|i| (i as f64 * stride).round_ties_even() as usize)
                    .collect()
            }
            Self::Trailing => {
                // numpy's arange adds multiples of the difference of its first two entries.
                let delta = (total - total / count) - total;
                let steps = (0..wanted).rev();
                steps
                    .map(|i| (total + i as f64 * delta).round_ties_even() as usize)
                    .map(|step| step.saturating_sub(1))
                    .collect()
            }
        };
        match kept.last() {
            Some(&last) if last >= n_steps => Err(ScheduleError::OffsetTooLarge {
                offset,
                last,
                n_steps,
            }),
            _ => Ok(kept),
        }
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Spacing {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|spacing| spacing.name() == name)
            .ok_or_else(|| ScheduleError::UnknownSpacing {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_diffusers() {
        let of = |spacing: Spacing, n, wanted| spacing.indices(n, wanted, 0).unwrap();
        assert_eq!(of(Spacing::Leading, 1000, 4), [0, 250, 500, 750]);
        assert_eq!(of(Spacing::Leading, 1000, 3), [0, 333, 666]);
        assert_eq!(
            Spacing::Leading.indices(1000, 4, 1).unwrap(),
            [1, 251, 501, 751]
        );
        assert_eq!(of(Spacing::Linspace, 1000, 4), [0, 333, 666, 999]);
        assert_eq!(of(Spacing::Linspace, 6, 3), [0, 2, 5]);
        assert_eq!(of(Spacing::Trailing, 1000, 4), [249, 499, 749, 999]);
        assert_eq!(of(Spacing::Trailing, 1000, 3), [332, 666, 999]);
        for spacing in Spacing::ALL {
            assert!(of(spacing, 50, 50).into_iter().eq(0..50), "{spacing}");
            for wanted in 1..=100 {
                let steps = of(spacing, 100, wanted);
                assert!(steps.is_sorted_by(|a, b| a < b), "{spacing} {steps:?}");
                assert_eq!(steps.len(), wanted, "{spacing}");
            }
            assert_eq!(spacing.to_string().parse(), Ok(spacing));
        }
    }

    #[test]
    fn steps_beyond_the_process_are_refused() {
        let error = Spacing::Leading.indices(1000, 1000, 1).unwrap_err();
        assert!(error.to_string().contains("offset of 1"), "{error}");
        for wanted in [0, 1001] {
            let error = Spacing::Trailing.indices(1000, wanted, 0).unwrap_err();
            assert!(error.to_string().contains("from 1 to 1000"), "{error}");
        }
        assert!(Spacing::Leading.indices(10, 2, usize::MAX).is_err());
        let error = "karras".parse::<Spacing>().unwrap_err().to_string();
        assert!(
            error.contains("\"karras\"") && error.contains("\"trailing\""),
            "{error}"
        );
    }
}
