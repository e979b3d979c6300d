//! Warnings about settings that are valid but probably not intended.

use super::{OptimPlan, Plan};
use sdft_adapters::AdapterKind;
use sdft_optim::EmaRamp;

/// From this share on, pictures show the first weights that are left in the average.
const VISIBLE_SHARE: f64 = 0.05;

impl OptimPlan {
    /// The rate of the moving average in the first steps.
    pub(crate) fn ramp(&self) -> EmaRamp {
        if self.ema_ramp {
            EmaRamp::Early
        } else {
            EmaRamp::None
        }
    }

    /// A warning if the average cannot follow a run of `steps` steps.
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
    /// Warnings about settings that are valid but probably not intended: a sentence each, with the key and what to change.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let average = self.optim.slow_average(self.steps.steps);
        average.into_iter().chain(self.slow_adapter()).collect()
    }

    /// A warning if few weights are trained at the learning rate of all.
    fn slow_adapter(&self) -> Option<String> {
        let (kind, lr) = (self.adapter.kind, self.optim.lr);
        let is_small = matches!(
            kind,
            AdapterKind::Lora | AdapterKind::Difffit | AdapterKind::TimeAware
        );
        (is_small && lr <= OptimPlan::default().lr).then(|| {
            format!(
                "adapter.kind = {:?}: optim.lr = {lr} is a rate for training all weights; five to ten times that is usual here, as in \
                 --set optim.lr=1e-4",
                kind.name()
            )
        })
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

    #[test]
    fn an_adapter_at_the_rate_of_full_training_is_warned_about() {
        let mut plan = <Plan>::default();
        plan.adapter.kind = AdapterKind::Lora;
        let text = plan.warnings().join(" ");
        assert!(
            text.contains("\"lora\"") && text.contains("optim.lr=1e-4"),
            "{text}"
        );
        plan.optim.lr = 1e-4;
        assert_eq!(plan.warnings(), Vec::<String>::new());
        (plan.optim.lr, plan.adapter.kind) = (1e-6, AdapterKind::Names);
        assert_eq!(plan.warnings(), Vec::<String>::new());
    }
}
