//! Rules of the house that no compiler checks. Each failure is one line: where, what is wrong, what to do.

mod docs;
mod layers;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, root};

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
    let mut files = Vec::new();
    for folder in ["crates", "bench", "tests/src", "tests/tests", "xtask"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut equations = Vec::new();
    for file in files {
        let path = slashed(file.strip_prefix(root).unwrap_or(&file));
        let text = fs::read_to_string(&file).with_context(|| format!("reading {path}"))?;
        problems.extend(sources::check_file(&path, &text));
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
    Ok(problems)
}

/// What cargo says about the packages of the workspace.
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

/// Every `.rs` file below `folder`, if there is such a folder.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let context = || format!("listing {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// A relative path with `/` on every platform.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
