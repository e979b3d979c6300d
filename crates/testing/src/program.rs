//! Runs a program as a user does, in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary folder, and a program that is run in it.
#[derive(Debug)]
pub struct Workspace {
    dir: tempfile::TempDir,
    /// The user's cache folder of the program.
    cache: tempfile::TempDir,
    program: PathBuf,
}

impl Workspace {
    /// An empty folder for the program at this path, such as `env!("CARGO_BIN_EXE_sdft")`.
    ///
    /// # Panics
    /// The folder cannot be created.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            cache: tempfile::tempdir().expect("a temporary folder"),
            program: program.into(),
        }
    }

    /// The path of `name` in the folder; nothing is created.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The user's cache folder of the program.
    pub fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// Writes a file and the folders above it, and returns its path.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder).expect("a folder for the file");
        std::fs::write(&path, bytes).expect("a file to write");
        path
    }

    /// The program with these arguments, to be run in the folder, with an empty user cache at first.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path());
        command.env("XDG_CACHE_HOME", self.cache.path());
        // Messages name the commands of the repository.
        command.env("SDFT_XTASK", "1");
        command
    }

    /// Runs the program with these arguments until it exits.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn run(&self, args: &[&str]) -> Run {
        self.command(args)
            .output()
            .expect("a program to start")
            .into()
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// The exit code; none if a signal ended the program.
    pub code: Option<i32>,
    /// The text on stdout.
    pub out: String,
    /// The text on stderr.
    pub err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// The run itself.
    ///
    /// # Panics
    /// The exit code is not 0.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The run itself.
    ///
    /// # Panics
    /// The exit code is another one, a word is missing on stderr, or the program panicked.
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in {self:?}");
        }
        self
    }
}
