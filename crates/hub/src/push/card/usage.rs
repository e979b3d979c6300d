//! How to use the files of a repository.

use std::fmt::Write as _;

use super::super::{
    files::Upload,
    origin::Origin,
    run::{ADAPTER, Verb},
    target::Target,
};

/// The section about using the files.
pub(super) fn section(verb: Verb, files: &[Upload], target: &Target, origin: &Origin) -> String {
    let mut out = "\n## Use\n\n".to_owned();
    let has = |path: &str| files.iter().any(|file| file.path == path);
    let is_folder = has("model_index.json") || has("config.json") || has("adapter_config.json");
    let model = if is_folder {
        let revision = target.revision.as_ref();
        let revision = revision.map_or_else(String::new, |branch| format!(" --revision {branch}"));
        let _ = writeln!(
            out,
            "```\nhf download {}{revision} --local-dir {}",
            target.repository(),
            target.name
        );
        target.name.clone()
    } else {
        let weights: Vec<&str> = files
            .iter()
            .map(|file| file.path.as_str())
            .filter(|path| path.ends_with(".safetensors") && *path != ADAPTER)
            .collect();
        let main = weights
            .iter()
            .find(|path| !is_autoencoder(path))
            .or(weights.first());
        let main = main.copied().unwrap_or_default();
        out.push_str("```\n");
        if weights.len() > 1 {
            let all: Vec<String> = weights.iter().map(|path| target.reference(path)).collect();
            let _ = writeln!(out, "cargo xtask fetch {}", all.join(" "));
        }
        target.reference(main)
    };
    let _ = writeln!(
        out,
        "{}\n```",
        command(verb, &model, has("adapter_config.json"), origin)
    );
    if is_folder && verb == Verb::Train && has("model_index.json") {
        let _ = writeln!(
            out,
            "\nOr with diffusers:\n\n```python\nfrom diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained(\"{}\"{})\npipeline().images[0].save(\"sample.png\")\n```",
            target.repository(),
            target
                .revision
                .as_ref()
                .map_or_else(String::new, |branch| format!(", revision=\"{branch}\""))
        );
    }
    if has(ADAPTER) {
        let _ = writeln!(
            out,
            "\n`{ADAPTER}` is the change alone, for the source model:\n\n```\ncargo xtask fetch {}\ncargo xtask sample --model {} --adapter {ADAPTER} -n 16\n```\n\nThe first command prints the path of the adapter, which the second one takes.",
            target.reference(ADAPTER),
            origin.argument()
        );
    }
    out
}

/// Whether a file is the autoencoder next to a model.
fn is_autoencoder(path: &str) -> bool {
    path.starts_with("autoencoder-")
}

/// The command that uses a model.
fn command(verb: Verb, model: &str, is_peft: bool, origin: &Origin) -> String {
    match verb {
        Verb::Train if is_peft => {
            format!("cargo xtask sample --model SOURCE --adapter {model} -n 16")
        }
        Verb::Train => format!("cargo xtask sample --model {model} -n 16"),
        Verb::Classifier => {
            format!("cargo xtask translate --method egsde --classifier {model} --help")
        }
        Verb::Autoencoder => format!("cargo xtask train --autoencoder {model} --data DIR"),
        Verb::Edit => format!(
            "cargo xtask edit apply --model {} --edit {model} --help",
            origin.argument()
        ),
    }
}
