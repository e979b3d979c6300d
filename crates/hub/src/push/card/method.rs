//! How a model was trained, by its plan.

use std::fmt::Write as _;

use toml::Value;

use super::super::{
    metrics::cell,
    names::public,
    origin::Origin,
    run::{Run, Verb},
};

/// Sections of other methods in `[loss]`, which a plan has only if they are used: the key, the tag, and a sentence.
const METHODS: [(&str, &str, &str); 5] = [
    (
        "dogfit",
        "dogfit",
        "DogFit: guidance away from the source model is part of the target.",
    ),
    (
        "pairwise",
        "ddpm-pa",
        "DDPM-PA: distances between images stay near those of the source model.",
    ),
    (
        "ant",
        "ant",
        "ANT: targets follow a classifier of both domains, and the noise is adversarial.",
    ),
    (
        "keep",
        "diff-tuning",
        "Diff-Tuning: samples of the source model are trained on as well, at little noise.",
    ),
    (
        "anchor",
        "weight-anchor",
        "L2-SP or EWC: weights stay near those of the source model.",
    ),
];

/// Settings of a card: their key, and what they are.
const SETTINGS: [(&str, &str); 32] = [
    ("loop.steps", "optimizer steps"),
    ("loop.epochs", "passes over the images"),
    ("loop.batch", "images per step"),
    ("loop.precision", "precision"),
    ("optim.kind", "optimizer"),
    ("optim.lr", "learning rate"),
    ("optim.schedule", "its schedule"),
    ("optim.weight_decay", "weight decay"),
    (
        "optim.ema",
        "rate of the moving average, whose weights are published",
    ),
    ("loss.base", "weights of the denoising loss"),
    (
        "loss.lambda",
        "lambda, factor of the distillation on images",
    ),
    ("loss.weight", "w(t) of the distillation on images"),
    (
        "loss.lambda_aux",
        "lambda_aux, factor of the distillation on pure noise",
    ),
    (
        "loss.weight_aux",
        "w_aux(t) of the distillation on pure noise",
    ),
    ("loss.distill_space", "quantity that is distilled"),
    ("loss.label_dropout", "share of dropped labels"),
    ("loss.perceptual", "perceptual distance"),
    ("loss.perceptual_weight", "its weight"),
    ("loss.kl_weight", "weight of the KL divergence"),
    ("adapter.kind", "adapter"),
    ("adapter.rank", "its rank"),
    ("adapter.alpha", "its alpha"),
    ("goal.from", "what the images show"),
    ("goal.to", "what the edited images show"),
    ("goal.network", "network that measures the edit"),
    ("walk.inversion", "steps of an inversion"),
    ("walk.steps", "steps of a generation"),
    ("walk.t_edit", "last step of the edit"),
    ("process.noise_schedule", "noise schedule"),
    ("process.diffusion_steps", "steps of the process"),
    ("output.sampler", "sampler of the pictures"),
    ("seed", "seed"),
];

/// Settings of `[loss]` that only SDFT and label dropout read.
fn is_read(run: &Run, key: &str) -> bool {
    match key {
        "loss.lambda" | "loss.weight" | "loss.lambda_aux" | "loss.weight_aux"
        | "loss.distill_space" => run.text("method") == Some("sdft"),
        "loss.label_dropout" => run.get("data.class_names").is_some(),
        _ => true,
    }
}

/// The methods of a training run, as tags.
pub(super) fn names(run: &Run) -> Vec<String> {
    let base = match run.text("method") {
        Some("sdft") => Some("self-distillation"),
        Some("naive") => Some("fine-tuning"),
        _ => None,
    };
    let others = METHODS
        .iter()
        .filter(|(key, ..)| run.get(&format!("loss.{key}")).is_some());
    let others = others.map(|(_, tag, _)| (*tag).to_owned());
    base.map(str::to_owned).into_iter().chain(others).collect()
}

/// One sentence about the model.
pub(super) fn summary(run: &Run) -> String {
    let text = match (run.verb, run.text("method")) {
        (Verb::Train, Some("scratch")) => "A diffusion model, trained from random weights.",
        (Verb::Train, Some("naive")) => "A diffusion model, fine-tuned on a set of images.",
        (Verb::Train, _) => {
            "A diffusion model, fine-tuned on a set of images with self-distillation (SDFT)."
        }
        (Verb::Classifier, _) => {
            "A classifier of noised images in two domains, for translation with EGSDE."
        }
        (Verb::Autoencoder, _) => "An autoencoder for latent diffusion models.",
        (Verb::Edit, Some("diffusionclip")) => {
            "A diffusion model that edits images towards a text or an attribute, tuned with DiffusionCLIP."
        }
        (Verb::Edit, _) => {
            "A direction in the features of a diffusion model that edits images (Asyrp)."
        }
    };
    format!("{text}\n\n")
}

/// How the model was made: source, method and settings.
pub(super) fn section(run: &Run, origin: &Origin) -> String {
    let mut out = "\n## Training\n\n".to_owned();
    let text = match (run.verb, run.text("method")) {
        (Verb::Train, Some("scratch")) => {
            "The network was trained from random weights with the denoising loss."
        }
        (Verb::Train, Some("naive")) => {
            "The network starts from the weights of the source model and is trained with the denoising loss."
        }
        (Verb::Train, _) => {
            "The network starts from the weights of the source model. It is trained with the denoising loss while it distills the frozen source \
             model on noised images and on pure noise, so that it keeps more of what the source model can draw (SDFT, self-distillation based \
             fine-tuning, [arXiv 2311.01018](https://arxiv.org/abs/2311.01018))."
        }
        (Verb::Classifier, _) => {
            "The classifier sees images of both domains at all noise levels of the process."
        }
        (Verb::Autoencoder, _) => {
            "The loss is the absolute error, a perceptual distance and the KL divergence of the latents, without a discriminator."
        }
        (Verb::Edit, Some("diffusionclip")) => {
            "The weights are tuned on inversions of the images by the original model, until its generations show the goal."
        }
        (Verb::Edit, _) => {
            "The model itself is frozen. A small block is trained that shifts its deepest features towards the goal."
        }
    };
    let _ = writeln!(out, "{text}");
    for (key, _, sentence) in METHODS {
        if run.get(&format!("loss.{key}")).is_some() {
            let _ = writeln!(out, "{sentence}");
        }
    }
    if *origin != Origin::None {
        let _ = writeln!(out, "\nSource model: {}.", origin.describe());
    }
    out.push_str("\n| setting | key | value |\n|---|---|---|\n");
    for (key, what) in SETTINGS.iter().filter(|(key, _)| is_read(run, key)) {
        if let Some(value) = run.get(key).and_then(plain) {
            let _ = writeln!(out, "| {what} | `{key}` | {} |", cell(&value));
        }
    }
    for (section, ..) in METHODS {
        let table = run
            .get(&format!("loss.{section}"))
            .and_then(Value::as_table);
        for (key, value) in table.into_iter().flatten() {
            if let Some(value) = plain(value) {
                let _ = writeln!(out, "| | `loss.{section}.{key}` | {} |", cell(&value));
            }
        }
    }
    out.push_str("\nAll settings are in [plan.toml](plan.toml).\n");
    out
}

/// A single value as text; none for lists, tables and empty texts.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(public(text)),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(x) => Some(x.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}
