//! Runs cargo and programs built by it.

use std::{
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the package's folder for a program that it runs; a program started by hand uses the folder it was built in.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), PathBuf::from)
}

/// The command `cargo VERB` for this workspace.
///
/// The working directory does not change, so relative paths in arguments and in `CARGO_TARGET_DIR` keep their meaning.
pub(crate) fn cargo(verb: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .arg(verb)
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"));
    command
}

/// Replaces this process with `command`, or runs it and returns its exit code.
///
/// On Unix this process is replaced, so signals of the terminal reach only the program and the caller gets its exit code. Ctrl-C in a
/// training run therefore saves and exits with 130.
pub(crate) fn hand_over(mut command: Command) -> Result<ExitCode> {
    // The programs then name their commands as the user calls them.
    command.env("SDFT_XTASK", "1");
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let error = command.exec();
        Err(error).with_context(|| format!("starting {}", command.get_program().display()))
    }
    #[cfg(not(unix))]
    {
        let status = command
            .status()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(exit_code(status))
    }
}

/// The exit code of a program; 128 + n if signal n ended it, as in shells.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal = None;
    let code = status.code().or_else(|| signal.map(|n: i32| 128 + n));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
