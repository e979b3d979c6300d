//! Training the autoencoder of latent diffusion models.

use super::options::{RunOptions, make_absolute, moved, note_changed_rate};
use super::presets::{AUTOENCODERS, plan as plan_of};
use super::run::{Run, Training};
use crate::context::Context;
use crate::data::{Form, fingerprint, open_data, same_images};
use crate::error::{Result, failed, usage};
use crate::estimate::{Estimate, autoencoder_disk, estimate_autoencoder, memory_of_autoencoder};
use crate::judge::training_judge;
use crate::weights::Weights;
use candle_core::{DType, Device};
use sdft_data::ImageSource;
use sdft_eval::hash_of;
use sdft_features::{Lpips, LpipsNet, Network};
use sdft_files::plural;
use sdft_first_stage::{
    AutoencoderPlan, AutoencoderSetup, Perceptual, PerceptualNet, train_autoencoder,
};
use sdft_settings::{layers, put};
use sdft_train::{Ending, RunFolder, RunPlan, Size};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Table;

/// A run that trains an autoencoder.
pub type AutoencoderJob = Run<AutoencoderTraining>;

/// The opened images of an [`AutoencoderJob`].
pub struct AutoencoderTraining {
    images: Arc<dyn ImageSource>,
    perceptual: Perceptual,
}

/// The preset if neither presets nor images are named.
const EXAMPLE: &str = "autoencoder-digits";

/// The keys that can change when a run is resumed.
const ALLOWED: [&str; 4] = [
    "loop.steps",
    "loop.recompute",
    "loop.precision",
    // Where the same files are now.
    "loss.perceptual_files",
];

/// Options of a run that trains an autoencoder; the defaults train that of the embedded digits.
#[derive(Clone, Debug, Default)]
pub struct AutoencoderTrainOptions {
    /// Options of every run.
    pub run: RunOptions,
    /// The images: a folder, or the name of embedded ones.
    pub data: Option<String>,
    /// Height and width of the images.
    pub size: Option<Size>,
}

impl AutoencoderTrainOptions {
    /// The table of settings: presets and files, then options, then assignments.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::Error::Settings) for an unknown preset or key, or an invalid value.
    pub fn settings(&self) -> Result<Table> {
        let configs = match self.run.config.is_empty() && self.data.is_none() {
            true => vec![EXAMPLE.to_owned()],
            false => self.run.config.clone(),
        };
        let mut table = layers::<AutoencoderPlan>(&AUTOENCODERS, &configs)?;
        if let Some(data) = &self.data {
            put(&mut table, "data.path", data.as_str());
        }
        if let Some(size) = self.size {
            put(&mut table, "data.size", size.to_string());
        }
        self.run.apply::<AutoencoderPlan>(&mut table)?;
        Ok(table)
    }
}

impl AutoencoderJob {
    /// A new run with these options.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that do not fit together
    /// - images or weights that cannot be read
    pub fn new(options: &AutoencoderTrainOptions, context: &mut Context<'_>) -> Result<Self> {
        let mut plan: AutoencoderPlan = plan_of(options.settings()?, context)?;
        make_absolute(&mut plan.data.path);
        plan.steps.precision = context.precision_or(plan.steps.precision);
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let images = open_images(&plan, context)?;
        plan.data.fingerprint = fingerprint(&*images)?;
        plan.data.resolve(&*images, plan.size().sides());
        let perceptual = open_perceptual(&mut plan, &context.device)?;
        let run = Self::new_run(plan, AutoencoderTraining { images, perceptual });
        Ok(run.in_folder_of(&options.run.out, options.run.name.is_some()))
    }

    /// The run in a folder, to be continued from its newest checkpoint. Of the options, `steps` and `set` change the plan; `data` is the new
    /// path of moved images.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that cannot change
    /// - a folder without a run, or one that another process uses
    /// - images or weights that are missing, or images that have changed
    pub fn resume(
        folder: &Path,
        options: &AutoencoderTrainOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let (folder, stored) = RunFolder::open::<AutoencoderPlan>(folder)?;
        let steps = stored.steps.steps;
        let mut plan = options.run.change(stored, &ALLOWED, context)?;
        moved(&mut plan.data.path, options.data.as_deref());
        plan.steps.precision = context.precision_or(plan.steps.precision);
        if plan.steps.steps != steps {
            note_changed_rate(plan.optim.schedule, context);
        }
        let (path, expected) = (plan.data.path.clone(), plan.data.fingerprint.clone());
        let images = same_images(&path, &expected, "--data", || open_images(&plan, context))?;
        let perceptual = open_perceptual(&mut plan, &context.device)?;
        let inputs = AutoencoderTraining { images, perceptual };
        Ok(Self::resumed(plan, inputs, folder))
    }
}

impl Training for AutoencoderTraining {
    type Plan = AutoencoderPlan;

    fn name(plan: &mut AutoencoderPlan) -> &mut String {
        &mut plan.name
    }

    fn check(&self, plan: &AutoencoderPlan, context: &mut Context<'_>) -> Result<()> {
        memory_of_autoencoder(plan).check(&context.device)
    }

    fn estimate(&self, plan: &AutoencoderPlan, context: &mut Context<'_>) -> Result<Estimate> {
        estimate_autoencoder(plan, self.images.len(), &context.device)
    }

    fn disk(&self, plan: &AutoencoderPlan) -> Result<(u64, u64)> {
        let all = autoencoder_disk(plan);
        Ok((all, all))
    }

    fn train(
        self,
        plan: AutoencoderPlan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending> {
        let config = plan.config();
        context.progress.note(&format!(
            "{}: {} of {}, {factor}x{factor} pixels to {}, {} of {}; writes {}",
            plan.name,
            plural(self.images.len(), "image", "images"),
            self.images.spec(),
            plural(
                config.latent_channels(),
                "latent channel",
                "latent channels"
            ),
            plural(plan.steps.steps, "step", "steps"),
            plan.steps.batch,
            folder.root().display(),
            factor = config.factor(),
        ));
        let setup = AutoencoderSetup {
            plan,
            folder,
            source: self.images,
            perceptual: self.perceptual,
            device: context.device.clone(),
        };
        Ok(train_autoencoder(setup, context.stop, context.progress)?)
    }
}

fn open_images(plan: &AutoencoderPlan, context: &mut Context<'_>) -> Result<Arc<dyn ImageSource>> {
    let form = Form {
        size: plan.size().sides(),
        channels: Some(plan.model.in_channels),
        ..Form::default()
    };
    open_data(&plan.data, &form, context)
}

/// The network of the perceptual term, on the device. Its files and their hash go into the plan.
///
/// # Errors
/// Files that are missing, cannot be read, or differ from those that the run began with.
fn open_perceptual(plan: &mut AutoencoderPlan, device: &Device) -> Result<Perceptual> {
    let net = match plan.loss.perceptual {
        _ if plan.loss.perceptual_weight == 0.0 => return Ok(Perceptual::None),
        PerceptualNet::None => return Ok(Perceptual::None),
        PerceptualNet::Judge => {
            let (judge, found) = training_judge(plan.data.is_emoji(), device)?;
            let known = &mut plan.loss.perceptual_sha256;
            if !known.is_empty() && *known != found {
                return Err(failed(
                    "loss.perceptual = \"judge\": this version has another judge than the one that the run began with; train the autoencoder again",
                ));
            }
            *known = found;
            return Ok(Perceptual::Judge(Box::new(judge)));
        }
        PerceptualNet::LpipsVgg => LpipsNet::Vgg,
        PerceptualNet::LpipsAlex => LpipsNet::Alex,
    };
    let network = Network::Lpips(net);
    if plan.loss.perceptual_files.is_empty() {
        let otherwise = "train without it: --set loss.perceptual=none";
        let found = Weights::default().of(network, otherwise)?;
        let files = found.weights.iter().map(|path| path.display().to_string());
        plan.loss.perceptual_files = files.collect();
    }
    plan.loss
        .perceptual_files
        .iter_mut()
        .for_each(make_absolute);
    let files = plan.loss.perceptual_files.iter().map(PathBuf::from);
    let files: Vec<PathBuf> = files.collect();
    let (known, found) = (&mut plan.loss.perceptual_sha256, hash_of(&files)?);
    if !known.is_empty() && *known != found {
        return Err(failed(format!(
            "{}: other files than the run began with: their SHA-256 was {known}, now it is {found}; give those with --set \
             'loss.perceptual_files=[\"FILE\"]'",
            plan.loss.perceptual_files.join(", ")
        )));
    }
    *known = found;
    let params = network.read(&files).map_err(|e| failed(e.to_string()))?;
    let params = params.to(DType::F32, device)?;
    Ok(Perceptual::Lpips(Box::new(Lpips::load(net, &params)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_checkpoint::write_safetensors;
    use sdft_nn::Params;
    use std::collections::BTreeMap;

    fn open(plan: &mut AutoencoderPlan) -> Result<Perceptual> {
        open_perceptual(plan, &Device::Cpu)
    }

    #[test]
    fn a_run_refuses_other_weights_of_lpips_than_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::Lpips(LpipsNet::Alex);
        let write = |name: &str, seed: u64| {
            let path = dir.path().join(name);
            let params = Params::init(&network.specs().unwrap(), seed, &Device::Cpu).unwrap();
            write_safetensors(&path, params.iter(), &BTreeMap::new(), None).unwrap();
            path.display().to_string()
        };
        let mut plan = AutoencoderPlan::default();
        plan.loss.perceptual = PerceptualNet::LpipsAlex;
        plan.loss.perceptual_files = vec![write("a.safetensors", 1)];
        assert!(matches!(open(&mut plan), Ok(Perceptual::Lpips(_))));
        assert_eq!(plan.loss.perceptual_sha256.len(), 64);
        // The same file elsewhere.
        plan.loss.perceptual_files = vec![write("b.safetensors", 1)];
        open(&mut plan).unwrap();
        write("b.safetensors", 2);
        let error = open(&mut plan).unwrap_err().to_string();
        for words in ["b.safetensors", "SHA-256", "loss.perceptual_files"] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn a_run_refuses_another_judge_than_it_began_with() {
        let mut plan = AutoencoderPlan::default();
        plan.data.path = "digits".into();
        plan.loss.perceptual = PerceptualNet::Judge;
        assert!(matches!(open(&mut plan), Ok(Perceptual::Judge(_))));
        open(&mut plan).unwrap();
        plan.loss.perceptual_sha256 = "0".repeat(64);
        let error = open(&mut plan).unwrap_err().to_string();
        assert!(error.contains("another judge"), "{error}");
    }
}
