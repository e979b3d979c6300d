//! Sampling of timesteps in proportion to their recent losses.

use crate::{
    error::{Result, ScheduleError},
    timesteps::{TimestepDraw, WeightedTimesteps},
};

/// Number of losses kept for each timestep.
const HISTORY: usize = 10;
/// The share of uniform draws, so that every timestep is drawn sometimes.
const UNIFORM_SHARE: f64 = 0.001;

/// The last ten losses of every timestep, and draws of timesteps in proportion to their root mean square.
///
/// Draws are uniform until every timestep has ten losses.
/// ```text
/// v_t = sqrt(mean(loss_t^2)),   p_t = 0.999 v_t / sum v + 0.001 / T,   weight 1 / (T p_t)
/// ```
/// Code reference: guided-diffusion `LossSecondMomentResampler`.
#[derive(Debug, Clone, PartialEq)]
pub struct LossSecondMoment {
    /// `[T, HISTORY]`, oldest first; entries beyond the count are zero.
    losses: Vec<f64>,
    counts: Vec<usize>,
}

impl LossSecondMoment {
    /// An empty history for `n_steps` timesteps.
    ///
    /// # Errors
    /// Fails if `n_steps` is 0.
    pub fn new(n_steps: usize) -> Result<Self> {
        Self::from_state(n_steps, vec![0.0; n_steps * HISTORY], vec![0; n_steps])
    }

    /// Restores a history from [`losses`](Self::losses) and [`counts`](Self::counts).
    ///
    /// # Errors
    /// Fails if `n_steps` is 0, a table has another size, a count is above ten, or a loss is not finite.
    pub fn from_state(n_steps: usize, losses: Vec<f64>, counts: Vec<usize>) -> Result<Self> {
        if n_steps == 0 {
            let (what, min) = ("a timestep sampler", 1);
            return Err(ScheduleError::TooFewSteps { what, n: 0, min });
        }
        let largest = counts.iter().copied().max().unwrap_or(0);
        for (what, found, expected, fits) in [
            (
                "losses",
                losses.len(),
                n_steps * HISTORY,
                losses.len() == n_steps * HISTORY,
            ),
            ("counts", counts.len(), n_steps, counts.len() == n_steps),
            (
                "the history of one step",
                largest,
                HISTORY,
                largest <= HISTORY,
            ),
        ] {
            if !fits {
                return Err(ScheduleError::BadState {
                    what,
                    found,
                    expected,
                });
            }
        }
        if let Some(i) = losses.iter().position(|loss| !loss.is_finite()) {
            let (t, loss) = (i / HISTORY, losses[i]);
            return Err(ScheduleError::BadLoss { t, loss });
        }
        Ok(Self { losses, counts })
    }

    /// The kept losses, `[T, 10]` row by row, oldest first; unused entries are zero.
    #[must_use]
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// The number of losses of every timestep, up to ten.
    #[must_use]
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// The probability of every timestep.
    #[must_use]
    pub fn probabilities(&self) -> Vec<f64> {
        let n = self.counts.len() as f64;
        if self.counts.iter().any(|&count| count < HISTORY) {
            return vec![1.0 / n; self.counts.len()];
        }
        let root_mean_squares: Vec<f64> = self
            .losses
            .chunks_exact(HISTORY)
            .map(|row| (row.iter().map(|loss| loss * loss).sum::<f64>() / HISTORY as f64).sqrt())
            .collect();
        let sum: f64 = root_mean_squares.iter().sum();
        // Losses that are all zero (or whose squares overflow) give no preference.
        if !(sum > 0.0 && sum.is_finite()) {
            return vec![1.0 / n; self.counts.len()];
        }
        root_mean_squares
            .iter()
            .map(|rms| rms / sum * (1.0 - UNIFORM_SHARE) + UNIFORM_SHARE / n)
            .collect()
    }

    /// One timestep for each uniform number in [0, 1), with its importance weight.
    #[must_use]
    pub fn sample(&self, uniforms: &[f64]) -> Vec<TimestepDraw> {
        let probabilities = self.probabilities();
        let table =
            WeightedTimesteps::new(&probabilities).expect("probabilities are positive and finite");
        let n = self.counts.len() as f64;
        let draw = |u: &f64| {
            let t = table.sample(*u);
            let weight = 1.0 / (n * probabilities[t]);
            TimestepDraw { t, weight }
        };
        uniforms.iter().map(draw).collect()
    }

    /// Adds a loss; the oldest of a full history is dropped.
    ///
    /// # Errors
    /// Fails if `t` is out of range or `loss` is not finite.
    pub fn update(&mut self, t: usize, loss: f64) -> Result<()> {
        let n_steps = self.counts.len();
        if t >= n_steps {
            return Err(ScheduleError::TimestepOutOfRange { t, n_steps });
        }
        if !loss.is_finite() {
            return Err(ScheduleError::BadLoss { t, loss });
        }
        let row = &mut self.losses[t * HISTORY..(t + 1) * HISTORY];
        if self.counts[t] == HISTORY {
            row.rotate_left(1);
            row[HISTORY - 1] = loss;
        } else {
            row[self.counts[t]] = loss;
            self.counts[t] += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds ten losses of `values[t]` for every timestep.
    fn filled(values: &[f64]) -> LossSecondMoment {
        let mut history = LossSecondMoment::new(values.len()).unwrap();
        for _ in 0..HISTORY {
            for (t, &value) in values.iter().enumerate() {
                history.update(t, value).unwrap();
            }
        }
        history
    }

    #[test]
    fn draws_are_uniform_until_every_step_has_ten_losses() {
        let mut history = filled(&[1.0, 3.0]);
        history.counts[1] = 9;
        assert_eq!(history.probabilities(), [0.5, 0.5]);
        history.counts[1] = 10;
        let p = history.probabilities();
        assert!((p[0] - (0.999 * 0.25 + 0.0005)).abs() < 1e-15, "{p:?}");
    }

    #[test]
    fn weights_undo_the_preference() {
        let history = filled(&[1.0, 0.5, 4.0, 0.1]);
        let p = history.probabilities();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        let n = 100_000;
        let uniforms: Vec<f64> = (0..n)
            .map(|i| (f64::from(i) + 0.5) / f64::from(n))
            .collect();
        let draws = history.sample(&uniforms);
        let losses = [7.0, -1.0, 2.0, 5.0];
        let mean: f64 = draws.iter().map(|d| d.weight * losses[d.t]).sum::<f64>() / f64::from(n);
        assert!((mean - 3.25).abs() < 0.01, "{mean}");
    }

    #[test]
    fn the_oldest_loss_is_dropped_first() {
        let mut history = filled(&[1.0]);
        for i in 0..3 {
            history.update(0, f64::from(i) + 10.0).unwrap();
        }
        assert_eq!(history.losses()[6..], [1.0, 10.0, 11.0, 12.0]);
        assert_eq!(history.counts(), [10]);
    }

    #[test]
    fn a_restored_history_continues_identically() {
        let mut history = filled(&[1.0, 2.0, 3.0]);
        history.update(1, 9.0).unwrap();
        let restored =
            LossSecondMoment::from_state(3, history.losses().to_vec(), history.counts().to_vec())
                .unwrap();
        assert_eq!(restored, history);
        assert_eq!(restored.sample(&[0.1, 0.7]), history.sample(&[0.1, 0.7]));
    }

    #[test]
    fn a_history_of_zeros_samples_uniformly() {
        assert_eq!(filled(&[0.0, 0.0]).probabilities(), [0.5, 0.5]);
    }

    #[test]
    fn states_and_losses_that_do_not_fit_are_errors() {
        let fits = |losses, counts| LossSecondMoment::from_state(2, losses, counts);
        for (losses, counts, what) in [
            (
                vec![0.0; 19],
                vec![0; 2],
                "losses has 19 entries, expected 20",
            ),
            (
                vec![0.0; 20],
                vec![0; 3],
                "counts has 3 entries, expected 2",
            ),
            (
                vec![0.0; 20],
                vec![0, 11],
                "the history of one step has 11 entries",
            ),
            (vec![f64::NAN; 20], vec![0; 2], "not finite"),
        ] {
            let error = fits(losses, counts).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(LossSecondMoment::new(0).is_err());
        let mut history = LossSecondMoment::new(2).unwrap();
        assert!(history.update(2, 1.0).is_err());
        assert!(history.update(0, f64::NAN).is_err());
    }
}
