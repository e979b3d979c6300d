//! Fetches the files that a command needs by name before the command starts.

// The command's own program reports what is missing and which command fetches it, so this module knows neither arguments nor the network,
// and the programs that train and prepare open no connection.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use sdft_assets::{HubCache, Need, Needs, listing};

use crate::{
    cargo::{exit_code, hand_over},
    forward::{fetching, preparing},
};

/// Whether the missing files were already reported to the user.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Reported {
    No,
    Yes,
}

/// Runs `fetch ARGS`. Only `--list` alone is answered here, without the program and without the network.
pub(crate) fn fetch(args: &[String]) -> Result<ExitCode> {
    match listed(args) {
        Some(names) => match listing(&names, &HubCache::from_environment()?, Path::new("")) {
            Ok(text) => {
                println!("{text}");
                Ok(ExitCode::SUCCESS)
            }
            Err(problem) => {
                eprintln!("error: {problem}");
                Ok(ExitCode::from(crate::USAGE))
            }
        },
        None => hand_over(fetching(args)?),
    }
}

/// Runs `push ARGS`.
pub(crate) fn push(args: &[String]) -> Result<ExitCode> {
    let words = std::iter::once("push").chain(args.iter().map(String::as_str));
    hand_over(fetching(words)?)
}

/// The names in `fetch --list NAME ..` without other options.
fn listed(args: &[String]) -> Option<Vec<String>> {
    let (options, names): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with('-'));
    let is_plain = |option: &&String| ["--list", "--offline"].contains(&option.as_str());
    let asked = options.iter().any(|option| *option == "--list");
    (asked && options.iter().all(is_plain)).then(|| names.into_iter().cloned().collect())
}

/// Runs `data prepare ARGS`.
pub(crate) fn prepare(args: &[String]) -> Result<ExitCode> {
    match preparing(args, Reported::No)? {
        Ok(command) => hand_over(command),
        Err(failed) => Ok(failed),
    }
}

/// Fetches what `program` reports as missing for these arguments; returns an exit code if that fails.
///
/// It fetches one file at a time and asks again, because the size of the images is known only when the source model is in the cache.
pub(crate) fn missing<S: AsRef<OsStr>>(
    program: &Path,
    question: impl Iterator<Item = S>,
    reported: Reported,
) -> Result<Option<ExitCode>> {
    let question: Vec<S> = question.collect();
    let mut done: Vec<Vec<String>> = Vec::new();
    loop {
        let asked = Command::new(program)
            .args(&question)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        let needs = needs(&asked.stdout);
        let Some(next) = needs.first() else {
            return Ok(None);
        };
        if done.contains(&next.command) {
            // It was fetched and is still missing; the command reports why.
            return Ok(None);
        }
        match (done.is_empty(), reported) {
            (true, Reported::No) => eprint!("{}", explain(&needs)),
            (true, Reported::Yes) => {}
            (false, _) => eprintln!("next, {}: {}", next.name, next.what),
        }
        let mut command = match provide(&next.command) {
            Ok(Ok(command)) => command,
            Ok(Err(failed)) => return Ok(Some(failed)),
            Err(error) => {
                eprintln!("error: {error:#}");
                // The command reports what is missing and how to get it.
                return Ok(None);
            }
        };
        // Standard output belongs to the command.
        let status = command
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        if !status.success() {
            return Ok(Some(exit_code(status)));
        }
        done.push(next.command.clone());
    }
}

/// The command that fetches or prepares something.
fn provide(words: &[String]) -> Result<std::result::Result<Command, ExitCode>> {
    match words.split_first() {
        Some((verb, args)) if verb == "prepare" => preparing(args, Reported::Yes),
        Some((_, args)) => fetching(args).map(Ok),
        None => anyhow::bail!("a program reported a missing file without a command"),
    }
}

/// Parses the report of missing files; empty if there is none or the network is disabled.
fn needs(answer: &[u8]) -> Vec<Need> {
    match serde_json::from_slice::<Needs>(answer) {
        Ok(answer) if !answer.offline => answer.needs,
        _ => Vec::new(),
    }
}

/// Describes what is missing, its size, and how to get it without the network.
fn explain(needs: &[Need]) -> String {
    let mut text = "missing files:\n".to_owned();
    for Need {
        name,
        what,
        otherwise,
        ..
    } in needs
    {
        text.push_str(&format!(
            "  {name}: {what}\n    without a network: {otherwise}\n"
        ));
    }
    text.push_str(
        "fetching them, verified and resumable; --offline disables this, HF_ENDPOINT selects a mirror, HF_HOME the cache folder\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_parsed_and_other_output_requests_nothing() {
        let answer = r#"{"offline":false,"needs":[{"name":"a","what":"1 MB","otherwise":"b","command":["fetch","a"]}]}"#;
        let need = Need {
            name: "a".to_owned(),
            what: "1 MB".to_owned(),
            otherwise: "b".to_owned(),
            command: vec!["fetch".to_owned(), "a".to_owned()],
        };
        assert_eq!(needs(answer.as_bytes()), [need]);
        assert!(explain(&needs(answer.as_bytes())).contains("a: 1 MB"));
        for other in [
            "",
            "not json",
            "{}",
            r#"{"offline":true,"needs":[{"name":"a","what":"","otherwise":"","command":[]}]}"#,
            r#"{"offline":false,"needs":[{"name":"a","command":["fetch"]}]}"#,
            r#"{"offline":false,"needs":[{"name":"a","what":"","otherwise":"","command":[1]}]}"#,
        ] {
            assert!(needs(other.as_bytes()).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_plain_list_is_printed_here_and_anything_else_is_forwarded() {
        let listed = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            listed(&args)
        };
        assert_eq!(listed(&["--list"]), Some(Vec::new()));
        let names = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(listed(&["a", "--list", "b", "--offline"]), names);
        for other in [
            &[][..],
            &["a"],
            &["--list", "--all-for", "metfaces"],
            &["--lst"],
        ] {
            assert_eq!(listed(other), None, "{other:?}");
        }
    }
}
