//! What a search reads: variables, files, and what programs answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// This machine, or one that a test made up.
pub(crate) struct System<'a> {
    /// The value of an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The root of the file system.
    pub(crate) root: &'a Path,
    /// What a program prints for arguments; `None` if it fails.
    pub(crate) ask: &'a dyn Fn(&Path, &[&str]) -> Option<String>,
}

impl System<'_> {
    /// This machine.
    pub(crate) fn this() -> System<'static> {
        System {
            variable: &|name| std::env::var_os(name),
            root: Path::new("/"),
            ask: &ask,
        }
    }

    /// A path of the file system.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The folder that a variable names.
    pub(crate) fn folder(&self, variable: &str) -> Option<PathBuf> {
        let value = (self.variable)(variable).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    }

    /// The folders that a variable lists.
    pub(crate) fn folders(&self, variable: &str) -> Vec<PathBuf> {
        let list = (self.variable)(variable).unwrap_or_default();
        let folders = std::env::split_paths(&list);
        folders.filter(|f| !f.as_os_str().is_empty()).collect()
    }

    /// A program on the `PATH`.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let name = executable(name);
        let folders = self.folders("PATH").into_iter();
        folders
            .map(|folder| folder.join(&name))
            .find(|path| path.is_file())
    }
}

/// The name of a program's file.
pub(crate) fn executable(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

fn ask(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The first `MAJOR.MINOR` of a text.
pub(crate) fn version_in(text: &str) -> Option<crate::Version> {
    let mut numbers = text.trim_start().split('.');
    let major = numbers.next()?.parse().ok()?;
    let rest = numbers.next()?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major, rest[..end].parse().ok()?))
}
