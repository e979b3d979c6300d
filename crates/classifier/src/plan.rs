//! Everything that decides a classifier's training, as it is in `plan.toml`.

use sdft_adm::{AdmConfig, EncoderConfig, Pool};
use sdft_autoencoder::{AutoencoderConfig, AutoencoderFile};
use sdft_diffusion::Process;
use sdft_imaging::Depth;
use sdft_train::{
    LoopPlan, LrSchedule, MAX_RUN_STEPS, OnlyPlan, OptimPlan, OutputPlan, PlanError, RunPlan, Size,
    check_classes, check_counts, check_name, check_optim, check_pace, check_process,
};
use serde::{Deserialize, Serialize};

/// The images of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainPlan {
    /// An image folder, or `digits` or `emoji` for embedded images.
    pub path: String,
    /// Hash of the images' names and of some of their pixels, set when they are read.
    pub fingerprint: String,
    /// Of the digits `chalk` or `ember`, of the emoji `noto` or `fluent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Digits only: the classes to take; all if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<u8>>,
    /// Digits only: at most this many of each class, the first ones; 0 means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// Emoji only: which of them are taken, by what they show; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<OnlyPlan>,
}

/// The images of both domains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierData {
    /// What a translation starts from; label 0.
    pub source: DomainPlan,
    /// What it leads to; label 1.
    pub target: DomainPlan,
    /// Whether images are flipped horizontally half of the time.
    pub flip: bool,
    /// Images are shifted by up to this many pixels in both directions.
    pub shift: usize,
    /// Unreadable images stop the run instead of being skipped.
    pub strict: bool,
    /// The share of each domain that is held out for the accuracies; 0 measures none.
    pub held_out: f64,
    /// Height and width, as `256` or `"192x256"`; `model.image_size` if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Type of the samples: `8`, `16` or `float`; 8 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// The values that become -1 and 1; the full range of the type if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
}

impl Default for ClassifierData {
    fn default() -> Self {
        let domain = |style: &str| DomainPlan {
            style: Some(style.to_owned()),
            classes: Some(Vec::new()),
            per_class: Some(0),
            ..DomainPlan::default()
        };
        Self {
            source: domain("chalk"),
            target: domain("ember"),
            flip: true,
            shift: 0,
            strict: false,
            held_out: 0.1,
            size: None,
            depth: None,
            range: None,
        }
    }
}

/// The architecture: ADM's encoder and a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassifierModel {
    /// The head.
    pub pool: Pool,
    /// The encoder; `out_channels` is the number of domains.
    #[serde(flatten)]
    pub net: AdmConfig,
}

impl Default for ClassifierModel {
    /// guidance's classifier for 256x256, with two classes.
    fn default() -> Self {
        Self {
            pool: Pool::Attention,
            net: AdmConfig {
                out_channels: 2,
                model_channels: 128,
                num_res_blocks: 2,
                attention_resolutions: vec![8, 16, 32],
                num_head_channels: 64,
                ..AdmConfig::default()
            },
        }
    }
}

impl ClassifierModel {
    /// Takes the levels that guidance's models have at this image size, see [`AdmConfig::channel_mult_for`], with attention at 32x32 and
    /// below.
    pub fn fit_to(&mut self, size: usize) {
        self.net.image_size = size;
        self.net.channel_mult = AdmConfig::channel_mult_for(size);
        self.net.attention_resolutions = (0..self.net.levels())
            .map(|level| 1 << level)
            .filter(|factor| size / factor <= 32)
            .collect();
    }

    /// The network's own configuration.
    pub fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            net: self.net.clone(),
            pool: self.pool,
        }
    }
}

impl From<EncoderConfig> for ClassifierModel {
    fn from(EncoderConfig { net, pool }: EncoderConfig) -> Self {
        Self { pool, net }
    }
}

/// A run that trains a classifier, as it is in `plan.toml`. The defaults are EGSDE's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierPlan {
    /// The name of the run and of its folder.
    pub name: String,
    /// The seed of every random number of the run.
    pub seed: u64,
    /// A classifier whose trunk is the start, such as guidance's `256x256_classifier.pt`; empty starts from random weights.
    pub init: String,
    /// SHA-256 of that file, set when it is read.
    pub init_sha256: String,
    /// The autoencoder whose latents are classified; absent for a classifier of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<AutoencoderFile>,
    /// The architecture.
    pub model: ClassifierModel,
    /// The diffusion process whose noised images are classified.
    pub process: Process,
    /// The images.
    pub data: ClassifierData,
    /// The optimiser.
    pub optim: OptimPlan,
    /// Length and batches.
    #[serde(rename = "loop")]
    pub steps: LoopPlan,
    /// What is written.
    pub output: ClassifierOutput,
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierOutput {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Steps between two measurements on the held-out images; 0 measures only at the end.
    pub eval_every: u64,
    /// Steps between two checkpoints; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
}

impl Default for ClassifierOutput {
    fn default() -> Self {
        Self {
            log_every: 10,
            eval_every: 500,
            checkpoint_every: 500,
            keep: 2,
        }
    }
}

impl Default for ClassifierPlan {
    fn default() -> Self {
        Self {
            name: "classifier".into(),
            seed: 0,
            init: String::new(),
            init_sha256: String::new(),
            autoencoder: None,
            model: ClassifierModel::default(),
            process: Process::default(),
            data: ClassifierData::default(),
            optim: OptimPlan {
                lr: 3e-4,
                weight_decay: 0.05,
                schedule: LrSchedule::Linear,
                ema: 0.0,
                ..OptimPlan::default()
            },
            steps: LoopPlan {
                steps: 5000,
                batch: 32,
                ..LoopPlan::default()
            },
            output: ClassifierOutput::default(),
        }
    }
}

impl ClassifierPlan {
    /// Height and width of the network's input: images or latents.
    pub fn size(&self) -> Size {
        let side = self.model.net.image_size;
        let of_images = |size: Size| {
            let factor = self.factor();
            Size::new(size.height / factor, size.width / factor)
        };
        self.data.size.map_or(Size::new(side, side), of_images)
    }

    /// Height and width of the images.
    pub fn image_size(&self) -> Size {
        let (size, factor) = (self.size(), self.factor());
        Size::new(size.height * factor, size.width * factor)
    }

    /// Channels of the images.
    pub fn image_channels(&self) -> usize {
        match self.autoencoder_config() {
            Some(config) => config.decoded_channels(),
            None => self.model.net.in_channels,
        }
    }

    fn autoencoder_config(&self) -> Option<&AutoencoderConfig> {
        self.autoencoder.as_ref()?.config.as_ref()
    }

    /// Pixels of a side for one value of the network's input.
    fn factor(&self) -> usize {
        self.autoencoder_config()
            .map_or(1, AutoencoderConfig::factor)
    }

    /// The intervals of the loop.
    pub(crate) fn pace(&self) -> OutputPlan {
        OutputPlan {
            log_every: self.output.log_every,
            checkpoint_every: self.output.checkpoint_every,
            keep: self.output.keep,
            sample_every: 0,
            ..OutputPlan::default()
        }
    }
}

impl RunPlan for ClassifierPlan {
    const VERB: &'static str = "train-classifier";

    fn validate(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        check_name(&self.name)?;
        for (key, domain) in [
            ("data.source", &self.data.source),
            ("data.target", &self.data.target),
        ] {
            if domain.path.is_empty() {
                let option = key.replace("data.", "--");
                return wrong(
                    &format!("{key}.path"),
                    format!("expected an image folder, \"digits\" or \"emoji\"; give {option}"),
                );
            }
            check_classes(&format!("{key}.classes"), domain.classes.as_deref())?;
        }
        if !(0.0..=0.5).contains(&self.data.held_out) {
            return wrong(
                "data.held_out",
                format!("expected 0 to 0.5, found {}", self.data.held_out),
            );
        }
        let net = &self.model.net;
        net.validate().map_err(|e| PlanError {
            key: format!("model.{}", e.field),
            problem: e.problem,
        })?;
        if net.out_channels != 2 || net.num_classes != 0 {
            return wrong(
                "model.out_channels",
                format!(
                    "a classifier of two domains takes images without labels, found out_channels {}, num_classes {}",
                    net.out_channels, net.num_classes
                ),
            );
        }
        if net.dropout != 0.0 {
            return wrong(
                "model.dropout",
                format!(
                    "a classifier has no dropout; expected 0, found {}",
                    net.dropout
                ),
            );
        }
        let of_latents = self.factor();
        if let Some(size) = self.data.size
            && size
                .sides()
                .iter()
                .any(|side| !side.is_multiple_of(of_latents))
        {
            return wrong(
                "data.size",
                format!(
                    "expected sides that are multiples of {of_latents}, the pixels for one latent of the autoencoder, found {size}"
                ),
            );
        }
        let size = self.size();
        let factor = net.factor();
        if size.sides().iter().any(|side| !side.is_multiple_of(factor)) {
            return wrong(
                "data.size",
                format!("expected sides that are multiples of {factor}, found {size}"),
            );
        }
        let square = Size::new(net.image_size, net.image_size);
        if self.model.pool == Pool::Attention && size != square {
            return wrong(
                "model.pool",
                format!(
                    "the attention pool takes images of {square}, found {size}; expected another pool"
                ),
            );
        }
        if self.autoencoder.is_some() && self.data.shift > 0 {
            return wrong(
                "data.shift",
                format!(
                    "the latents of an image are computed once; expected 0, found {}",
                    self.data.shift
                ),
            );
        }
        if self.data.shift >= size.height.min(size.width) {
            return wrong(
                "data.shift",
                format!(
                    "expected less than the image size {size}, found {}",
                    self.data.shift
                ),
            );
        }
        check_pace(&self.steps, &self.pace())?;
        check_counts(&[(
            "output.eval_every",
            self.output.eval_every,
            0,
            MAX_RUN_STEPS,
        )])?;
        check_optim(&self.optim)?;
        check_process(&self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_autoencoder::AutoencoderKlConfig;

    fn plan() -> ClassifierPlan {
        let mut plan = ClassifierPlan::default();
        plan.data.source.path = "photos".into();
        plan.data.target.path = "paintings".into();
        plan
    }

    #[test]
    fn the_published_recipe_is_the_default_and_survives_its_file() {
        let plan = plan();
        assert_eq!(plan.validate(), Ok(()));
        let mut fitted = plan.clone();
        fitted.model.fit_to(256);
        assert_eq!(fitted, plan);
        let specs = sdft_adm::Encoder::specs(&plan.model.encoder()).unwrap();
        let parameters: usize = specs
            .iter()
            .map(|s| s.shape.iter().product::<usize>())
            .sum();
        assert_eq!(parameters, 53_584_386);
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<ClassifierPlan>(&text).unwrap(), plan);
    }

    #[test]
    fn levels_follow_the_image_size() {
        for (size, levels, attention) in [
            (512, 7, vec![16, 32, 64]),
            (64, 4, vec![2, 4, 8]),
            (16, 3, vec![1, 2, 4]),
            (48, 4, vec![2, 4, 8]),
        ] {
            let mut model = ClassifierModel::default();
            model.fit_to(size);
            assert_eq!(
                (
                    model.net.channel_mult.len(),
                    &model.net.attention_resolutions
                ),
                (levels, &attention)
            );
            model.net.validate().unwrap();
        }
    }

    #[test]
    fn impossible_plans_name_the_key() {
        type Change = fn(&mut ClassifierPlan);
        let broken: [(&str, Change); 8] = [
            ("data.size", |p| {
                let config = AutoencoderKlConfig {
                    block_out_channels: vec![32; 3],
                    ..AutoencoderKlConfig::default()
                };
                p.autoencoder = Some(AutoencoderFile {
                    config: Some(config.into()),
                    ..AutoencoderFile::default()
                });
                p.model.net.image_size = 64;
                p.data.size = Some(Size::new(258, 258));
            }),
            ("data.source.path", |p| p.data.source.path.clear()),
            ("data.target.classes", |p| {
                p.data.target.classes = Some(vec![12])
            }),
            ("data.held_out", |p| p.data.held_out = 0.9),
            ("model.out_channels", |p| p.model.net.out_channels = 3),
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
