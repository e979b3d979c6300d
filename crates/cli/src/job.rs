//! Runs jobs with this program's device, Ctrl-C and console, and prints their errors with its options.

use crate::console::Console;
use crate::device::{asked, device};
use crate::runs::{STOP, listen};
use anyhow::Result;
use candle_core::Device;
use sdft_jobs::{Context, Error};
use sdft_parallel::ProcessGroup;
use sdft_train::NoopProgress;
use std::sync::{Arc, OnceLock};

/// Runs a job on the device of the command line. `label` is the prefix of its progress.
pub(crate) fn job<T>(
    label: &str,
    run: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<T>,
) -> Result<T> {
    job_on(device()?, label, run)
}

/// Runs a job for rank 0 of [`share_with`], without printing anything. It ends when rank 0 ends the work.
pub(crate) fn serving_job(
    run: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<()>,
) -> Result<()> {
    let mut progress = NoopProgress;
    Ok(run(&mut Context {
        precision: asked(),
        group: group(),
        ..Context::new(device()?, &STOP, &mut progress)
    })?)
}

/// The processes that share the images of this process's jobs.
static GROUP: OnceLock<Arc<ProcessGroup>> = OnceLock::new();

/// Shares the images of later jobs with these processes.
pub(crate) fn share_with(group: Arc<ProcessGroup>) {
    // A process belongs to one group.
    let _ = GROUP.set(group);
}

fn group() -> Arc<ProcessGroup> {
    GROUP.get().cloned().unwrap_or_default()
}

/// Runs a job that always computes on the CPU.
pub(crate) fn job_on_cpu<T>(
    label: &str,
    run: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<T>,
) -> Result<T> {
    job_on(Device::Cpu, label, run)
}

fn job_on<T>(
    device: Device,
    label: &str,
    run: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<T>,
) -> Result<T> {
    let mut console = Console::new(label);
    let mut context = Context {
        precision: asked(),
        group: group(),
        on_start: &listen,
        ..Context::new(device, &STOP, &mut console)
    };
    let result = run(&mut context);
    console.finish();
    Ok(result?)
}

/// The options of the command of this process, as fields.
static OPTIONS: OnceLock<Vec<String>> = OnceLock::new();

/// Remembers the options of the command, for error messages.
pub(crate) fn set_options(options: Vec<String>) {
    // A process has one command.
    let _ = OPTIONS.set(options);
}

fn has_option(name: &str) -> bool {
    let mut options = OPTIONS.get().into_iter().flatten();
    options.any(|option| option == name)
}

/// The text of a job's error, with options as they are typed.
pub(crate) fn text_of(error: &Error) -> String {
    with_typed_options(&text_with_fields(error), has_option)
}

/// The text of a job's error, with the fields of its options in backticks.
fn text_with_fields(error: &Error) -> String {
    match error {
        Error::Option { name, problem } => format!("{} {problem}", typed(name)),
        Error::InOption {
            name,
            value,
            source,
        } => format!("{} {value}: {}", typed(name), text_with_fields(source)),
        Error::Output { option, source } => {
            let mut text = source.to_string();
            if source.is_refusal() || matches!(source, sdft_gallery::Error::OtherPlan { .. }) {
                text = format!("{} {text}", typed(option));
            }
            if let Some(what) = source.overwriting()
                && has_option("overwrite")
            {
                text += &format!(", or give --overwrite to {what}");
            }
            text
        }
        Error::Context { context, source } => format!("{context}: {}", text_with_fields(source)),
        other => other.to_string(),
    }
}

/// The option of a field: `--lambda-s` of `lambda_s`, `-n` of `n`.
fn typed(name: &str) -> String {
    let dashes = if name.len() == 1 { "-" } else { "--" };
    format!("{dashes}{}", name.replace('_', "-"))
}

/// A text with every field of an option in backticks replaced by that option. Other words in backticks stay, and so do the fields of a file
/// in the messages of its parser.
fn with_typed_options(text: &str, is_option: impl Fn(&str) -> bool) -> String {
    let of_parser = ["unknown field `", "missing field `", "unknown variant `"];
    if of_parser.iter().any(|words| text.contains(words)) {
        return text.to_owned();
    }
    let (mut typed_text, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('`') {
        typed_text += before;
        rest = match after.split_once('`') {
            Some((word, behind)) if is_option(word) => {
                typed_text += &typed(word);
                behind
            }
            _ => {
                typed_text.push('`');
                after
            }
        };
    }
    typed_text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_jobs_are_named_as_they_are_typed() {
        let error = Error::Context {
            context: "sdedit".to_owned(),
            source: Box::new(Error::Option {
                name: "lambda_s",
                problem: "-1: expected a number, 0 or more".to_owned(),
            }),
        };
        let expected = "sdedit: --lambda-s -1: expected a number, 0 or more";
        assert_eq!(text_of(&error), expected);
        let error = Error::Usage(
            "give `t_edit` and `n`, see `cargo xtask fetch --list`, or rename a`b".to_owned(),
        );
        let is_option = |word: &str| ["t_edit", "n", "seed"].contains(&word);
        let typed = |error: &Error| with_typed_options(&text_with_fields(error), is_option);
        let expected = "give --t-edit and -n, see `cargo xtask fetch --list`, or rename a`b";
        assert_eq!(typed(&error), expected);
        for other in [
            "expected `folders`, or a CSV file",
            "walk: missing field `seed`",
            "unknown field `optim`, expected `seed` or `n`",
        ] {
            assert_eq!(typed(&Error::Usage(other.to_owned())), other);
        }
    }
}
