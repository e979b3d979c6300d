//! Arguments of `edit`, as if they were typed.

use super::args::{EditApplyArgs, EditArgs, EditTrainArgs, EditVerb};
use crate::args::{Cli, Verb};
use anyhow::{Result, bail};

/// Those of `edit train`.
pub(crate) fn train(words: &[&str]) -> Result<Box<EditTrainArgs>> {
    match parsed("train", words)? {
        Some(EditVerb::Train(args)) => Ok(args),
        _ => bail!("edit train: other arguments were expected"),
    }
}

/// Those of `edit apply`.
pub(crate) fn apply(words: &[&str]) -> Result<Box<EditApplyArgs>> {
    match parsed("apply", words)? {
        Some(EditVerb::Apply(args)) => Ok(args),
        _ => bail!("edit apply: other arguments were expected"),
    }
}

fn parsed(verb: &str, words: &[&str]) -> Result<Option<EditVerb>> {
    let all = ["sdft", "edit", verb]
        .into_iter()
        .chain(words.iter().copied());
    match Cli::from_words(all)?.verb {
        Verb::Edit(EditArgs { verb }) => Ok(verb),
        _ => bail!("edit: other arguments were expected"),
    }
}
