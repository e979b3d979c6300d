//! Suggestions for an unknown key, and messages without the names of Rust types.

use sdft_files::{similar, suggest};
use std::collections::BTreeSet;
use toml::Value;

/// Names of settings in other programs, and the end of the key here.
const ELSEWHERE: [(&str, &str); 27] = [
    ("adam_epsilon", "eps"),
    ("batch_size", "batch"),
    ("beta_schedule", "noise_schedule"),
    ("checkpointing_steps", "checkpoint_every"),
    ("dataset", "data.path"),
    ("decay", "ema"),
    ("dtype", "precision"),
    ("ema_decay", "ema"),
    ("ema_rate", "ema"),
    ("grad_clip", "clip"),
    ("gradient_accumulation_steps", "micro_batch"),
    ("gradient_checkpointing", "recompute"),
    ("iterations", "steps"),
    ("learning_rate", "lr"),
    ("log_interval", "log_every"),
    ("lr_scheduler", "schedule"),
    ("max_grad_norm", "clip"),
    ("max_steps", "steps"),
    ("max_train_steps", "steps"),
    ("mixed_precision", "precision"),
    ("num_train_timesteps", "diffusion_steps"),
    ("random_flip", "flip"),
    ("resolution", "image_size"),
    ("save_interval", "checkpoint_every"),
    ("train_batch_size", "batch"),
    ("use_checkpoint", "recompute"),
    ("warmup_steps", "warmup"),
];

/// The message about a key or table that is not among `all` keys. `--set` gives keys, a file may give whole tables.
pub(crate) fn unknown(key: &str, value: &Value, all: &[String], in_file: bool) -> String {
    let Value::Table(table) = value else {
        return format!("there is no key {key}{}", suggest(&meant(key, all)));
    };
    let first = table.iter().next();
    if let (Some((inner, value)), false) = (first, in_file) {
        return unknown(&format!("{key}.{inner}"), value, all, in_file);
    }
    let tables: BTreeSet<&str> = all
        .iter()
        .flat_map(|known| known.match_indices('.').map(|(end, _)| &known[..end]))
        .collect();
    let near = similar(key, tables);
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(|table| format!("[{table}]")).collect();
        let near: Vec<&str> = near.iter().map(String::as_str).collect();
        return format!("there is no table [{key}]{}", suggest(&near));
    }
    let inner = table.keys().map(|inner| format!("{key}.{inner}"));
    let near: Vec<String> = inner
        .filter_map(|inner| meant(&inner, all).first().map(|&near| near.to_owned()))
        .collect();
    let near: Vec<&str> = near.iter().map(String::as_str).collect();
    format!("there is no table [{key}]{}", suggest(&near))
}

/// The keys that an unknown one may stand for, best first.
fn meant<'a>(key: &str, all: &'a [String]) -> Vec<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    let (table, last) = key.rsplit_once('.').unwrap_or(("", &key));
    let ending = |end: &str| -> Vec<&'a str> {
        let ends = |known: &&str| {
            let rest = known.strip_suffix(end);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        all.iter().map(String::as_str).filter(ends).collect()
    };
    let alias = ELSEWHERE.iter().find(|(name, _)| *name == last);
    // The right name in the wrong table, or its name in another program.
    let mut same = ending(last);
    same.extend(alias.map_or_else(Vec::new, |(_, end)| ending(end)));
    let nearest = similar(&key, all.iter().map(String::as_str));
    let in_table = |known: &&str| known.rsplit_once('.').is_some_and(|(t, _)| t == table);
    if !same.is_empty() {
        // The same table first.
        same.sort_by_key(|known| (!in_table(known), !nearest.contains(known)));
        same.truncate(4);
        if same.first().is_some_and(in_table) {
            same.truncate(1);
        }
        return same;
    }
    if !nearest.is_empty() {
        return nearest;
    }
    let lasts = all
        .iter()
        .filter_map(|known| known.rsplit('.').next())
        .collect::<BTreeSet<_>>();
    similar(last, lasts).into_iter().flat_map(ending).collect()
}

/// A message about a value without Rust's types: `expected a whole number from 0, found -4`.
pub(crate) fn plain(problem: &str) -> String {
    const TYPES: [(&str, &str); 8] = [
        ("u8", "a whole number from 0 to 255"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0"),
        ("u64", "a whole number from 0"),
        ("usize", "a whole number from 0"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("a boolean", "true or false"),
    ];
    let split = || {
        let (found, expected) = problem.rsplit_once(", expected ")?;
        let found = found
            .strip_prefix("invalid value: ")
            .or_else(|| found.strip_prefix("invalid type: "))?;
        let (_, words) = TYPES.iter().find(|(name, _)| *name == expected)?;
        let value = found.split_once('`').map(|(_, value)| value);
        let value = value.and_then(|value| value.strip_suffix('`'));
        let quoted = found.strip_prefix("string ");
        Some(format!(
            "expected {words}, found {}",
            value.or(quoted).unwrap_or(found)
        ))
    };
    let variant = || {
        let (found, expected) = problem
            .strip_prefix("unknown variant ")?
            .split_once(", expected ")?;
        Some(format!("expected {expected}, found {found}").replace('`', "\""))
    };
    split()
        .or_else(variant)
        .unwrap_or_else(|| problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<String> {
        [
            "data.path",
            "eval.every",
            "eval.samples",
            "loop.batch",
            "loop.steps",
            "model.image_size",
            "optim.betas",
            "optim.clip",
            "optim.ema",
            "optim.lr",
            "output.samples",
            "seed",
        ]
        .map(str::to_owned)
        .into()
    }

    #[test]
    fn keys_are_found_by_name_by_the_name_in_other_programs_and_by_slips() {
        for (slip, meant) in [
            ("lr", "optim.lr"),
            ("LR", "optim.lr"),
            ("optim.lrr", "optim.lr"),
            ("optm.lr", "optim.lr"),
            ("train.lr", "optim.lr"),
            ("learning_rate", "optim.lr"),
            ("optim.learning-rate", "optim.lr"),
            ("batch_size", "loop.batch"),
            ("model.resolution", "model.image_size"),
            ("dataset", "data.path"),
            ("optim.seed", "seed"),
            ("imagesize", "model.image_size"),
            ("evl.samples", "eval.samples or output.samples"),
            ("eval.sample", "eval.samples"),
        ] {
            let message = unknown(slip, &Value::Integer(1), &keys(), false);
            assert_eq!(
                message,
                format!("there is no key {slip}; did you mean {meant}?")
            );
        }
        let message = unknown("qqqqqq", &Value::Integer(1), &keys(), false);
        assert_eq!(message, "there is no key qqqqqq");
    }

    #[test]
    fn values_are_described_without_types_of_rust() {
        for (problem, text) in [
            (
                "invalid value: integer `-4`, expected u64",
                "expected a whole number from 0, found -4",
            ),
            (
                "invalid type: string \"a\", expected u8",
                "expected a whole number from 0 to 255, found \"a\"",
            ),
            (
                "invalid type: sequence, expected f64",
                "expected a number, found sequence",
            ),
            (
                "unknown variant `adam`, expected `adamw` or `sgd`",
                "expected \"adamw\" or \"sgd\", found \"adam\"",
            ),
        ] {
            assert_eq!(plain(problem), text);
        }
    }

    #[test]
    fn tables_of_files_are_found_by_name_or_by_their_content() {
        let table = |text: &str| Value::Table(toml::from_str(text).unwrap());
        let in_file = |name, text| unknown(name, &table(text), &keys(), true);
        let optim = "there is no table [optm]; did you mean [optim]?";
        assert_eq!(in_file("optm", "lr = 1\nclip = 1"), optim);
        assert_eq!(
            in_file("training", "learning_rate = 1"),
            "there is no table [training]; did you mean optim.lr?"
        );
        // As in `--set optm.lr=1`.
        assert_eq!(
            unknown("optm", &table("lr = 1"), &keys(), false),
            "there is no key optm.lr; did you mean optim.lr?"
        );
    }
}
