//! Output, errors and exit codes of a command line program.

use std::{
    borrow::Cow,
    fmt::{self, Display},
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

/// An error in how the program was called, with exit code 2 instead of 1.
#[derive(Debug)]
pub struct UsageError(String);

impl Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A [`UsageError`] with this message.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}

/// Standard output was closed, as by `PROGRAM | head`.
#[derive(Debug)]
pub struct OutputClosed;

impl Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Writes a line to standard output.
///
/// # Errors
/// Standard output cannot be written, or is closed ([`OutputClosed`]), which [`exit_code`] treats as success.
pub fn print_line(text: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{}", as_called(&text.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("standard output"),
    }
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    // Nothing can be done if standard error is closed.
    let _ = writeln!(io::stderr(), "{}", as_called(&text.to_string()));
}

/// Is set by `cargo xtask` for the programs that it starts.
const XTASK: &str = "SDFT_XTASK";

/// A text with the commands as the user calls them. Texts name `cargo xtask VERB`; a program that was started by itself, because it is
/// installed, is `sdft VERB`, fetching and publishing is `sdft-fetch`, and preparing data `sdft-prepare`.
pub fn as_called(text: &str) -> Cow<'_, str> {
    match std::env::var_os(XTASK) {
        Some(_) => Cow::Borrowed(text),
        None => installed(text),
    }
}

fn installed(text: &str) -> Cow<'_, str> {
    if !text.contains("cargo xtask ") {
        return Cow::Borrowed(text);
    }
    let text = text
        .replace("cargo xtask fetch", "sdft-fetch")
        .replace("cargo xtask push", "sdft-fetch push")
        .replace("cargo xtask data prepare", "sdft-prepare")
        .replace("cargo xtask ", "sdft ");
    Cow::Owned(text)
}

/// Prints a help text or an error of the arguments, with the commands as the user calls them, and exits. `styled` has colours, for a
/// terminal.
pub fn exit_with(plain: &str, styled: &str, is_error: bool, code: i32) -> ! {
    let text = |is_terminal| as_called(if is_terminal { styled } else { plain });
    // Nothing can be done if the output is closed.
    let _ = match is_error {
        true => write!(io::stderr(), "{}", text(io::stderr().is_terminal())),
        false => write!(io::stdout(), "{}", text(io::stdout().is_terminal())),
    };
    std::process::exit(code)
}

/// Prints the error, if any, and returns the exit code: 0 for success or a closed standard output, 2 for a [`UsageError`], 1 for any other
/// error.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// The long options that a help text lists under `Options:`, sorted. Tests compare them with the options that the program parses.
pub fn listed_options(help: &str) -> Vec<&str> {
    let (_, options) = help.split_once("Options:").unwrap_or_default();
    let (options, _) = options.split_once("\n\n").unwrap_or((options, ""));
    let words = options.split_whitespace();
    let mut names: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_names_itself() {
        let text = "continue with: cargo xtask train --resume x; `cargo xtask fetch lpips-alex`; built by `cargo xtask`";
        assert_eq!(
            installed(text),
            "continue with: sdft train --resume x; `sdft-fetch lpips-alex`; built by `cargo xtask`"
        );
        assert_eq!(installed("cargo xtask push r a/b"), "sdft-fetch push r a/b");
        assert_eq!(installed("cargo xtask data prepare a"), "sdft-prepare a");
        assert_eq!(installed("cargo xtask data check a"), "sdft data check a");
    }

    #[test]
    fn errors_have_their_exit_codes() {
        let code = |result| format!("{:?}", exit_code(result));
        let expected = |n: u8| format!("{:?}", ExitCode::from(n));
        assert_eq!(code(Ok(())), expected(0));
        assert_eq!(code(Err(OutputClosed.into())), expected(0));
        assert_eq!(code(Err(usage("--x: expected a number"))), expected(2));
        assert_eq!(code(Err(anyhow::anyhow!("disk full"))), expected(1));
    }

    #[test]
    fn only_the_options_section_of_a_help_text_counts() {
        let help = "Usage: x --not-this\n\nOptions:\n  --b <N>  A number\n  -a, --a  Text\n\nExamples:\n  x --nor-this\n";
        assert_eq!(listed_options(help), ["--a", "--b"]);
    }
}
