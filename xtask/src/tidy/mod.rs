//! Rules of this repository that no compiler checks. Each failure is one line: where, what is wrong, what to do.

mod docs;
mod layers;
mod links;
mod phrases;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, root};

/// Extensions of files with code or text.
const EXTENSIONS: [&str; 5] = ["rs", "md", "toml", "txt", "py"];

/// Checks the working tree.
pub(crate) fn run() -> Result<ExitCode> {
    let problems = problems(&root(), &metadata()?)?;
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        println!("tidy: {} to fix", problems.len());
        Ok(ExitCode::FAILURE)
    }
}

fn problems(root: &Path, metadata: &str) -> Result<Vec<String>> {
    let packages = layers::packages(metadata)?;
    let mut problems = layers::check(&packages);
    for package in packages
        .iter()
        .filter(|package| package.folder.starts_with("crates/"))
    {
        problems.extend(sources::check_page(&package.folder, |path| {
            read(root, path)
        }));
    }
    let mut equations = Vec::new();
    let mut documents = Vec::new();
    for file in text_files(root)? {
        let path = slashed(file.strip_prefix(root).unwrap_or(&file));
        let text = fs::read_to_string(&file).with_context(|| format!("reading {path}"))?;
        if path.ends_with(".rs") {
            problems.extend(sources::check_calls(&path, &text));
            problems.extend(sources::check_form(&path, &text));
        }
        if path != "xtask/src/tidy/phrases.rs" {
            problems.extend(phrases::check(&path, &text));
        }
        if links::is_document(&path) {
            documents.push(path.clone());
        }
        if path.starts_with("crates/losses/") {
            equations.extend(
                docs::equations(&text)
                    .into_iter()
                    .map(|n| (path.clone(), n)),
            );
        }
    }
    let folders: Vec<&str> = packages
        .iter()
        .map(|package| package.folder.as_str())
        .collect();
    problems.extend(docs::check_map(
        &folders,
        read(root, "docs/ARCHITECTURE.md").as_deref(),
    ));
    problems.extend(docs::check_equations(
        &equations,
        read(root, "docs/EQUATIONS.md").as_deref(),
    ));
    problems.extend(links::check(&documents, &Tree(root)));
    Ok(problems)
}

/// The working tree.
struct Tree<'a>(&'a Path);

impl links::Files for Tree<'_> {
    fn text(&self, path: &str) -> Option<String> {
        read(self.0, path)
    }
    fn exists(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

/// The packages of the workspace as JSON.
fn metadata() -> Result<String> {
    let output = cargo("metadata")
        .args(["--format-version", "1", "--no-deps"])
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("reading cargo metadata")
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

/// Every file with code or text in the working tree, sorted.
fn text_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let context = || format!("listing {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let extension = path.extension().unwrap_or_default();
            // Build outputs, hidden folders, and what users put into the root folder: data, runs, the cache of fuzzing.
            let is_ignored = name.starts_with('.')
                || name == "book" && folder.ends_with("docs/book")
                || ["target", "data", "runs", "shared", "corpus", "artifacts"].contains(&&*name)
                    && (folder == *root || folder.ends_with("fuzz"));
            if path.is_dir() && !path.is_symlink() && !is_ignored {
                folders.push(path);
            } else if path.is_file() && EXTENSIONS.iter().any(|e| *e == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A relative path with `/` on every platform.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
