//! Checks the relative links of the documents: files, headings, and the pages of the book.

use std::collections::BTreeSet;

const SUMMARY: &str = "docs/book/src/SUMMARY.md";
const BOOK: &str = "docs/book/src/";
const INCLUDE: &str = "{{#include ";

/// The files of a repository, by slashed path. Links of the book resolve inside its folder, as in the built book.
pub(super) trait Files {
    /// The text of a file, or `None` if it does not exist or is not a text.
    fn text(&self, path: &str) -> Option<String>;
    /// Whether a file or folder exists.
    fn exists(&self, path: &str) -> bool;
}

/// Whether the links of this file are checked.
pub(super) fn is_document(path: &str) -> bool {
    let in_docs = |rest: &str| rest.ends_with(".md") && !rest.contains('/');
    ["README.md", "CONTRIBUTING.md", "SECURITY.md"].contains(&path)
        || path.strip_prefix("docs/").is_some_and(in_docs)
        || is_page(path)
}

/// Whether this file is a page of the book, or its summary.
fn is_page(path: &str) -> bool {
    path.starts_with(BOOK) && path.ends_with(".md")
}

/// One line for each link in `documents` whose target does not exist, and each page that the summary does not list.
pub(super) fn check(documents: &[String], files: &impl Files) -> Vec<String> {
    let mut problems = Vec::new();
    for path in documents {
        match expanded(path, files) {
            Ok(text) => problems.extend(check_links(path, &text, files)),
            Err(problem) => problems.push(problem),
        }
    }
    let listed: BTreeSet<String> = files
        .text(SUMMARY)
        .iter()
        .flat_map(|text| links(text))
        .filter_map(|link| joined(SUMMARY, &link))
        .collect();
    let unlisted = documents.iter().filter(|path| is_page(path));
    let unlisted = unlisted.filter(|path| *path != SUMMARY && !listed.contains(*path));
    problems.extend(unlisted.map(|path| format!("{path}: not in {SUMMARY}; list it there")));
    problems
}

/// The text of a document, with the documents that it includes.
fn expanded(path: &str, files: &impl Files) -> Result<String, String> {
    let text = files.text(path).unwrap_or_default();
    let mut whole = String::new();
    for line in text.lines() {
        let include = line.strip_prefix(INCLUDE).filter(|_| is_page(path));
        let Some(target) = include.and_then(|rest| rest.strip_suffix("}}")) else {
            whole.extend([line, "\n"]);
            continue;
        };
        let part = joined(path, target).and_then(|target| files.text(&target));
        let part = part.ok_or_else(|| format!("{path}: includes {target}, which does not exist"));
        whole.push_str(&part?);
    }
    Ok(whole)
}

fn check_links(path: &str, text: &str, files: &impl Files) -> Vec<String> {
    let outside = |link: &String| link.contains("://") || link.starts_with("mailto:");
    let mut problems = Vec::new();
    for link in links(text).into_iter().filter(|link| !outside(link)) {
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = match file {
            "" => Some(path.to_owned()),
            _ => joined(path, file).filter(|target| files.exists(target)),
        };
        let Some(target) = target else {
            problems.push(format!("{path}: links to {link}, which does not exist"));
            continue;
        };
        if is_page(path) && !target.starts_with(BOOK) {
            problems.push(format!(
                "{path}: links to {link}, which is not in the book; write its path as code"
            ));
        }
        // The page itself may be an unfinished one with a missing include, which is reported already.
        let has = |text: String| headings(&text).contains(anchor);
        if !anchor.is_empty() && !expanded(&target, files).is_ok_and(has) {
            problems.push(format!(
                "{path}: links to {link}, a heading that does not exist"
            ));
        }
    }
    problems
}

/// The path of a link in the document `from`, or `None` if it leaves the repository.
fn joined(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The targets of all `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let lines: Vec<&str> = prose(text).collect();
    let whole = lines.join("\n");
    // Every second part is between backticks.
    let plain: Vec<&str> = whole.split('`').step_by(2).collect();
    let plain = plain.join("`");
    let targets = plain.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors of all headings, as the hosts of repositories and mdBook derive them.
fn headings(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| -> String {
        let kept = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || "-_".contains(c) => Some(c.to_ascii_lowercase()),
            _ => None,
        };
        heading.trim().chars().filter_map(kept).collect()
    };
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Files for BTreeMap<&str, &str> {
        fn text(&self, path: &str) -> Option<String> {
            self.get(path).map(|text| (*text).to_owned())
        }
        fn exists(&self, path: &str) -> bool {
            let folder = format!("{path}/");
            self.keys()
                .any(|file| *file == path || file.starts_with(&folder))
        }
    }

    fn problems(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let documents = files.iter().map(|(path, _)| (*path).to_owned());
        let documents: Vec<String> = documents.filter(|path| is_document(path)).collect();
        check(
            &documents,
            &files.iter().copied().collect::<BTreeMap<_, _>>(),
        )
    }

    #[test]
    fn links_to_missing_files_and_headings_are_reported() {
        let readme = "# A b\n[x](docs/A.md) [y](docs/A.md#the-end-of-it) [z](#a-b) ![p](i/p.png) [w](https://a.b/c) [f](i)\n\
                      [x](docs/B.md) [y](docs/A.md#begin) [z](#c) ![p](i/q.png) [out](../a.md)\n";
        let files = [
            ("README.md", readme),
            ("docs/A.md", "## The end, of `it`\n"),
            ("i/p.png", ""),
        ];
        assert_eq!(
            problems(&files),
            [
                "README.md: links to docs/B.md, which does not exist",
                "README.md: links to docs/A.md#begin, a heading that does not exist",
                "README.md: links to #c, a heading that does not exist",
                "README.md: links to i/q.png, which does not exist",
                "README.md: links to ../a.md, which does not exist",
            ]
        );
    }

    #[test]
    fn code_has_no_links_and_no_headings() {
        let text = "`a[0](b)` and\n```\n# no heading\n[x](y)\n```\n[z](#no-heading)\n";
        assert_eq!(
            problems(&[("docs/A.md", text)]),
            ["docs/A.md: links to #no-heading, a heading that does not exist"]
        );
    }

    #[test]
    fn pages_are_listed_and_their_includes_exist() {
        let files = [
            ("docs/book/src/SUMMARY.md", "- [A](a.md)\n- [B](r/B.md)\n"),
            ("docs/book/src/a.md", "[b](r/B.md#head)\n"),
            ("docs/book/src/r/B.md", "{{#include ../../../B.md}}\n"),
            ("docs/book/src/c.md", "{{#include ../none.md}}\n"),
            ("docs/B.md", "# Head\n"),
        ];
        assert_eq!(
            problems(&files),
            [
                "docs/book/src/c.md: includes ../none.md, which does not exist",
                "docs/book/src/c.md: not in docs/book/src/SUMMARY.md; list it there",
            ]
        );
    }

    #[test]
    fn links_of_an_included_document_work_in_the_book_too() {
        let files = [
            ("docs/book/src/SUMMARY.md", "[B](r/B.md)\n"),
            ("docs/book/src/r/B.md", "{{#include ../../../B.md}}\n"),
            ("docs/B.md", "![p](../i/p.png) [c](C.md)\n"),
            ("docs/C.md", ""),
            ("i/p.png", ""),
        ];
        assert_eq!(
            problems(&files),
            [
                "docs/book/src/r/B.md: links to ../i/p.png, which does not exist",
                "docs/book/src/r/B.md: links to C.md, which does not exist",
            ]
        );
        let files = [
            ("docs/book/src/SUMMARY.md", "[B](b.md)\n"),
            ("docs/book/src/b.md", "[c](../../C.md)\n"),
            ("docs/C.md", ""),
        ];
        assert_eq!(
            problems(&files),
            [
                "docs/book/src/b.md: links to ../../C.md, which is not in the book; write its path as code"
            ]
        );
    }
}
