//! Notes about how a file was read, and about assumed fields.

use crate::Architecture;
use crate::folder::Siblings;
use crate::resolve::Resolved;
use crate::stage::Stated;
use sdft_adm::Origin;
use sdft_diffusion::Process;
use std::path::Path;

/// Notes about assumed fields that change numbers; `of_other` if the process is another model's.
pub(crate) fn assumed(resolved: &Resolved, of_other: bool) -> Vec<String> {
    let assumed = resolved.origins.iter();
    let assumed = assumed.filter(|(_, origin)| **origin == Origin::Assumed);
    let fields: Vec<&str> = assumed
        .map(|(field, _)| field.as_str())
        .filter(|field| matters(&resolved.architecture, field))
        .collect();
    let mut notes = Vec::new();
    if !fields.is_empty() {
        notes.push(format!(
            "nothing in the file shows {}; {} defaults are assumed (--set model.FIELD=VALUE changes them)",
            fields.join(", "),
            match resolved.architecture {
                Architecture::Adm(_) | Architecture::AdmEdm(_) => "ADM's",
                Architecture::Unet2d(_) | Architecture::Dit(_) | Architecture::DitFlow(..) => "diffusers'",
                Architecture::Edm(_) => "NVlabs/edm's",
            }
        ));
    }
    notes.extend(process(resolved, of_other));
    notes
}

/// Whether a field changes what the network computes.
fn matters(architecture: &Architecture, field: &str) -> bool {
    let Some(config) = architecture.adm() else {
        return !field.ends_with("dropout");
    };
    match field {
        "dropout" => false,
        "num_heads" | "num_heads_upsample" => config.num_head_channels == 0,
        "conv_resample" => !config.resblock_updown,
        _ => true,
    }
}

/// A note about an assumed process.
fn process(resolved: &Resolved, of_other: bool) -> Option<String> {
    let origins = &resolved.process_origins;
    let is_assumed = |field: &str| origins.get(field) == Some(&Origin::Assumed);
    let Process {
        noise_schedule,
        diffusion_steps,
        ..
    } = &resolved.process;
    let what = match (is_assumed("noise_schedule"), is_assumed("diffusion_steps")) {
        // Every network of 1000 steps is called without rescaling.
        (false, false) if *diffusion_steps != 1000 && is_assumed("rescale_timesteps") => {
            "rescale_timesteps=false is".to_owned()
        }
        (false, false) => return None,
        (true, true) => format!("the {noise_schedule} schedule of {diffusion_steps} steps is"),
        (true, false) => format!("the {noise_schedule} schedule is"),
        (false, true) => format!("{diffusion_steps} steps are"),
    };
    let whose = match of_other {
        true => "assumed, as of the other model",
        false => {
            "assumed (--set process.noise_schedule=.., process.diffusion_steps=.. and process.rescale_timesteps=.. change it)"
        }
    };
    Some(format!(
        "the file does not say which process it was trained on; {what} {whose}"
    ))
}

/// A note about a network with an autoencoder in its file.
pub(crate) fn latents(stated: &Stated) -> Option<String> {
    matches!(stated, Stated::Inside).then(|| {
        "there is an autoencoder (first_stage_model) in the file: the network works on its latents".to_owned()
    })
}

/// A note about a file in diffusers' layout.
pub(crate) fn diffusers(siblings: &Siblings) -> Option<String> {
    let config = siblings.config.as_ref()?;
    let mut note = format!("diffusers' layout, read with {}", config.path.display());
    if let Some(scheduler) = &siblings.scheduler {
        note.push_str(&format!(" and {}", scheduler.path.display()));
    }
    Some(note)
}

/// A note about a file that is one of several.
pub(crate) fn shard(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() >= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let ending = path.extension()?.to_str()?;
    (digits(of) && digits(number)).then(|| {
        format!(
            "likely cause: this is part {number} of {of}; give the index {name}.{ending}.index.json"
        )
    })
}
