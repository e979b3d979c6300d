//! `edit apply`: files or folders of images -> a folder of edited images under the same names.

use super::args::EditApplyArgs;
use super::latents::{self, Inversion};
use super::plan::{ApplyPlan, ApplyWalk, EditEntry, factors, strengths};
use crate::console;
use crate::gallery::{Ended, Gallery, Made, Maker, full_path, go_on, inputs};
use crate::model::model_file;
use crate::sample::{check_seed, unconditional};
use crate::train::load_model;
use crate::usage;
use anyhow::{Context, Result};
use sdft_adm::Unet;
use sdft_asyrp::{
    Direction, DirectionInfo, EditPlan, InversionCache, LoadedDirection, Mix, edit, read_direction,
    sequence, strength_at,
};
use sdft_diffusion::BottleneckNet;
use sdft_imaging::Rgb8;
use sdft_randn::NumberedNoise;
use sdft_schedule::Schedule;
use sdft_train::{runs_near, to_pictures, to_tensor};
use std::path::Path;

/// Edits the images of the input that `chosen` says; all without it.
pub(crate) fn apply(args: &EditApplyArgs, chosen: Option<&dyn Fn(&str) -> bool>) -> Result<Ended> {
    // What does not depend on files is checked before they are read.
    let (strengths, factors) = (strengths(args)?, factors(args)?);
    check_seed(args.seed.unwrap_or(0))?;
    let name = model_file(&args.model)?;
    let model = load_model(&name, &args.file.options()?)?;
    for note in &model.notes {
        console::note(note);
    }
    unconditional(&name, &model)?;
    let process = &model.process;
    let editable = process.check_editable();
    editable.map_err(|problem| usage(format!("{name}: {problem}")))?;
    let network_sha256 = model.network_sha256()?;
    let net = model.unet()?;
    let mut directions = Vec::new();
    for edit in &args.edit {
        if !Path::new(edit).exists() {
            let runs =
                runs_near(Path::new(edit)).map_or_else(String::new, |runs| format!("; {runs}"));
            return Err(usage(format!("--edit {edit}: no such file or run{runs}")));
        }
        let file = model_file(edit).with_context(|| format!("--edit {edit}"))?;
        let path = Path::new(&file);
        let read = read_direction(path, net.bottleneck(), model.config.norm_groups)
            .with_context(|| format!("--edit {edit}"))?;
        match &read.info {
            None => console::note(&format!(
                "{file}: says nothing of how it was trained; taken are Asyrp's t_edit and t_boost, and its strength as it is"
            )),
            Some(info) if info.network_sha256 != network_sha256 => console::note(&format!(
                "{file}: trained on another model than this; it may still work on a relative"
            )),
            Some(_) => {}
        }
        directions.push((file, read));
    }
    let infos: Vec<(String, Option<DirectionInfo>)> = directions
        .iter()
        .map(|(file, read)| (file.clone(), read.info.clone()))
        .collect();
    let walk = ApplyWalk::new(args, &infos)?;
    if walk.t_boost == 0 {
        for (option, given) in [("--seed", args.seed.is_some()), ("--frames", args.frames)] {
            if given {
                return Err(usage(format!(
                    "{option} has no effect where no noise is added; give --t-boost above 0, or leave it out"
                )));
            }
        }
    }
    if walk.t_0 >= process.diffusion_steps {
        return Err(usage(format!(
            "{name}: its process has {} steps, and the edit is to begin at step {}",
            process.diffusion_steps, walk.t_0
        )));
    }
    let edits = directions.iter().zip(&strengths);
    let plan = ApplyPlan {
        input: full_path(&args.input.display().to_string()),
        image_size: model.config.image_size,
        model: full_path(&name),
        network_sha256,
        factors,
        walk,
        edits: edits
            .map(|((file, read), strength)| {
                let info = read.info.as_ref();
                Ok(EditEntry {
                    file: full_path(file),
                    sha256: sdft_checkpoint::sha256_file(Path::new(file))?,
                    from: info.map(|info| info.from.clone()),
                    to: info.map(|info| info.to.clone()),
                    trained: info.map(|info| info.steps),
                    strength: *strength,
                })
            })
            .collect::<Result<_>>()?,
        process: process.clone(),
    };
    let mut inputs = inputs::list(&args.input)?;
    if let Some(chosen) = chosen {
        inputs.retain(|input| chosen(&input.id));
    }
    let inversion = Inversion {
        network_sha256: &plan.network_sha256,
        process,
        t_0: plan.walk.t_0,
        steps: plan.walk.inversion,
    };
    let editor = Editor {
        schedule: process.published()?.schedule,
        latents: latents::open(&args.cache, &inversion),
        directions: directions.into_iter().map(|(_, read)| read).collect(),
        plan: &plan,
        net,
    };
    let ended = Gallery {
        input: &args.input,
        inputs: &inputs,
        out: &args.out,
        plan: &plan,
        maker: &editor,
        batch: args.batch,
        overwrite: args.overwrite,
    }
    .fill()?;
    if let Some(problem) = editor.latents.problem() {
        console::note(&format!("inversions are not kept: {problem}"));
    } else if let Some(folder) = editor.latents.folder() {
        console::note(&format!("inversions are kept in {}", folder.display()));
    }
    Ok(ended)
}

/// A plan, its network and its directions.
struct Editor<'a> {
    plan: &'a ApplyPlan,
    net: Unet,
    schedule: Schedule,
    latents: InversionCache,
    directions: Vec<LoadedDirection>,
}

impl Maker for Editor<'_> {
    fn name(&self) -> String {
        "edit".into()
    }

    fn side(&self) -> usize {
        self.plan.image_size
    }

    fn labels(&self) -> Vec<String> {
        match &self.plan.factors[..] {
            [_] => vec![String::new()],
            all => all
                .iter()
                .map(|factor| format!("strength={factor}"))
                .collect(),
        }
    }

    fn columns(&self) -> Vec<String> {
        match &self.plan.factors[..] {
            [_] => vec!["edited".into()],
            all => all.iter().map(|factor| format!("x {factor}")).collect(),
        }
    }

    fn title(&self) -> String {
        let what: Vec<String> = self
            .plan
            .edits
            .iter()
            .map(|edit| {
                let name = edit.to.clone().unwrap_or_else(|| "edited".into());
                let factor = match &self.plan.factors[..] {
                    [factor] => *factor,
                    _ => 1.0,
                };
                match edit.strength * factor {
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
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Made> {
        let walk = &self.plan.walk;
        let x0 = to_tensor(images)?;
        let inversion = sequence(walk.inversion, walk.t_0);
        let all = (inversion.len() + walk.steps) as f64;
        let latent =
            self.latents
                .latents(&self.net, &self.schedule, &x0, &inversion, &mut |step| {
                    go_on()?;
                    progress(step.done as f64 / all);
                    Ok(())
                })?;
        let directions = self.directions.iter().zip(&self.plan.edits);
        let mix = Mix::of(
            directions
                .map(|(read, entry)| Direction {
                    block: &read.block,
                    strength: strength_at(
                        entry.strength * self.plan.factors[variant],
                        entry.trained.unwrap_or(walk.steps),
                        walk.steps,
                        self.directions.len(),
                    ),
                })
                .collect(),
        );
        let plan = EditPlan {
            steps: sequence(walk.steps, walk.t_0),
            t_edit: walk.t_edit,
            t_boost: walk.t_boost,
        };
        let numbers = match walk.frames {
            true => vec![0; images.len()],
            false => numbers,
        };
        let mut noise = NumberedNoise::new(walk.seed, numbers);
        let out = edit(
            &self.net,
            &self.schedule,
            &latent,
            &mix,
            &plan,
            &mut noise,
            &mut |step| {
                go_on()?;
                progress((inversion.len() + step.done) as f64 / all);
                Ok(())
            },
        )?;
        Ok(to_pictures(&out)?)
    }
}
