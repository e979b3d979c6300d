//! What a card states, for runs of every command.

use std::{fs, path::Path};

use super::*;
use crate::push::{files::files, run::PLAN};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The card of a finished run with this plan.
fn card_of(root: &Path, plan: &str, others: &[&str]) -> String {
    fs::create_dir_all(root.join("samples")).unwrap();
    fs::write(root.join(PLAN), plan).unwrap();
    for name in ["final.safetensors"].iter().chain(others) {
        fs::write(root.join(name), "weights").unwrap();
    }
    let folder = Folder::open(root).unwrap();
    let files = files(&folder, &[]).unwrap();
    card(&folder, &files, &Target::parse("ann/cats", None).unwrap())
}

/// The lines between the two lines of dashes.
fn front(card: &str) -> Vec<&str> {
    let (front, _) = card
        .strip_prefix("---\n")
        .unwrap()
        .split_once("\n---\n")
        .unwrap();
    front.lines().collect()
}

fn contains(card: &str, parts: &[&str]) {
    for part in parts {
        assert!(card.contains(part), "{part}: {card}");
    }
}

#[test]
fn the_card_of_a_fine_tuned_model_states_method_source_data_and_use() {
    let dir = tempfile::tempdir().unwrap();
    let plan = format!(
        "name = \"cats-sdft\"\nmethod = \"sdft\"\nsource = \"/home/ann/hub/models--owner--name/snapshots/{COMMIT}/a.pt\"\nseed = 7\n\
         [data]\npath = \"/home/ann/my cats\"\nflip = true\nstyle = \"chalk\"\nclass_names = [\"black\", \"red|white\"]\nclass_counts = [3, 4]\n\
         [loss]\nlambda = 0.25\nweight = \"snr-3\"\n[loss.dogfit]\nweight = 1.5\n[optim]\nlr = 2e-5\n[loop]\nsteps = 100\n"
    );
    let text = card_of(
        dir.path(),
        &plan,
        &[
            "samples/step-000050.png",
            "samples/step-000100.png",
            "samples/neighbours-000100.png",
        ],
    );
    assert_eq!(
        front(&text),
        [
            "# license: TO FILL IN, see the section \"Before you publish\"",
            "library_name: sdft",
            "pipeline_tag: unconditional-image-generation",
            "tags:",
            "- sdft",
            "- diffusion",
            "- self-distillation",
            "- dogfit",
            "base_model: \"owner/name\"",
            "base_model_relation: finetune",
        ]
    );
    contains(
        &text,
        &[
            "# cats-sdft",
            "![Samples after 100 steps](samples/step-000100.png)",
            "cargo xtask sample --model hf:ann/cats/final.safetensors -n 16",
            "arXiv 2311.01018",
            &format!("[owner/name](https://huggingface.co/owner/name) at `{COMMIT}`, `a.pt`"),
            "| lambda, factor of the distillation on images | `loss.lambda` | 0.25 |",
            "`loss.dogfit.weight` | 1.5 |",
            "DogFit:",
            "| seed | `seed` | 7 |",
            "7 images of the folder `my cats`. Origin",
            "| 1 | red\\|white | 4 |",
            "## Before you publish",
        ],
    );
    for absent in ["/home", "neighbours", "chalk", "step-000050"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn settings_that_a_method_does_not_read_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let plan = "method = \"scratch\"\nsource = \"\"\n[data]\npath = \"emoji\"\nstyle = \"noto\"\n[loss]\nlambda = 0.25\nbase = \"p2-1\"\n[loop]\nsteps = 9\n";
    let text = card_of(dir.path(), plan, &[]);
    contains(
        &text,
        &[
            "from random weights",
            "Fluent Emoji by Microsoft",
            "`loss.base` | p2-1 |",
            "`data.style` | noto |",
        ],
    );
    for absent in ["base_model", "loss.lambda", "Source model", "distill", "!["] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn adapters_latents_and_pipelines_have_their_own_use() {
    let dir = tempfile::tempdir().unwrap();
    let plan = "method = \"naive\"\nsource = \"emoji-source\"\n[adapter]\nkind = \"lora\"\nrank = 8\n[model.autoencoder]\nsha256 = \"0123456789abcdef\"\n[loop]\nsteps = 9\n";
    let text = card_of(
        dir.path(),
        plan,
        &[
            "adapter.safetensors",
            "autoencoder-0123456789ab.safetensors",
        ],
    );
    contains(
        &text,
        &[
            "- lora\n- latent-diffusion\n",
            "cargo xtask fetch hf:ann/cats/final.safetensors hf:ann/cats/autoencoder-0123456789ab.safetensors\ncargo xtask sample --model hf:ann/cats/final.safetensors",
            "cargo xtask fetch hf:ann/cats/adapter.safetensors",
            "sample --model emoji-source --adapter",
            "`adapter.rank` | 8 |",
        ],
    );

    let dir = tempfile::tempdir().unwrap();
    for part in ["unet", "scheduler"] {
        fs::create_dir_all(dir.path().join("diffusers").join(part)).unwrap();
    }
    for name in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ] {
        fs::write(dir.path().join("diffusers").join(name), "{}").unwrap();
    }
    fs::write(
        dir.path()
            .join("diffusers/unet/diffusion_pytorch_model.safetensors"),
        "weights",
    )
    .unwrap();
    let plan = "method = \"naive\"\nsource = \"a.pt\"\n[loop]\n[output]\nformat = \"diffusers\"\n";
    let text = card_of(dir.path(), plan, &[]);
    contains(
        &text,
        &[
            "library_name: diffusers",
            "hf download ann/cats --local-dir cats\ncargo xtask sample --model cats -n 16",
            "DiffusionPipeline.from_pretrained(\"ann/cats\")",
        ],
    );
    assert!(!text.contains("final.safetensors"), "{text}");
}

#[test]
fn other_commands_have_their_own_cards() {
    for (plan, tag, parts) in [
        (
            "method = \"asyrp\"\nsource = \"ffhq.pt\"\n[walk]\n[loop]\n[goal]\nfrom = \"person\"\nto = \"smiling person\"\n",
            "- image-editing",
            &[
                "A direction in the features",
                "edit apply --model ffhq.pt --edit hf:ann/cats/final.safetensors",
                "| smiling person |",
            ][..],
        ),
        (
            "init = \"\"\n[loop]\n[data.source]\npath = \"/home/ann/photos\"\n[data.target]\npath = \"digits\"\n",
            "- image-classification",
            &[
                "EGSDE",
                "- source domain, label 0: The images of the folder `photos`",
                "label 1: The handwritten digits",
            ],
        ),
        (
            "[loss]\nkl_weight = 0.001\n[loop]\n[data]\npath = \"emoji\"\n",
            "- autoencoder",
            &[
                "train --autoencoder hf:ann/cats/final.safetensors",
                "`loss.kl_weight` | 0.001 |",
            ],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // Its pictures show training images.
        let text = card_of(dir.path(), plan, &["samples/step-000009.png"]);
        assert!(front(&text).contains(&tag), "{text}");
        assert!(
            !text.contains("pipeline_tag") && !text.contains("!["),
            "{text}"
        );
        contains(&text, parts);
    }
}

#[test]
fn a_folder_of_a_model_has_a_card_to_be_completed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), "weights").unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let files = files(&folder, &[]).unwrap();
    let target = Target::parse("ann/cats", Some("v2")).unwrap();
    let text = card(&folder, &files, &target);
    contains(
        &text,
        &[
            "# cats",
            "**TO FILL IN**: what this model is",
            "sample --model hf:ann/cats@v2/model.safetensors",
        ],
    );
}
