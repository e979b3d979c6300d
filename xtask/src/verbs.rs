//! The verbs, their help and the nearest one to a typing error.

/// Verbs of the binary `sdft`, handed on as they are.
const FORWARDED: [(&str, &str); 11] = [
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
        "edit",
        "edit images by a text: train a direction, apply it (Asyrp)",
    ),
    (
        "evaluate",
        "measure images: FID, KID, PSNR, SSIM, LPIPS, ..",
    ),
    (
        "reproduce",
        "repeat a documented experiment and print its table",
    ),
    ("inspect", "say what a checkpoint is"),
    ("convert", "write a checkpoint as safetensors"),
    (
        "data",
        "check a folder of images; prepare tables, archives and folders; select by a text",
    ),
    ("doctor", "say what this machine has and what will be used"),
];

/// A verb of the binary that makes a file of the repository again.
const JUDGE: &str = "judge";

/// Verbs of other programs, and about the repository.
const OWN: [(&str, &str); 9] = [
    (
        "fetch",
        "bring checkpoints and data sets from the Hugging Face Hub, verified; --list shows them",
    ),
    (
        "test",
        "all tests, documentation included; further arguments go to cargo test",
    ),
    (
        "ci",
        "what the continuous integration runs: fmt, tidy, clippy, test, precise paths, doc",
    ),
    (
        "tidy",
        "check the rules of the house that no compiler checks",
    ),
    (
        "parity",
        "[DIR] [--kind PREFIX,..] compare with the reference implementations",
    ),
    (
        "bench",
        "[--peer] [--only PART,..] speed and memory, alone or beside PyTorch",
    ),
    (
        "gpu-report",
        "[--python P] what a GPU is to show: operations, parity, speed beside PyTorch, a run killed and resumed; in one file",
    ),
    (
        JUDGE,
        "train the classifier that judges digit samples again; --out says where to",
    ),
    ("help", "this text"),
];

/// Whether `verb` belongs to the binary `sdft`.
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
        "usage: cargo xtask VERB [ARGUMENTS]\n\n\
         the program (cargo xtask VERB --help lists its arguments):\n{}\n\
         fetching, and the repository:\n{}",
        table(&FORWARDED),
        table(&OWN)
    )
}

/// The message for a verb that does not exist.
pub(crate) fn unknown(verb: &str) -> String {
    let names: Vec<&str> = FORWARDED
        .iter()
        .chain(&OWN)
        .map(|(name, _)| *name)
        .collect();
    let nearest = names
        .iter()
        .map(|name| (edit_distance(verb, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 2)
        .map_or(String::new(), |(_, name)| {
            format!(", did you mean {name:?}?")
        });
    format!(
        "unknown verb {verb:?}{nearest}\nverbs: {}",
        names.join(", ")
    )
}

/// The number of characters to insert, delete or replace to get from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("train", "train", 0),
            ("tran", "train", 1),
            ("smaple", "sample", 2),
            ("", "ci", 2),
        ] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_typing_error_is_answered_with_the_nearest_verb() {
        assert!(unknown("trian").starts_with("unknown verb \"trian\", did you mean \"train\"?\n"));
        assert!(unknown("inspct").contains("did you mean \"inspect\"?"));
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
        // Users are not offered what remakes a file of the repository.
        let (users, _) = help.split_once("the repository:").unwrap();
        assert!(is_forwarded("judge") && !users.contains("judge"));
    }
}
