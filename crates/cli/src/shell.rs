//! `completions` and `man`: files for the shell and for `man`.

use crate::args::Cli;
use crate::console;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder of the pages, one for each command.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// The commands of the installed program.
fn command() -> clap::Command {
    Cli::command().bin_name("sdft")
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "sdft", &mut script);
    console::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for each command.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode> {
    let folder = || args.dir.display();
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make the folder {}", folder()))?;
    clap_mangen::generate_to(command(), &args.dir)
        .with_context(|| format!("cannot write into {}", folder()))?;
    console::line(format_args!("pages    {}", folder()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "sdft", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["train-autoencoder", "guide-weight", "report"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("man");
        man(&ManArgs { dir: dir.clone() }).unwrap();
        for name in [
            "sdft.1",
            "sdft-train.1",
            "sdft-edit-apply.1",
            "sdft-report.1",
        ] {
            let page = std::fs::read_to_string(dir.join(name)).unwrap();
            assert!(page.contains(".SH"), "{name}");
        }
        assert!(!dir.join("sdft-missing.1").exists());
    }
}
