//! The repository that a model is published in.

use crate::{HubError, Result};

/// The longest owner or name.
const LONGEST: usize = 96;

/// A repository of models, and the branch that receives the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(crate) owner: String,
    pub(crate) name: String,
    /// The branch; the server's default if none.
    pub(crate) revision: Option<String>,
}

impl Target {
    /// Parses `OWNER/NAME`.
    ///
    /// # Errors
    /// The repository or the branch is not a name that the Hub accepts.
    pub fn parse(repository: &str, revision: Option<&str>) -> Result<Self> {
        let wrong = |problem: String| {
            Err(HubError::Target {
                text: repository.to_owned(),
                problem,
            })
        };
        let parts: Vec<&str> = repository.split('/').collect();
        let [owner, name] = parts[..] else {
            return wrong(
                "expected OWNER/NAME, one slash between a user or organization and a name"
                    .to_owned(),
            );
        };
        for (what, part) in [("owner", owner), ("name", name)] {
            if let Some(problem) = problem_of(part) {
                return wrong(format!("the {what} {part:?} {problem}"));
            }
        }
        if let Some(revision) = revision
            && !is_branch(revision)
        {
            return wrong(format!(
                "--revision: expected the name of a branch, found {revision:?}"
            ));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    /// The repository, `OWNER/NAME`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The reference of a file as commands take it: `hf:OWNER/NAME[@REVISION]/PATH`.
    pub(crate) fn reference(&self, path: &str) -> String {
        let revision = self.revision.as_deref().filter(|branch| *branch != "main");
        let revision = revision.map_or_else(String::new, |branch| {
            format!("@{}", branch.replace('/', "%2F"))
        });
        format!("hf:{}{revision}/{path}", self.repository())
    }
}

/// Why the Hub refuses a part of a repository's name.
fn problem_of(part: &str) -> Option<&'static str> {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if part.is_empty() {
        Some("is empty")
    } else if part.len() > LONGEST {
        Some("is longer than 96 characters")
    } else if !part.bytes().all(is_known) {
        Some("has characters other than letters, digits, -, _ and .")
    } else if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
        Some("begins or ends with - or .")
    } else if part.contains("--") || part.contains("..") {
        Some("contains -- or ..")
    } else if part.ends_with(".git") || part.ends_with(".ipynb") {
        Some("ends in .git or .ipynb")
    } else {
        None
    }
}

/// Whether a text can be a branch of git and one segment of an address.
fn is_branch(text: &str) -> bool {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    !text.is_empty()
        && text.bytes().all(is_known)
        && !text.starts_with("refs/")
        && text
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with(['-', '.']) && !part.ends_with('.'))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_owner_and_name() {
        let target = Target::parse("ann/Cats_v1.0", None).unwrap();
        assert_eq!(target.repository(), "ann/Cats_v1.0");
        assert_eq!(target.reference("a.pt"), "hf:ann/Cats_v1.0/a.pt");
        let target = Target::parse("ann/cats", Some("test/two")).unwrap();
        let reference = target.reference("a.pt");
        assert_eq!(reference, "hf:ann/cats@test%2Ftwo/a.pt");
        let read = sdft_assets::HubFile::parse(&reference).unwrap().unwrap();
        assert_eq!(read.revision, "test/two");
        for (text, problem) in [
            ("cats", "OWNER/NAME"),
            ("a/b/c", "OWNER/NAME"),
            ("/cats", "the owner \"\" is empty"),
            ("ann/", "the name \"\" is empty"),
            ("ann/my cats", "other than letters"),
            ("ann/-cats", "begins or ends"),
            ("ann/cats.git", ".git"),
            ("ann/ca--ts", "--"),
            ("https://huggingface.co/ann/cats", "OWNER/NAME"),
        ] {
            let error = Target::parse(text, None).unwrap_err().to_string();
            assert!(
                error.starts_with(text) && error.contains(problem),
                "{error}"
            );
        }
        let long = format!("ann/{}", "x".repeat(97));
        assert!(Target::parse(&long, None).is_err());
        for branch in ["", "a b", "../x", "refs/pr/1", "-x", "a//b"] {
            let error = Target::parse("ann/cats", Some(branch)).unwrap_err();
            assert!(
                error.to_string().contains("--revision"),
                "{branch}: {error}"
            );
        }
    }
}
