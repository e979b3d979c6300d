//! Everything that decides an autoencoder's training, as it is in `plan.toml`.

use sdft_autoencoder::{AutoencoderConfig, AutoencoderKlConfig, DownBlock, SampleSize, UpBlock};
use sdft_data::{Digits, Emoji};
use sdft_train::{
    DataPlan, LoopPlan, MAX_RUN_STEPS, OptimPlan, OutputPlan, PlanError, RunPlan, Size,
    check_counts, check_name, check_optim, check_pace,
};
use serde::{Deserialize, Serialize};

/// The architecture: an `AutoencoderKL` with diffusers' field names. Everything else has diffusers' defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderModel {
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Width of each level; each but the last halves the resolution.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub layers_per_block: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// The middles have attention.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderModel {
    /// Stable Diffusion's: 8x8 pixels to 4 channels.
    fn default() -> Self {
        Self {
            in_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            mid_block_add_attention: true,
        }
    }
}

/// The network whose features the perceptual term compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PerceptualNet {
    /// No perceptual term.
    None,
    /// LPIPS with VGG16, as in latent diffusion.
    #[default]
    LpipsVgg,
    /// LPIPS with AlexNet.
    LpipsAlex,
    /// The embedded judge of the digits or emoji, for these images only.
    Judge,
}

/// The loss: `mean |x - y| + perceptual_weight * p + kl_weight * KL / (values of an image)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderLoss {
    /// `lpips-vgg`, `lpips-alex`, `judge` or `none`.
    pub perceptual: PerceptualNet,
    /// Weight of the perceptual term.
    pub perceptual_weight: f64,
    /// The weights of LPIPS, in one or several files; those in the cache of downloads if empty.
    pub perceptual_files: Vec<String>,
    /// SHA-256 of these files, or of the judge; set when they are read, and compared when the run is continued.
    pub perceptual_sha256: String,
    /// Weight of the KL divergence, which is summed over an image's latents, to the absolute errors, summed over an image's values.
    pub kl_weight: f64,
}

impl Default for AutoencoderLoss {
    /// Latent diffusion's weights.
    fn default() -> Self {
        Self {
            perceptual: PerceptualNet::LpipsVgg,
            perceptual_weight: 1.0,
            perceptual_files: Vec::new(),
            perceptual_sha256: String::new(),
            kl_weight: 1e-6,
        }
    }
}

/// The measurements on held-out images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderEval {
    /// The share of images that is held out; with 0 the measurements are those of training images.
    pub held_out: f64,
    /// Steps between two measurements; 0 measures only at the end.
    pub every: u64,
}

impl Default for AutoencoderEval {
    fn default() -> Self {
        Self {
            held_out: 0.05,
            every: 1000,
        }
    }
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderOutput {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Steps between two pictures of reconstructions; 0 makes only the last.
    pub sample_every: u64,
    /// Images in a picture.
    pub samples: usize,
    /// Steps between two checkpoints; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
}

impl Default for AutoencoderOutput {
    fn default() -> Self {
        Self {
            log_every: 10,
            sample_every: 1000,
            samples: 16,
            checkpoint_every: 1000,
            keep: 2,
        }
    }
}

/// A run that trains an autoencoder, as it is in `plan.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderPlan {
    /// The name of the run and of its folder.
    pub name: String,
    /// The seed of every random number of the run.
    pub seed: u64,
    /// The architecture.
    pub model: AutoencoderModel,
    /// The images.
    pub data: DataPlan,
    /// The loss.
    pub loss: AutoencoderLoss,
    /// The optimiser.
    pub optim: OptimPlan,
    /// Length and batches.
    #[serde(rename = "loop")]
    pub steps: LoopPlan,
    /// The measurements.
    pub eval: AutoencoderEval,
    /// What is written.
    pub output: AutoencoderOutput,
}

impl Default for AutoencoderPlan {
    fn default() -> Self {
        Self {
            name: "autoencoder".into(),
            seed: 0,
            model: AutoencoderModel::default(),
            data: DataPlan::default(),
            loss: AutoencoderLoss::default(),
            optim: OptimPlan {
                lr: 5e-5,
                betas: (0.5, 0.9),
                ema: 0.999,
                ..OptimPlan::default()
            },
            steps: LoopPlan {
                steps: 100_000,
                batch: 12,
                ..LoopPlan::default()
            },
            eval: AutoencoderEval::default(),
            output: AutoencoderOutput::default(),
        }
    }
}

impl AutoencoderPlan {
    /// Height and width of the images: `data.size`, that of the embedded images, or 256x256.
    pub fn size(&self) -> Size {
        let side = match () {
            () if self.data.is_digits() => Digits::SIZE,
            () if self.data.is_emoji() => Emoji::SIZE,
            () => 256,
        };
        self.data.size.unwrap_or(Size::new(side, side))
    }

    /// The configuration of the network. Its scaling factor is 1 until the latents are measured.
    pub fn config(&self) -> AutoencoderConfig {
        let levels = self.model.block_out_channels.len();
        let [height, width] = self.size().sides();
        AutoencoderKlConfig {
            in_channels: self.model.in_channels,
            out_channels: self.model.in_channels,
            down_block_types: vec![DownBlock::Plain; levels],
            up_block_types: vec![UpBlock::Plain; levels],
            block_out_channels: self.model.block_out_channels.clone(),
            layers_per_block: self.model.layers_per_block,
            latent_channels: self.model.latent_channels,
            norm_num_groups: self.model.norm_num_groups,
            sample_size: match height == width {
                true => SampleSize::Side(height),
                false => SampleSize::Sides([height, width]),
            },
            scaling_factor: 1.0,
            force_upcast: false,
            mid_block_add_attention: self.model.mid_block_add_attention,
            ..AutoencoderKlConfig::default()
        }
        .into()
    }

    /// The intervals of the loop.
    pub(crate) fn pace(&self) -> OutputPlan {
        OutputPlan {
            log_every: self.output.log_every,
            sample_every: self.output.sample_every,
            samples: self.output.samples,
            checkpoint_every: self.output.checkpoint_every,
            keep: self.output.keep,
            ..OutputPlan::default()
        }
    }

    fn check_model(&self) -> Result<(), PlanError> {
        self.config().check().map_err(|e| PlanError {
            key: format!("model.{}", e.field),
            problem: format!("expected {}, found {}", e.expected, e.found),
        })?;
        let groups = self.model.norm_num_groups;
        if let Some(width) = self.model.block_out_channels.iter().find(|w| **w == groups) {
            return wrong(
                "model.norm_num_groups",
                format!(
                    "expected fewer groups than channels, found {groups} and a level of {width}: a norm of single channels removes the biases \
                     before it"
                ),
            );
        }
        let (size, factor) = (self.size(), self.config().factor());
        if size.sides().iter().any(|side| !side.is_multiple_of(factor)) {
            return wrong(
                "data.size",
                format!(
                    "expected sides that are multiples of {factor}, as block_out_channels has {} levels, found {size}",
                    self.model.block_out_channels.len()
                ),
            );
        }
        Ok(())
    }

    fn check_data(&self) -> Result<(), PlanError> {
        self.data.check()?;
        if self.data.masks.is_some() || self.data.augment != 0.0 {
            let key = match self.data.masks {
                Some(_) => "data.masks",
                None => "data.augment",
            };
            return wrong(key, "an autoencoder is trained without it; drop it".into());
        }
        if self.data.classes_from().is_some() {
            let problem = "an autoencoder is trained without classes; drop it";
            return wrong("data.classes", problem.into());
        }
        if self
            .data
            .channels
            .is_some_and(|n| n != self.model.in_channels)
        {
            return wrong(
                "data.channels",
                format!("expected model.in_channels, {}", self.model.in_channels),
            );
        }
        let size = self.size();
        if self.data.shift >= size.height.min(size.width) {
            return wrong(
                "data.shift",
                format!(
                    "expected less than the image size {size}, found {}",
                    self.data.shift
                ),
            );
        }
        Ok(())
    }

    fn check_loss(&self) -> Result<(), PlanError> {
        for (key, value) in [
            ("loss.perceptual_weight", self.loss.perceptual_weight),
            ("loss.kl_weight", self.loss.kl_weight),
        ] {
            if !(0.0..=1e6).contains(&value) {
                return wrong(key, format!("expected 0 to 1e6, found {value}"));
            }
        }
        if self.loss.perceptual == PerceptualNet::None {
            return Ok(());
        }
        let (size, channels) = (self.size(), self.model.in_channels);
        if channels != 3 {
            return wrong(
                "loss.perceptual",
                format!("expected none for images of {channels} channels; the networks take 3"),
            );
        }
        let smallest = match self.loss.perceptual {
            PerceptualNet::Judge => {
                let own = match () {
                    () if self.data.is_digits() => Digits::SIZE,
                    () if self.data.is_emoji() => Emoji::SIZE,
                    () => {
                        let problem = "judge is for the embedded digits and emoji; expected lpips-vgg, lpips-alex or none";
                        return wrong("loss.perceptual", problem.into());
                    }
                };
                if size != Size::new(own, own) {
                    return wrong(
                        "data.size",
                        format!("expected {own} for loss.perceptual = \"judge\", found {size}"),
                    );
                }
                own
            }
            PerceptualNet::LpipsAlex => 31,
            _ => 16,
        };
        match size.height.min(size.width) < smallest {
            true => wrong(
                "loss.perceptual",
                format!("expected images of at least {smallest}x{smallest} pixels, found {size}"),
            ),
            false => Ok(()),
        }
    }
}

fn wrong(key: &str, problem: String) -> Result<(), PlanError> {
    Err(PlanError {
        key: key.to_owned(),
        problem,
    })
}

impl RunPlan for AutoencoderPlan {
    const VERB: &'static str = "train-autoencoder";

    fn validate(&self) -> Result<(), PlanError> {
        check_name(&self.name)?;
        self.check_data()?;
        self.check_model()?;
        self.check_loss()?;
        if !(0.0..=0.5).contains(&self.eval.held_out) {
            let found = self.eval.held_out;
            return wrong("eval.held_out", format!("expected 0 to 0.5, found {found}"));
        }
        check_pace(&self.steps, &self.pace())?;
        check_counts(&[("eval.every", self.eval.every, 0, MAX_RUN_STEPS)])?;
        check_optim(&self.optim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> AutoencoderPlan {
        let mut plan = AutoencoderPlan::default();
        plan.data.path = "photos".into();
        plan
    }

    #[test]
    fn a_plan_survives_its_text_and_describes_stable_diffusions_network() {
        let plan = plan();
        plan.validate().unwrap();
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<AutoencoderPlan>(&text).unwrap(), plan);
        let config = plan.config();
        assert_eq!((config.factor(), config.latent_channels()), (8, 4));
        assert_eq!(config.cost([256; 2]).parameters, 83_653_863);
    }

    #[test]
    fn impossible_plans_name_the_key() {
        type Change = fn(&mut AutoencoderPlan);
        let broken: [(&str, Change); 13] = [
            ("data.path", |p| p.data.path.clear()),
            ("data.masks", |p| p.data.masks = Some("m".into())),
            ("data.augment", |p| p.data.augment = 0.1),
            ("data.size", |p| p.data.size = Some(Size::new(30, 32))),
            ("model.block_out_channels", |p| {
                p.model.block_out_channels.clear();
            }),
            ("model.norm_num_groups", |p| p.model.norm_num_groups = 128),
            ("loss.kl_weight", |p| p.loss.kl_weight = f64::NAN),
            ("loss.perceptual", |p| {
                p.loss.perceptual = PerceptualNet::Judge;
            }),
            ("loss.perceptual", |p| p.model.in_channels = 1),
            ("eval.held_out", |p| p.eval.held_out = 0.9),
            ("loop.batch", |p| p.steps.batch = 0),
            ("optim.lr", |p| p.optim.lr = f64::NAN),
            ("name", |p| p.name = "../x".into()),
        ];
        for (key, change) in broken {
            let mut plan = plan();
            change(&mut plan);
            assert_eq!(plan.validate().unwrap_err().key, key);
        }
    }
}
