//! What a command needs by name, brought here before it starts.
//!
//! The program of the command says what that is and which call brings it, so that nothing here knows about arguments or the network, and
//! the programs that train and prepare never open it.

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

/// Whether the user was told already that something is not here.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Said {
    No,
    Yes,
}

/// `fetch ARGS`. The list needs neither the network nor the program that has it.
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

/// The names of a plain `fetch --list NAME ..`; any other option is for the program that knows it.
fn listed(args: &[String]) -> Option<Vec<String>> {
    let (options, names): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with('-'));
    let is_plain = |option: &&String| ["--list", "--offline"].contains(&option.as_str());
    let asked = options.iter().any(|option| *option == "--list");
    (asked && options.iter().all(is_plain)).then(|| names.into_iter().cloned().collect())
}

/// `data prepare ARGS`.
pub(crate) fn prepare(args: &[String]) -> Result<ExitCode> {
    match preparing(args, Said::No)? {
        Ok(command) => hand_over(command),
        Err(failed) => Ok(failed),
    }
}

/// Fetches what `program` misses when it is asked with these arguments; the exit code if that failed.
///
/// One thing after the other, asking again in between: only a source model that is here says how large its images are.
pub(crate) fn missing<S: AsRef<OsStr>>(
    program: &Path,
    question: impl Iterator<Item = S>,
    said: Said,
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
            // It was brought and is not enough; the command itself says why.
            return Ok(None);
        }
        match (done.is_empty(), said) {
            (true, Said::No) => eprint!("{}", explain(&needs)),
            (true, Said::Yes) => {}
            (false, _) => eprintln!("next, {}: {}", next.name, next.what),
        }
        let mut command = match bring(&next.command) {
            Ok(Ok(command)) => command,
            Ok(Err(failed)) => return Ok(Some(failed)),
            Err(error) => {
                eprintln!("error: {error:#}");
                // The command itself says what it misses and how to provide it.
                return Ok(None);
            }
        };
        // Standard output is that of the command to come.
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

/// The call of a program that brings something.
fn bring(words: &[String]) -> Result<std::result::Result<Command, ExitCode>> {
    match words.split_first() {
        Some((verb, args)) if verb == "prepare" => preparing(args, Said::Yes),
        Some((_, args)) => fetching(args).map(Ok),
        None => anyhow::bail!("a program asked for nothing"),
    }
}

/// Reads the answer; nothing where there is none, or where the network may not be used.
fn needs(answer: &[u8]) -> Vec<Need> {
    match serde_json::from_slice::<Needs>(answer) {
        Ok(answer) if !answer.offline => answer.needs,
        _ => Vec::new(),
    }
}

/// What is missing, how large it is, and what else can be done about it.
fn explain(needs: &[Need]) -> String {
    let mut text = "not here yet:\n".to_owned();
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
        "fetching it, verified and resumable; --offline leaves that out, HF_ENDPOINT names a mirror, HF_HOME the cache folder\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_anything_else_asks_for_nothing() {
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
    fn a_plain_list_is_printed_here_and_anything_else_handed_on() {
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
