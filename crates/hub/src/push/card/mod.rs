//! The model card of a repository: front matter, and what the plan and the measurements state.

mod data;
mod method;
mod usage;

use std::fmt::Write as _;

use super::{
    files::Upload,
    metrics,
    origin::Origin,
    run::{Folder, Run, Verb},
    target::Target,
};

/// The mark of what only the author knows.
pub(crate) const FILL_IN: &str = "TO FILL IN";

/// The card of these files.
pub(crate) fn card(folder: &Folder, files: &[Upload], target: &Target) -> String {
    let run = folder.run.as_ref();
    let origin = run.map_or(Origin::None, Origin::of);
    let is_pipeline = files.iter().any(|file| file.path == "model_index.json");
    let mut out = front_matter(run, &origin, is_pipeline);
    let _ = writeln!(out, "\n# {}\n", run.map_or(&*target.name, Run::name));
    match run {
        Some(run) => {
            out.push_str(&method::summary(run));
            out.push_str(&pictures(files));
            out.push_str(&usage::section(run.verb, files, target, &origin));
            out.push_str(&method::section(run, &origin));
            out.push_str(&data::section(run));
        }
        None => {
            let _ = writeln!(out, "**{FILL_IN}**: what this model is and does.\n");
            out.push_str(&pictures(files));
            out.push_str(&usage::section(Verb::Train, files, target, &origin));
        }
    }
    out.push_str(&metrics::sections(folder));
    out.push_str(&to_fill_in(run.is_some()));
    out
}

/// The YAML that the Hub reads. JSON strings are YAML strings.
fn front_matter(run: Option<&Run>, origin: &Origin, is_pipeline: bool) -> String {
    let mut out = format!("---\n# license: {FILL_IN}, see the section \"Before you publish\"\n");
    let _ = writeln!(
        out,
        "library_name: {}",
        if is_pipeline { "diffusers" } else { "sdft" }
    );
    let verb = run.map(|run| run.verb);
    if verb.is_none_or(|verb| verb == Verb::Train) {
        out.push_str("pipeline_tag: unconditional-image-generation\n");
    }
    let mut tags = vec!["sdft".to_owned(), "diffusion".to_owned()];
    match (run, verb) {
        (Some(run), Some(Verb::Train)) => {
            tags.extend(method::names(run));
            if let Some(kind) = run.text("adapter.kind").filter(|kind| *kind != "full") {
                tags.push(kind.to_owned());
            }
            if run.autoencoder().is_some() {
                tags.push("latent-diffusion".to_owned());
            }
        }
        (_, Some(Verb::Classifier)) => tags.push("image-classification".to_owned()),
        (_, Some(Verb::Autoencoder)) => tags.push("autoencoder".to_owned()),
        (_, Some(Verb::Edit)) => tags.push("image-editing".to_owned()),
        _ => {}
    }
    tags.dedup();
    out.push_str("tags:\n");
    for tag in tags {
        let _ = writeln!(out, "- {tag}");
    }
    if let Some(repository) = origin.repository() {
        let is_part =
            run.is_some_and(|run| run.text("adapter.kind").is_some() || run.verb == Verb::Edit);
        let relation = if is_part { "adapter" } else { "finetune" };
        let _ = writeln!(
            out,
            "base_model: {repository:?}\nbase_model_relation: {relation}"
        );
    }
    out.push_str("---\n");
    out
}

/// The pictures among the files.
fn pictures(files: &[Upload]) -> String {
    let mut out = String::new();
    for path in files.iter().map(|file| &file.path) {
        let Some(step) = path
            .strip_prefix("samples/step-")
            .and_then(|rest| rest.strip_suffix(".png"))
        else {
            continue;
        };
        let step = step.trim_start_matches('0');
        let _ = writeln!(
            out,
            "![Samples after {step} steps]({path})\n\nSamples of the averaged weights after {step} steps, next to those of the source model from the \
             same noise if there is one. They were not selected.\n"
        );
    }
    out
}

/// What the author has to add.
fn to_fill_in(is_run: bool) -> String {
    let mut out = format!(
        "\n## Before you publish\n\nThis card was generated. It lacks what only you know; remove this section when it is complete.\n\n- **{FILL_IN}**: the license, in the first lines of this file, as in `license: cc-by-nc-4.0`. It must agree with the licenses of the source model and of the images.\n"
    );
    if is_run {
        let _ = writeln!(
            out,
            "- **{FILL_IN}**: where the training images come from, their license, and whether the people in them have agreed."
        );
    }
    let _ = writeln!(
        out,
        "- **{FILL_IN}**: what the model is meant for, what it must not be used for, and what it does badly. A model that was trained on few \
         images may return some of them; compare its samples with them (`cargo xtask evaluate`)."
    );
    out
}

#[cfg(test)]
mod tests;
