//! What a command needs by name, brought here before it starts.
//!
//! `sdft missing VERB ARGS` says what that is and which call of `sdft-fetch` brings it, so that nothing here knows about arguments, names
//! or the network, and the program that trains never opens it.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{cargo::exit_code, forward::build};

/// Something that is not here.
#[derive(Debug, PartialEq)]
struct Need {
    name: String,
    what: String,
    otherwise: String,
    command: Vec<String>,
}

/// Fetches what is missing; the exit code if that failed.
///
/// One thing after the other, asking anew in between: only a source model that is here says how large its images are.
pub(crate) fn missing(sdft: &Path, verb: &str, args: &[String]) -> Result<Option<ExitCode>> {
    let mut done: Vec<Vec<String>> = Vec::new();
    loop {
        let asked = Command::new(sdft)
            .args(["missing", verb])
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", sdft.display()))?;
        let needs = needs(&String::from_utf8_lossy(&asked.stdout));
        let Some(next) = needs.first() else {
            return Ok(None);
        };
        if done.contains(&next.command) {
            // It was brought and is not enough; the command itself says why.
            return Ok(None);
        }
        match done.is_empty() {
            true => eprint!("{}", explain(&needs)),
            false => eprintln!("next, {}: {}", next.name, next.what),
        }
        let program = match build("sdft-hub", "sdft-fetch", &[]) {
            Ok(program) => program,
            Err(error) => {
                eprintln!("error: {error:#}");
                // The command itself says what it misses and how to provide it.
                return Ok(None);
            }
        };
        // Standard output is that of the command to come.
        let status = Command::new(&program)
            .args(&next.command)
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("starting {}", program.display()))?;
        if !status.success() {
            return Ok(Some(exit_code(status)));
        }
        done.push(next.command.clone());
    }
}

/// Reads the answer; nothing where it is none, or where the network may not be used.
fn needs(answer: &str) -> Vec<Need> {
    let Ok(answer) = serde_json::from_str::<Value>(answer) else {
        return Vec::new();
    };
    if answer["offline"] != false {
        return Vec::new();
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let need = |value: &Value| {
        let words = value["command"].as_array()?;
        Some(Need {
            name: text(&value["name"])?,
            what: text(&value["what"])?,
            otherwise: text(&value["otherwise"])?,
            command: words.iter().map(text).collect::<Option<_>>()?,
        })
    };
    let all = answer["needs"].as_array();
    all.map_or_else(Vec::new, |all| all.iter().filter_map(need).collect())
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
        assert_eq!(needs(answer), [need]);
        assert!(explain(&needs(answer)).contains("a: 1 MB"));
        for other in [
            "",
            "not json",
            "{}",
            r#"{"offline":true,"needs":[{"name":"a","what":"","otherwise":"","command":[]}]}"#,
            r#"{"offline":false,"needs":[{"name":"a","command":["fetch"]}]}"#,
            r#"{"offline":false,"needs":[{"name":"a","what":"","otherwise":"","command":[1]}]}"#,
        ] {
            assert!(needs(other).is_empty(), "{other}");
        }
    }
}
