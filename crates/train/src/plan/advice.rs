//! What is possible but probably not meant.

use super::{OptimPlan, Plan};
use sdft_optim::EmaRamp;

/// Share of the first weights in the last average from which on pictures show it.
const VISIBLE_SHARE: f64 = 0.05;

impl OptimPlan {
    /// How the rate of the moving average begins.
    pub(crate) fn ramp(&self) -> EmaRamp {
        if self.ema_ramp {
            EmaRamp::Early
        } else {
            EmaRamp::None
        }
    }

    /// Why the average does not show what `steps` steps learned, if it does not.
    fn slow_average(&self, steps: u64) -> Option<String> {
        let share = self.ramp().start_share(self.ema, steps);
        if share <= VISIBLE_SHARE {
            return None;
        }
        let lag = if self.ema < 1.0 {
            format!("{:.0} steps behind", 1.0 / (1.0 - self.ema))
        } else {
            "at the start".to_owned()
        };
        Some(format!(
            "optim.ema = {}: the average stays about {lag} and the run has {steps}, so {:.0} % of the averaged weights, which are \
             sampled and saved, are still those it started from; --set optim.ema_ramp=true makes them follow",
            self.ema,
            100.0 * share
        ))
    }
}

impl<M> Plan<M> {
    /// What is possible but probably not meant, a sentence each, with the key and what to change.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.optim
            .slow_average(self.steps.steps)
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(ema: f64, ema_ramp: bool, steps: u64) -> Vec<String> {
        let mut plan = <Plan>::default();
        plan.steps.steps = steps;
        (plan.optim.ema, plan.optim.ema_ramp) = (ema, ema_ramp);
        plan.warnings()
    }

    #[test]
    fn an_average_that_cannot_follow_within_the_run_is_warned_about_with_its_lag() {
        let text = warnings(0.9999, false, 200).join(" ");
        for words in [
            "optim.ema = 0.9999",
            "10000 steps behind",
            "has 200",
            "98 %",
            "optim.ema_ramp=true",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!warnings(1.0, false, 1_000_000).is_empty());
        // The paper's runs, short runs with the ramp, and runs without an average.
        assert!(warnings(0.9999, false, 80_000).is_empty());
        assert!(warnings(0.9999, true, 200).is_empty());
        assert!(warnings(0.0, false, 1).is_empty());
        assert_eq!(<Plan>::default().warnings(), Vec::<String>::new());
    }
}
