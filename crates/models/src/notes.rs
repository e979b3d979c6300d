//! Notes about how a file was read and what was assumed.

use crate::resolve::Resolved;
use crate::siblings::Siblings;
use sdft_adm::Origin;
use sdft_checkpoint::Summary;
use sdft_diffusion::Process;
use std::path::Path;

/// Notes about assumed fields that matter; `of_other` if the process is that of another model.
pub(crate) fn assumed(resolved: &Resolved, of_other: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let matters = [
        "image_size",
        "norm_groups",
        "num_head_channels",
        "use_new_attention_order",
    ];
    let fields: Vec<&str> = matters
        .into_iter()
        .filter(|field| resolved.origins.get(field) == Some(&Origin::Assumed))
        .collect();
    if !fields.is_empty() {
        notes.push(format!(
            "nothing in the file shows {}; ADM's defaults are assumed (--set model.FIELD=VALUE changes them)",
            fields.join(", ")
        ));
    }
    notes.extend(process(resolved, of_other));
    notes
}

/// A note about an assumed process.
pub(crate) fn process(resolved: &Resolved, of_other: bool) -> Option<String> {
    let origins = &resolved.process_origins;
    let is_assumed = |field: &str| origins.get(field) == Some(&Origin::Assumed);
    let Process {
        noise_schedule,
        diffusion_steps,
        ..
    } = &resolved.process;
    let what = match (is_assumed("noise_schedule"), is_assumed("diffusion_steps")) {
        (false, false) => return None,
        (true, true) => format!("the {noise_schedule} schedule of {diffusion_steps} steps is"),
        (true, false) => format!("the {noise_schedule} schedule is"),
        (false, true) => format!("{diffusion_steps} steps are"),
    };
    let whose = match of_other {
        true => "assumed, as of the other model",
        false => {
            "assumed (--set process.noise_schedule=.. and --set process.diffusion_steps=.. change it)"
        }
    };
    Some(format!(
        "the file does not say which process it was trained on; {what} {whose}"
    ))
}

/// A note about a network with an autoencoder next to it.
pub(crate) fn latents(summary: &Summary) -> Option<String> {
    let mut names = summary.left_out.iter();
    names.any(|name| name.starts_with("first_stage_model.")).then(|| {
        "there is an autoencoder (first_stage_model) next to the network: it works on that one's latents, not on images, if they were trained \
         together"
            .to_owned()
    })
}

/// A note about a file in diffusers' layout.
pub(crate) fn diffusers(siblings: Option<&Siblings>) -> Option<String> {
    let siblings = siblings?;
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
