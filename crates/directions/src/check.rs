//! The checks of a direction's plan.

use crate::plan::DirectionPlan;
use sdft_asyrp::training_sequence;
use sdft_eval::EmojiValues;
use sdft_schedule::MAX_STEPS;
use sdft_train::{
    MAX_RUN_STEPS, PlanError, RunPlan, check_classes, check_counts, check_name, check_optim,
    check_pace, check_process,
};

impl DirectionPlan {
    /// As [`RunPlan::validate`], without the architecture and the process, which may be unknown until the model's file is read.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn validate_settings(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        check_name(&self.name)?;
        let said = [
            (
                "source",
                &self.source,
                "a model to edit with; give --model FILE",
            ),
            (
                "data.path",
                &self.data.path,
                "an image folder, \"digits\" or \"emoji\"; give --data",
            ),
            (
                "goal.from",
                &self.goal.from,
                "what the images show; give --from \"face\", or a preset as --config smiling",
            ),
            (
                "goal.to",
                &self.goal.to,
                "what they are to show; give --to \"smiling face\", or a preset as --config smiling",
            ),
        ];
        if let Some((key, _, what)) = said.into_iter().find(|(_, text, _)| text.trim().is_empty()) {
            return wrong(key, format!("expected {what}"));
        }
        if self.goal.from == self.goal.to {
            return wrong(
                "goal.to",
                format!(
                    "both texts are {:?}, and there is no direction between them",
                    self.goal.to
                ),
            );
        }
        let network = self.goal.network.as_str();
        if !Self::NETWORKS.contains(&network) {
            return wrong(
                "goal.network",
                format!(
                    "expected one of {}, found {network:?}",
                    Self::NETWORKS.join(", ")
                ),
            );
        }
        for (key, value) in [
            ("goal.clip", self.goal.clip),
            ("goal.l1", self.goal.l1),
            ("goal.identity", self.goal.identity),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(key, format!("expected a number, 0 or more, found {value}"));
            }
        }
        if self.goal.clip == 0.0 {
            return wrong(
                "goal.clip",
                "with weight 0 there is nothing to train".into(),
            );
        }
        let texts = [("goal.from", &self.goal.from), ("goal.to", &self.goal.to)];
        if network == "digits" {
            for (key, text) in texts {
                if !text.parse::<u8>().is_ok_and(|class| class < 10) {
                    return wrong(
                        key,
                        format!("the digits' classifier knows 0 to 9, found {text:?}"),
                    );
                }
            }
        }
        if network == "emoji" {
            for (key, text) in texts {
                if let Err(error) = text.parse::<EmojiValues>() {
                    return wrong(key, error.to_string());
                }
            }
        }
        if self.goal.identity > 0.0 && ["digits", "emoji"].contains(&network) {
            return wrong("goal.identity", format!("{network} have no identity"));
        }
        check_classes("data.classes", self.data.classes.as_deref())?;
        let walk = &self.walk;
        check_counts(&[
            ("output.samples", self.output.samples as u64, 0, 64),
            ("loop.epochs", self.pace.epochs, 1, MAX_RUN_STEPS),
            ("walk.t_0", walk.t_0 as u64, 1, MAX_STEPS as u64 - 1),
        ])?;
        let (pace, output) = self.loop_of(1);
        check_pace(&pace, &output)?;
        check_optim(&self.optim)?;
        for (key, n) in [
            ("walk.inversion", walk.inversion),
            ("walk.steps", walk.steps),
            ("output.sampler", self.output.sampler),
        ] {
            if !(2..=walk.t_0 + 1).contains(&n) {
                return wrong(
                    key,
                    format!(
                        "expected 2 to {}, as many steps as there are up to t_0, found {n}",
                        walk.t_0 + 1
                    ),
                );
            }
        }
        if walk.t_edit > walk.t_0 || training_sequence(walk.steps, walk.t_0, walk.t_edit).is_empty()
        {
            return wrong(
                "walk.t_edit",
                format!(
                    "expected a step from 0 to t_0 = {}, found {}",
                    walk.t_0, walk.t_edit
                ),
            );
        }
        if walk.t_boost > walk.t_0 {
            return wrong(
                "walk.t_boost",
                format!(
                    "expected a step from 0 to t_0 = {}, found {}",
                    walk.t_0, walk.t_boost
                ),
            );
        }
        Ok(())
    }
}

impl RunPlan for DirectionPlan {
    const VERB: &'static str = "edit train";

    fn validate(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        self.validate_settings()?;
        self.model.check().map_err(|e| PlanError {
            key: format!("model.{}", e.field),
            problem: e.problem,
        })?;
        check_process(&self.process)?;
        if self.walk.t_0 >= self.process.diffusion_steps {
            return wrong(
                "walk.t_0",
                format!(
                    "the model's process has the steps 0 to {}, found {}",
                    self.process.diffusion_steps - 1,
                    self.walk.t_0
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{GoalPlan, tests::plan};

    #[test]
    fn impossible_plans_name_the_key() {
        type Change = fn(&mut DirectionPlan);
        let broken: [(&str, Change); 22] = [
            ("source", |p| p.source.clear()),
            ("data.path", |p| p.data.path.clear()),
            ("goal.from", |p| p.goal.from = " ".into()),
            ("goal.to", |p| p.goal.to = "face".into()),
            ("goal.network", |p| p.goal.network = "clip-l14".into()),
            ("goal.from", |p| p.goal.network = "digits".into()),
            ("goal.from", |p| p.goal.network = "emoji".into()),
            ("goal.to", |p| {
                p.goal = GoalPlan {
                    network: "emoji".into(),
                    from: "gender=man".into(),
                    to: "gender=wizard".into(),
                    ..GoalPlan::default()
                };
            }),
            ("goal.clip", |p| p.goal.clip = 0.0),
            ("goal.l1", |p| p.goal.l1 = f64::NAN),
            ("data.classes", |p| p.data.classes = Some(vec![10])),
            ("loop.epochs", |p| p.pace.epochs = 0),
            ("loop.batch", |p| p.pace.batch = 0),
            ("walk.steps", |p| p.walk.steps = 1),
            ("walk.t_edit", |p| p.walk.t_edit = 1000),
            ("walk.t_boost", |p| p.walk.t_boost = 1000),
            ("walk.inversion", |p| p.walk.inversion = 1001),
            ("output.sampler", |p| p.output.sampler = 1),
            ("output.sampler", |p| {
                (p.walk.t_0, p.walk.t_edit, p.walk.t_boost) = (30, 10, 0);
                (p.walk.inversion, p.walk.steps) = (20, 20);
            }),
            ("walk.t_0", |p| p.walk.t_0 = 1000),
            ("walk.t_0", |p| p.walk.t_0 = usize::MAX),
            ("optim.lr_every", |p| p.optim.lr_every = 0),
        ];
        for (key, change) in broken {
            let mut plan = plan();
            change(&mut plan);
            assert_eq!(plan.validate().unwrap_err().key, key);
        }
    }
}
