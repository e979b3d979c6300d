//! The checks of a plan: those of a direction, and those that every method shares.

use crate::plan::{DirectionData, DirectionPlan, EditMethod, GoalPlan};
use sdft_asyrp::training_sequence;
use sdft_diffusion::Process;
use sdft_eval::EmojiValues;
use sdft_models::Architecture;
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
        check_method(self.method, EditMethod::Asyrp)?;
        check_inputs(&self.name, &self.source, &self.data)?;
        check_goal(&self.goal)?;
        let walk = &self.walk;
        check_counts(&[
            (
                "output.samples",
                self.output.samples as u64,
                0,
                MOST_SAMPLES,
            ),
            ("loop.epochs", self.pace.epochs, 1, MAX_RUN_STEPS),
            ("walk.t_0", walk.t_0 as u64, 1, MAX_STEPS as u64 - 1),
        ])?;
        let (pace, output) = self.loop_of(1);
        check_pace(&pace, &output)?;
        check_optim(&self.optim)?;
        check_walk(
            walk.t_0,
            &[
                ("walk.inversion", walk.inversion),
                ("walk.steps", walk.steps),
                ("output.sampler", self.output.sampler),
            ],
        )?;
        let steps = [("walk.t_edit", walk.t_edit), ("walk.t_boost", walk.t_boost)];
        for (key, step) in steps {
            let trains = !training_sequence(walk.steps, walk.t_0, walk.t_edit).is_empty();
            if step > walk.t_0 || (key == "walk.t_edit" && !trains) {
                return Err(wrong(
                    key,
                    format!("expected a step from 0 to t_0 = {}, found {step}", walk.t_0),
                ));
            }
        }
        Ok(())
    }
}

/// The most images in the picture at the end.
pub(crate) const MOST_SAMPLES: u64 = 64;

pub(crate) fn wrong(key: &str, problem: String) -> PlanError {
    PlanError {
        key: key.to_owned(),
        problem,
    }
}

/// Fails unless a plan has the method of its type.
pub(crate) fn check_method(found: EditMethod, expected: EditMethod) -> Result<(), PlanError> {
    match found == expected {
        true => Ok(()),
        false => Err(wrong(
            "method",
            format!("expected {:?}, found {:?}", expected.name(), found.name()),
        )),
    }
}

/// Fails unless a model and images are given.
pub(crate) fn check_inputs(
    name: &str,
    source: &str,
    data: &DirectionData,
) -> Result<(), PlanError> {
    check_name(name)?;
    let given = [
        ("source", source, "a model to edit with; give --model FILE"),
        (
            "data.path",
            &data.path,
            "an image folder, \"digits\" or \"emoji\"; give --data",
        ),
    ];
    for (key, text, expected) in given {
        if text.trim().is_empty() {
            return Err(wrong(key, format!("expected {expected}")));
        }
    }
    check_classes("data.classes", data.classes.as_deref())
}

/// Fails unless a goal has two different texts that its network knows, and weights that train something.
pub(crate) fn check_goal(goal: &GoalPlan) -> Result<(), PlanError> {
    let texts = [
        (
            "goal.from",
            &goal.from,
            "what the images show; give --from \"face\", or a preset as --config smiling",
        ),
        (
            "goal.to",
            &goal.to,
            "what they are to show; give --to \"smiling face\", or a preset as --config smiling",
        ),
    ];
    for (key, text, expected) in texts {
        if text.trim().is_empty() {
            return Err(wrong(key, format!("expected {expected}")));
        }
    }
    if goal.from == goal.to {
        return Err(wrong(
            "goal.to",
            format!(
                "both texts are {:?}, and there is no direction between them",
                goal.to
            ),
        ));
    }
    let network = goal.network.as_str();
    if !DirectionPlan::NETWORKS.contains(&network) {
        return Err(wrong(
            "goal.network",
            format!(
                "expected one of {}, found {network:?}",
                DirectionPlan::NETWORKS.join(", ")
            ),
        ));
    }
    for (key, value) in [
        ("goal.clip", goal.clip),
        ("goal.l1", goal.l1),
        ("goal.identity", goal.identity),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(wrong(
                key,
                format!("expected a number, 0 or more, found {value}"),
            ));
        }
    }
    if goal.clip == 0.0 {
        return Err(wrong(
            "goal.clip",
            "with weight 0 there is nothing to train".into(),
        ));
    }
    for (key, text, _) in texts {
        if network == "digits" && !text.parse::<u8>().is_ok_and(|class| class < 10) {
            return Err(wrong(
                key,
                format!("the digits' classifier knows 0 to 9, found {text:?}"),
            ));
        }
        if network == "emoji"
            && let Err(error) = text.parse::<EmojiValues>()
        {
            return Err(wrong(key, error.to_string()));
        }
    }
    if goal.identity > 0.0 && ["digits", "emoji"].contains(&network) {
        return Err(wrong(
            "goal.identity",
            format!("{network} have no identity"),
        ));
    }
    Ok(())
}

/// Fails unless a trajectory to `t_0` can have these numbers of steps.
pub(crate) fn check_walk(t_0: usize, numbers: &[(&str, usize)]) -> Result<(), PlanError> {
    for &(key, n) in numbers {
        if !(2..=t_0 + 1).contains(&n) {
            return Err(wrong(
                key,
                format!(
                    "expected 2 to {}, as many steps as there are up to t_0, found {n}",
                    t_0 + 1
                ),
            ));
        }
    }
    Ok(())
}

/// Fails unless the process of a model has the step `t_0`.
pub(crate) fn check_model(
    model: &Architecture,
    process: &Process,
    t_0: usize,
) -> Result<(), PlanError> {
    model
        .check()
        .map_err(|e| wrong(&format!("model.{}", e.field), e.problem))?;
    check_process(process)?;
    if t_0 >= process.diffusion_steps {
        return Err(wrong(
            "walk.t_0",
            format!(
                "the model's process has the steps 0 to {}, found {t_0}",
                process.diffusion_steps - 1
            ),
        ));
    }
    Ok(())
}

impl RunPlan for DirectionPlan {
    const VERB: &'static str = "edit train";

    fn validate(&self) -> Result<(), PlanError> {
        self.validate_settings()?;
        check_model(&self.model, &self.process, self.walk.t_0)
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
