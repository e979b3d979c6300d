//! References to files of the Hub.

use crate::cache::is_commit;
use crate::error::{Error, Result};
use crate::manifest::RepoType;
use std::fmt;

/// One file of a repository of the Hub, written `hf:OWNER/NAME[@REVISION]/PATH`.
///
/// Data sets begin with `hf:datasets/`. The revision is `main` if it is not given; one with a slash is written `refs/pr/4`,
/// `refs/convert/parquet`, or with `%2F` for the slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// The kind of repository.
    pub repo_type: RepoType,
    /// The repository, `owner/name`.
    pub repo: String,
    /// A commit, a branch, a tag or a reference.
    pub revision: String,
    /// The file's path in the repository, with `/`.
    pub path: String,
}

impl HubFile {
    /// The prefix of references.
    pub const PREFIX: &'static str = "hf:";

    /// Parses a text; none if it does not start with `hf:`.
    ///
    /// # Errors
    /// The text is not a valid reference.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        let rest = text.strip_prefix(Self::PREFIX)?;
        Some(Self::after_prefix(rest).map_err(|problem| Error::Location {
            text: text.to_owned(),
            problem,
        }))
    }

    fn after_prefix(rest: &str) -> std::result::Result<Self, String> {
        let rest = rest.trim_start_matches('/');
        let (repo_type, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (RepoType::Dataset, rest),
            None => (
                RepoType::Model,
                rest.strip_prefix("models/").unwrap_or(rest),
            ),
        };
        let mut parts = rest.splitn(3, '/');
        let (Some(owner), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("found no path of a file".to_owned());
        };
        let (name, revision, path) = match name.split_once('@') {
            None => (name, "main".to_owned(), path),
            // A reference continues after the slash that seemed to start the path.
            Some((name, "refs")) => {
                let mut parts = path.splitn(3, '/');
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(kind @ ("pr" | "convert")), Some(last), Some(path)) => {
                        (name, format!("refs/{kind}/{last}"), path)
                    }
                    _ => {
                        return Err("found refs without pr/N or convert/NAME and a path".to_owned());
                    }
                }
            }
            Some((name, revision)) => {
                (name, revision.replace("%2F", "/").replace("%2f", "/"), path)
            }
        };
        for (what, text) in [("owner", owner), ("name", name)] {
            if !is_plain(text) {
                return Err(format!("found the {what} {text:?}"));
            }
        }
        let file = Self {
            repo_type,
            repo: format!("{owner}/{name}"),
            // Commits are in lower case in paths.
            revision: match is_commit(&revision) {
                true => revision.to_ascii_lowercase(),
                false => revision,
            },
            path: path.to_owned(),
        };
        file.problem().map_or(Ok(file), Err)
    }

    /// The problem with a part that could leave the repository's folder or has a meaning for a server.
    fn problem(&self) -> Option<String> {
        let parts = [
            ("repository", &self.repo),
            ("revision", &self.revision),
            ("path", &self.path),
        ];
        let wrong = parts.into_iter().find(|(_, text)| !is_plain(text));
        wrong.map(|(what, text)| format!("found the {what} {text:?}"))
    }

    /// Fails unless the parts are plain: no empty part, no `.` or `..`, no character with a meaning for a server.
    ///
    /// # Errors
    /// The first part that is not plain.
    pub fn check(&self) -> Result<()> {
        match self.problem() {
            None => Ok(()),
            Some(problem) => Err(Error::Location {
                text: self.to_string(),
                problem,
            }),
        }
    }

    /// The command of the official client that downloads it.
    pub(crate) fn command(&self) -> String {
        let mut command = format!("hf download {} {}", self.repo, self.path);
        if self.repo_type == RepoType::Dataset {
            command.push_str(" --repo-type dataset");
        }
        command + " --revision " + &self.revision
    }
}

/// Whether a part means the same to every file system and server.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(['\\', '?', '#', '%', '\0'])
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| !["", ".", ".."].contains(&part))
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        if self.repo_type == RepoType::Dataset {
            f.write_str("datasets/")?;
        }
        f.write_str(&self.repo)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        write!(f, "/{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> HubFile {
        HubFile::parse(text).unwrap().unwrap()
    }

    #[test]
    fn places_are_read_and_written_again() {
        for text in [
            "hf:a/b/c.pt",
            "hf:a/b@v1.0/c/d.pt",
            "hf:datasets/a/b@refs/convert/parquet/c/0000.parquet",
            "hf:a/b@refs/pr/4/model.safetensors",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        let file = read("hf://datasets/a/b@refs%2Fpr%2F15/x/y.zip");
        assert_eq!(file.repo_type, RepoType::Dataset);
        assert_eq!((file.repo.as_str(), file.path.as_str()), ("a/b", "x/y.zip"));
        assert_eq!(file.revision, "refs/pr/15");
        assert_eq!(read("hf:a/b@feature%2Fx/c").revision, "feature/x");
        let commit = "AB".repeat(20);
        assert_eq!(
            read(&format!("hf:a/b@{commit}/c")).revision,
            commit.to_lowercase()
        );
        let mut outside = read("hf:a/b/c");
        outside.check().unwrap();
        outside.path = "d/../../c".to_owned();
        assert!(outside.check().is_err());
    }

    #[test]
    fn other_texts_are_left_alone_and_wrong_ones_explained() {
        assert!(HubFile::parse("ffhq-10m").is_none());
        for (text, problem) in [
            ("hf:a/b", "no path"),
            ("hf:a/b/../c", "the path \"../c\""),
            ("hf:a/b@/c", "the revision \"\""),
            ("hf:../b/c", "the owner \"..\""),
            ("hf:a/b@refs/tags/c", "refs without"),
            ("hf:a/b//c", "the path \"/c\""),
            ("hf:a/b/c?d", "the path"),
        ] {
            let error = HubFile::parse(text).unwrap().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.starts_with(text), "{error}");
        }
    }
}
