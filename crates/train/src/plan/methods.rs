//! Methods of fine-tuning other than SDFT, as further terms of the loss. They combine with each other, with SDFT and with adapters.

use super::check::{check_counts, check_ranges, error};
use super::{MAX_RUN_STEPS, Method, Plan, PlanError};
use sdft_adapters::AdapterKind;
use sdft_losses::Pairwise;
use serde::{Deserialize, Serialize};

/// DogFit: guidance by the source model, built into the target of the base loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DogfitPlan {
    /// The strength `w` of the guidance; 1 is none.
    pub weight: f64,
    /// The first step with guidance, so that the average has learned something by then.
    pub start: u64,
    /// Only timesteps below this share of the process are guided; above 1 all are.
    pub cutoff: f64,
}

impl Default for DogfitPlan {
    fn default() -> Self {
        Self {
            weight: 1.0,
            start: 0,
            cutoff: 0.75,
        }
    }
}

impl DogfitPlan {
    /// Whether there is guidance.
    pub fn is_on(&self) -> bool {
        self.weight != 1.0
    }
}

/// DDPM-PA: distances between images stay as in the source model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairwisePlan {
    /// The factor of the distances between predicted clean images.
    pub weight: f64,
    /// The factor of the distances between their high frequencies.
    pub hf_weight: f64,
    /// The factor of the squared error of high frequencies.
    pub hf_mse_weight: f64,
}

/// ANT: similarity-guided targets and adversarial noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AntPlan {
    /// The strength `c` of the gradient of the classifier; 0 is none.
    pub guidance: f64,
    /// The classifier of noised images of both domains, as EGSDE has it: a file.
    pub classifier: String,
    /// SHA-256 of the classifier, set when it is read.
    pub classifier_sha256: String,
    /// Rounds of the choice of adversarial noise; 0 is none.
    pub rounds: u64,
    /// The size `omega` of a round.
    pub omega: f64,
}

impl Default for AntPlan {
    fn default() -> Self {
        Self {
            guidance: 0.0,
            classifier: String::new(),
            classifier_sha256: String::new(),
            rounds: 0,
            omega: 0.02,
        }
    }
}

/// Diff-Tuning: samples of the source model are trained on as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepPlan {
    /// The factor of their loss; 0 leaves the term out.
    pub weight: f64,
    /// Their number in a step for each training image.
    pub share: f64,
    /// Timestep `t` of `T` is drawn in proportion to `(T - t)^power`: little noise is preferred.
    pub power: f64,
}

impl Default for KeepPlan {
    fn default() -> Self {
        Self {
            weight: 0.0,
            share: 0.25,
            power: 1.0,
        }
    }
}

/// L2-SP and elastic weight consolidation: weights stay near those of the source model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnchorPlan {
    /// The factor of the squared distance; 0 leaves it out.
    pub l2_sp: f64,
    /// The factor of the squared distance weighted by the Fisher information, whose mean is 1; 0 leaves it out.
    pub ewc: f64,
    /// The number of gradients of which the Fisher information is made.
    pub gradients: u64,
}

impl Default for AnchorPlan {
    fn default() -> Self {
        Self {
            l2_sp: 0.0,
            ewc: 0.0,
            gradients: 256,
        }
    }
}

impl AnchorPlan {
    /// Whether there is such a term.
    pub fn is_on(&self) -> bool {
        self.l2_sp > 0.0 || self.ewc > 0.0
    }
}

/// Samples of the source model, for [`KeepPlan`] and [`AnchorPlan::ewc`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BankPlan {
    /// A folder of images to take instead, such as those that the source model was trained on; if empty, they are sampled once and cached.
    pub path: String,
    /// The number of samples.
    pub images: usize,
    /// The steps of DDIM, as a respacing.
    pub sampler: String,
    /// The fingerprint of the images, set when they are read.
    pub fingerprint: String,
}

impl Default for BankPlan {
    fn default() -> Self {
        Self {
            path: String::new(),
            images: 256,
            sampler: "ddim40".into(),
            fingerprint: String::new(),
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl<M> Plan<M> {
    /// The sections of the methods that are switched on, and their names.
    fn switched_on(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let loss = &self.loss;
        let anchor = match (loss.anchor.l2_sp > 0.0, loss.anchor.ewc > 0.0) {
            (true, true) => "L2-SP and EWC",
            (true, false) => "L2-SP",
            _ => "EWC",
        };
        [
            ("loss.dogfit", "DogFit", loss.dogfit.is_on()),
            ("loss.pairwise", "DDPM-PA", self.pairwise().is_some()),
            (
                "loss.ant",
                "ANT",
                loss.ant.guidance > 0.0 || loss.ant.rounds > 0,
            ),
            ("loss.keep", "Diff-Tuning", loss.keep.weight > 0.0),
            ("loss.anchor", anchor, loss.anchor.is_on()),
        ]
        .into_iter()
        .filter(|(_, _, is_on)| *is_on)
        .map(|(key, name, _)| (key, name))
    }

    /// The names of the methods that a run uses in addition to [`Plan::method`].
    pub fn other_methods(&self) -> Vec<&'static str> {
        self.switched_on().map(|(_, name)| name).collect()
    }

    /// Whether samples of the source model are needed.
    pub fn needs_bank(&self) -> bool {
        self.loss.keep.weight > 0.0 || self.loss.anchor.ewc > 0.0
    }

    /// DDPM-PA's terms, if there are any.
    pub(super) fn pairwise(&self) -> Option<Pairwise> {
        let PairwisePlan {
            weight,
            hf_weight,
            hf_mse_weight,
        } = self.loss.pairwise;
        let sum = weight + hf_weight + hf_mse_weight;
        (sum > 0.0).then_some(Pairwise {
            weight,
            hf_weight,
            hf_mse_weight,
        })
    }

    /// Fails, naming the key, unless the settings of these methods make sense.
    pub(super) fn check_methods(&self) -> Result<(), PlanError> {
        let loss = &self.loss;
        check_ranges(&[
            ("loss.dogfit.weight", loss.dogfit.weight, 0.0, 1e3),
            ("loss.dogfit.cutoff", loss.dogfit.cutoff, 0.0, 2.0),
            ("loss.pairwise.weight", loss.pairwise.weight, 0.0, f64::MAX),
            (
                "loss.pairwise.hf_weight",
                loss.pairwise.hf_weight,
                0.0,
                f64::MAX,
            ),
            (
                "loss.pairwise.hf_mse_weight",
                loss.pairwise.hf_mse_weight,
                0.0,
                f64::MAX,
            ),
            ("loss.ant.guidance", loss.ant.guidance, 0.0, 1e6),
            ("loss.ant.omega", loss.ant.omega, 0.0, 1e3),
            ("loss.keep.weight", loss.keep.weight, 0.0, f64::MAX),
            ("loss.keep.share", loss.keep.share, 0.0, 16.0),
            ("loss.keep.power", loss.keep.power, 0.0, 1e3),
            ("loss.anchor.l2_sp", loss.anchor.l2_sp, 0.0, f64::MAX),
            ("loss.anchor.ewc", loss.anchor.ewc, 0.0, f64::MAX),
        ])?;
        check_counts(&[
            ("loss.dogfit.start", loss.dogfit.start, 0, MAX_RUN_STEPS),
            ("loss.ant.rounds", loss.ant.rounds, 0, 1000),
            ("loss.anchor.gradients", loss.anchor.gradients, 1, 1 << 20),
            ("loss.bank.images", loss.bank.images as u64, 1, 1 << 20),
        ])?;
        if let (Method::Scratch, Some((key, _))) = (self.method, self.switched_on().next()) {
            return Err(error(
                key,
                "method scratch has no source model; drop it, or fine-tune a source model".into(),
            ));
        }
        if loss.ant.guidance > 0.0 && loss.ant.classifier.is_empty() {
            return Err(error(
                "loss.ant.classifier",
                "the similarity guidance of ANT needs a classifier of both domains; expected a file, as train-classifier writes it".into(),
            ));
        }
        let compares = loss.pairwise.weight > 0.0 || loss.pairwise.hf_weight > 0.0;
        let alone = [
            self.steps.batch,
            self.micro_batch(),
            self.steps.batch % self.micro_batch().max(1),
        ];
        if compares && alone.contains(&1) {
            return Err(error(
                "loss.pairwise",
                format!(
                    "the method compares images that go through the network together; expected at least 2 in every part of a batch, found {} in parts of {}",
                    self.steps.batch,
                    self.micro_batch()
                ),
            ));
        }
        if loss.keep.weight > 0.0 && self.data.classes.is_some() && loss.label_dropout == 0.0 {
            return Err(error(
                "loss.keep",
                "kept samples have the null class; expected loss.label_dropout above 0 in a run with classes".into(),
            ));
        }
        let kind = self.adapter.kind;
        if loss.anchor.is_on() && !matches!(kind, AdapterKind::Full | AdapterKind::Names) {
            return Err(error(
                "loss.anchor",
                format!(
                    "expected adapter.kind \"full\" or \"names\", because the distance of weights is that of the network's own, found {:?}",
                    kind.name()
                ),
            ));
        }
        if self.needs_bank() {
            let checked = match loss.bank.sampler.parse() {
                Err(problem) => Some(problem),
                Ok(respacing) => self.process.diffusion(false, &respacing).err(),
            };
            if let Some(problem) = checked {
                return Err(error("loss.bank.sampler", problem.to_string()));
            }
        }
        Ok(())
    }
}
