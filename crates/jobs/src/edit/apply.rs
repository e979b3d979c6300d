//! Images of a folder, edited along directions or by tuned models.

use super::latents::{Inversion, open_inversions};
use super::loaded::{Edited, Edits, LoadedEdits};
use super::plan::{
    ApplyPlan, ApplyWalk, EditEntry, EditOptions, default_strengths, factors, given_strengths,
    note_of_shares,
};
use crate::condition::{Conditioned, label_of};
use crate::context::Context;
use crate::data::list_inputs;
use crate::error::{Result, option, usage};
use crate::model::{ModelFile, check_seed, form_of, load_model, recorded_form};
use crate::shared::{ImagesOfImages, Team, announce, announced, check_same};
use candle_core::{Device, Tensor};
use sdft_asyrp::{Direction, EditPlan, InversionCache, Mix, edit, sequence, strength_at};
use sdft_autoencoder::Space;
use sdft_diffusion::Denoiser;
use sdft_diffusionclip::{Mixture, generate};
use sdft_directions::EditMethod;
use sdft_gallery::{Gallery, Input, Made, Maker, Outcome, full_path, usual_batch};
use sdft_imaging::{Image, ImageSpec};
use sdft_randn::NumberedNoise;
use sdft_samplers::Step;
use sdft_schedule::Schedule;

/// Edits the images of a file or folder into another folder, under the same names. Complete images of the same settings stay, so that a
/// stopped job continues.
///
/// # Errors
/// An option does not fit the model or the directions, the folder holds something else, or a network fails. Inputs that fail are in the
/// result.
pub fn edit_folder(options: &EditOptions, context: &mut Context<'_>) -> Result<Outcome> {
    let (editor, inputs) = prepare(options, context)?;
    context.note_precision(editor.plan.precision);
    announce(&editor.plan, context)?;
    let (stop, group) = (context.stop, context.group.clone());
    let gallery = Gallery {
        input: &options.input,
        inputs: &inputs,
        out: &options.out,
        plan: &editor.plan,
        maker: &Shared {
            maker: &editor,
            team: Team {
                group: &group,
                stop,
            },
        },
        batch: Some(batch(options, &editor) * group.size()),
        overwrite: options.overwrite,
    };
    let outcome = gallery.fill(stop, &mut |event| context.event(event))?;
    if let Some(problem) = editor.latents.problem() {
        context
            .progress
            .note(&format!("inversions are not kept: {problem}"));
    } else if let Some(folder) = editor.latents.folder() {
        context
            .progress
            .note(&format!("inversions are kept in {}", folder.display()));
    }
    Ok(outcome)
}

/// On the other ranks of [`Context::group`]: edits images for rank 0's [`edit_folder`] with the same options until it ends.
///
/// # Errors
/// A model or an edit that is not that of rank 0; rank 0 fails or disconnects.
pub fn serve_edits(options: &EditOptions, context: &mut Context<'_>) -> Result<()> {
    let announced = announced(context)?;
    let (editor, _) = prepare(options, context)?;
    check_same(&announced, &editor.plan, context)?;
    let team = Team {
        group: &context.group,
        stop: context.stop,
    };
    team.serve(&editor, batch(options, &editor))
}

/// Images of one process at once.
fn batch(options: &EditOptions, editor: &Editor) -> usize {
    options
        .batch
        .unwrap_or_else(|| usual_batch(editor.space.image()))
}

/// The plan with its networks, and on rank 0 the inputs.
fn prepare(options: &EditOptions, context: &mut Context<'_>) -> Result<(Editor, Vec<Input>)> {
    // Options are checked before files are read.
    let (strengths, factors) = (given_strengths(options)?, factors(options)?);
    check_seed(options.seed.unwrap_or(0))?;
    if options.batch == Some(0) {
        return Err(option("batch", "0: expected 1 or more"));
    }
    let name = ModelFile::find(&options.model)?.noted(context);
    let model = load_model(&name, &options.load)?;
    context.notes(&model.notes);
    let form = form_of(&name, &model, options.size)?;
    let class = options.class.as_deref();
    let class = class
        .map(|class| label_of("class", class, &model))
        .transpose()?;
    let process = &model.process;
    let network_sha256 = model.network_sha256()?;
    let precision = context.fine_precision();
    let runtime = context.runtime_in(precision);
    let net = runtime.network_in_steps(&model)?;
    let net = Conditioned::new(net, "class", class, None, &model)?;
    let edited = Edited {
        model: &model,
        network_sha256: &network_sha256,
        net: &net,
        runtime: &runtime,
        class,
        form,
    };
    let loaded = LoadedEdits::read(&options.edits, &edited, context)?;
    let method = loaded.method();
    let LoadedEdits {
        edits,
        stated,
        entries,
    } = loaded;
    let is_tuned = method == EditMethod::DiffusionClip;
    if is_tuned {
        refuse_options_of_asyrp(options)?;
        context.notes(strengths.as_deref().and_then(note_of_shares));
    }
    let strengths = strengths.unwrap_or_else(|| default_strengths(method, entries.len()));
    let mut walk = ApplyWalk::new(options, &stated)?;
    if is_tuned {
        // Those of the settings of another edit.
        walk = ApplyWalk {
            t_edit: 0,
            t_boost: 0,
            seed: 0,
            frames: false,
            ..walk
        };
    }
    if walk.t_boost == 0 {
        let given = [("seed", options.seed.is_some()), ("frames", options.frames)];
        if let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(option(
                name,
                "has no effect without added noise; give `t_boost` above 0, or omit it",
            ));
        }
    }
    if walk.t_0 >= process.diffusion_steps {
        return Err(usage(format!(
            "{name}: its process has {} steps, and the edit is to begin at step {}",
            process.diffusion_steps, walk.t_0
        )));
    }
    let plan = ApplyPlan {
        input: full_path(&options.input.display().to_string()),
        image_size: form.height.max(form.width),
        class,
        image: recorded_form(&model, &form),
        model: full_path(&name),
        network_sha256,
        autoencoder_sha256: model.autoencoder_sha256(),
        factors,
        walk,
        edits: entries
            .into_iter()
            .zip(strengths)
            .map(|(entry, strength)| EditEntry { strength, ..entry })
            .collect(),
        precision,
        process: process.clone(),
    };
    let mut inputs = match context.group.is_leader() {
        true => list_inputs(&options.input, form.ending(), context)?,
        false => Vec::new(),
    };
    if let Some(only) = &options.only {
        inputs.retain(|input| only.contains(&input.id));
    }
    let inversion = Inversion {
        network_sha256: &plan.network_sha256,
        autoencoder_sha256: plan.autoencoder_sha256.as_deref(),
        class,
        process,
        t_0: plan.walk.t_0,
        steps: plan.walk.inversion,
        precision,
    };
    let editor = Editor {
        schedule: process.published()?.schedule,
        latents: open_inversions(&options.cache, &inversion, context),
        edits,
        space: runtime.space(&model, form)?,
        device: runtime.device.clone(),
        net,
        plan,
    };
    Ok((editor, inputs))
}

/// Fails for options that have no effect on models tuned with DiffusionCLIP.
fn refuse_options_of_asyrp(options: &EditOptions) -> Result<()> {
    let step =
        "belongs to directions of Asyrp; a model tuned with DiffusionCLIP takes part at every step";
    let noise = "a model tuned with DiffusionCLIP adds no noise; omit it";
    let given = [
        ("t_edit", options.t_edit.is_some(), step),
        ("t_boost", options.t_boost.is_some(), step),
        ("seed", options.seed.is_some(), noise),
        ("frames", options.frames, noise),
    ];
    match given.into_iter().find(|(_, is_given, _)| *is_given) {
        None => Ok(()),
        Some((name, _, problem)) => Err(option(name, problem)),
    }
}

/// A plan, its network and its edits.
struct Editor {
    plan: ApplyPlan,
    /// The way between images and the states of the network.
    space: Space,
    net: Conditioned,
    schedule: Schedule,
    latents: InversionCache,
    edits: Edits,
    device: Device,
}

impl ImagesOfImages for Editor {
    fn form(&self) -> &ImageSpec {
        self.space.image()
    }

    fn variants(&self) -> usize {
        self.plan.factors.len()
    }

    fn run(
        &self,
        variant: usize,
        x0: &Tensor,
        numbers: Vec<u64>,
        observer: &mut dyn FnMut(f64) -> candle_core::Result<()>,
    ) -> candle_core::Result<Tensor> {
        let walk = &self.plan.walk;
        let x0 = self.space.encode(&x0.to_device(&self.device)?)?;
        let inversion = sequence(walk.inversion, walk.t_0);
        let all = (inversion.len() + walk.steps) as f64;
        let latent =
            self.latents
                .latents(&self.net, &self.schedule, &x0, &inversion, &mut |step| {
                    observer(step.done as f64 / all)
                })?;
        let mut callback = |step: &Step<'_>| observer((inversion.len() + step.done) as f64 / all);
        let steps = sequence(walk.steps, walk.t_0);
        let strengths = self.plan.edits.iter();
        let strengths = strengths.map(|entry| entry.strength * self.plan.factors[variant]);
        let out = match &self.edits {
            Edits::Models(models) => {
                let models = models.iter().map(|net| net as &dyn Denoiser);
                let mixture = Mixture::new(&self.net, models.zip(strengths));
                generate(&mixture, &self.schedule, &latent, &steps, &mut callback)?
            }
            Edits::Directions(directions) => {
                let entries = directions.iter().zip(&self.plan.edits).zip(strengths);
                let mix = Mix::of(
                    entries
                        .map(|((read, entry), strength)| Direction {
                            block: &read.block,
                            strength: strength_at(
                                strength,
                                entry.trained.unwrap_or(walk.steps),
                                walk.steps,
                                directions.len(),
                            ),
                        })
                        .collect(),
                );
                let plan = EditPlan {
                    steps,
                    t_edit: walk.t_edit,
                    t_boost: walk.t_boost,
                };
                let numbers = match walk.frames {
                    true => vec![0; numbers.len()],
                    false => numbers,
                };
                let mut noise = NumberedNoise::new(walk.seed, numbers);
                edit(
                    &self.net,
                    &self.schedule,
                    &latent,
                    &mix,
                    &plan,
                    &mut noise,
                    &mut callback,
                )?
            }
        };
        self.space.decode(&out)
    }
}

/// Edits of images that several processes share.
struct Shared<'a> {
    maker: &'a Editor,
    team: Team<'a>,
}

impl Maker for Shared<'_> {
    fn name(&self) -> String {
        "edit".into()
    }

    fn spec(&self) -> ImageSpec {
        *self.maker.form()
    }

    fn labels(&self) -> Vec<String> {
        match &self.maker.plan.factors[..] {
            [_] => vec![String::new()],
            all => all
                .iter()
                .map(|factor| format!("strength={factor}"))
                .collect(),
        }
    }

    fn columns(&self) -> Vec<String> {
        match &self.maker.plan.factors[..] {
            [_] => vec!["edited".into()],
            all => all.iter().map(|factor| format!("x {factor}")).collect(),
        }
    }

    fn title(&self) -> String {
        let plan = &self.maker.plan;
        let what: Vec<String> = plan
            .edits
            .iter()
            .map(|edit| {
                let name = edit.to.clone().unwrap_or_else(|| "edited".into());
                let factor = match &plan.factors[..] {
                    [factor] => *factor,
                    _ => 1.0,
                };
                match (1e3 * edit.strength * factor).round() / 1e3 {
                    1.0 => name,
                    strength => format!("{name} x {strength}"),
                }
            })
            .collect();
        what.join(" + ")
    }

    fn make(
        &self,
        variant: usize,
        images: &[Image],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> std::result::Result<Made, Box<dyn std::error::Error + Send + Sync>> {
        let made = self
            .team
            .make(self.maker, variant, images, &numbers, progress);
        Ok(made?)
    }
}
