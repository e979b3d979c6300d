//! The verbs, their help, and suggestions for typing errors.

/// Verbs of the program `sdft`, which are forwarded.
const FORWARDED: [(&str, &str); 16] = [
    ("train", "fine-tune a model, or train one from scratch"),
    ("sample", "draw images from a model"),
    (
        "translate",
        "bring images into a model's domain: SDEdit, EGSDE, DDIB, ILVR",
    ),
    (
        "train-classifier",
        "train the classifier of noised images that EGSDE needs",
    ),
    (
        "train-autoencoder",
        "train the autoencoder of latent diffusion models",
    ),
    (
        "edit",
        "edit images by a text: train an edit, apply it (Asyrp, DiffusionCLIP)",
    ),
    (
        "evaluate",
        "measure images: FID, KID, PSNR, SSIM, LPIPS, ..",
    ),
    (
        "reproduce",
        "run a documented experiment and print its table",
    ),
    (
        "compare",
        "train methods of fine-tuning next to each other and print one table",
    ),
    (
        "report",
        "write one page with the curves, pictures, settings and numbers of runs",
    ),
    ("completions", "print the completions of a shell"),
    ("man", "write the pages for `man`"),
    ("inspect", "describe a checkpoint"),
    (
        "convert",
        "write a checkpoint as safetensors, or as a folder of diffusers or peft",
    ),
    (
        "data",
        "check a folder of images; prepare tables, archives and folders; select by a text",
    ),
    ("doctor", "show what this machine has and what will be used"),
];

/// The verb that creates a file of the repository.
const JUDGE: &str = "judge";

/// Verbs of other programs, and verbs about the repository.
const OWN: [(&str, &str); 11] = [
    (
        "fetch",
        "fetch checkpoints and data sets from the Hugging Face Hub, verified; --list shows them",
    ),
    (
        "push",
        "publish the model of a run on the Hugging Face Hub, with a model card",
    ),
    (
        "test",
        "all tests, documentation included; further arguments go to cargo test",
    ),
    (
        "ci",
        "what the continuous integration runs: fmt, tidy, clippy, test, precise paths, doc, book, python, cuda",
    ),
    (
        "tidy",
        "check the rules of this repository that no compiler checks",
    ),
    (
        "parity",
        "[DIR] [--kind PREFIX,..] compare with the reference implementations",
    ),
    (
        "bench",
        "[--peer] [--only PART,..] measure speed and memory, alone or compared with PyTorch",
    ),
    (
        "gpu-report",
        "[--python P] check a GPU: operations, parity, speed compared with PyTorch, a run killed and resumed; in one file",
    ),
    (
        "imitation",
        "[PART ..] run the CUDA code without a GPU, on an imitation of CUDA's libraries",
    ),
    (
        JUDGE,
        "train the classifier that scores digit samples; --out sets the file",
    ),
    ("help", "print this text"),
];

/// Whether `verb` belongs to the program `sdft`.
pub(crate) fn is_forwarded(verb: &str) -> bool {
    verb == JUDGE || FORWARDED.iter().any(|(name, _)| *name == verb)
}

/// The text of `cargo xtask help`.
pub(crate) fn help() -> String {
    let table = |verbs: &[(&str, &str)]| -> String {
        verbs
            .iter()
            .map(|(name, what)| format!("  {name:<16} {what}\n"))
            .collect()
    };
    format!(
        "Usage: cargo xtask VERB [ARGUMENTS]\n\n\
         the program (cargo xtask VERB --help lists its arguments):\n{}\n\
         fetching and publishing, and the repository:\n{}",
        table(&FORWARDED),
        table(&OWN)
    )
}

/// The help of a verb about the repository.
pub(crate) fn about(verb: &str) -> Option<String> {
    let (_, what) = OWN.iter().find(|(name, _)| *name == verb)?;
    let arguments = match verb {
        "test" => " [ARGUMENTS OF cargo test]",
        _ => "",
    };
    Some(format!("{what}\n\nUsage: cargo xtask {verb}{arguments}\n"))
}

/// The error for an unknown verb.
pub(crate) fn unknown(verb: &str) -> String {
    let all = FORWARDED.iter().chain(&OWN);
    let names: Vec<&str> = all.map(|(name, _)| *name).collect();
    format!(
        "unknown verb {verb:?}{}\nverbs: {}",
        sdft_files::did_you_mean(verb, names.iter().copied()),
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_verb_is_answered_with_the_nearest_one() {
        assert!(unknown("trian").starts_with("unknown verb \"trian\"; did you mean train?\n"));
        assert!(unknown("inspct").contains("did you mean inspect?"));
        let message = unknown("xyzzy");
        assert!(message.starts_with("unknown verb \"xyzzy\"\n"), "{message}");
        assert!(message.contains("train, sample") && message.contains("parity"));
    }

    #[test]
    fn help_names_every_verb_once() {
        let help = help();
        for (name, _) in FORWARDED.iter().chain(&OWN) {
            assert_eq!(help.matches(&format!("\n  {name} ")).count(), 1, "{name}");
        }
        assert!(is_forwarded("train") && !is_forwarded("ci"));
        // Users do not need the verb that creates a file of the repository.
        let (users, _) = help.split_once("the repository:").unwrap();
        assert!(is_forwarded("judge") && !users.contains("judge"));
    }
}
