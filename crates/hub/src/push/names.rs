//! Names in place of paths of this machine.

use sdft_assets::{HubFile, RepoType, is_commit};

/// A text of a plan or a configuration as it may be published: an absolute path becomes its last part, and a path in the cache of the Hub the
/// file of the Hub. In `NAME=PATH` the path is replaced. Other texts stay.
pub(crate) fn public(text: &str) -> String {
    if let Some(file) = cached_file(text) {
        return file.to_string();
    }
    if is_local(text) {
        let parts = text.rsplit(['/', '\\']);
        let mut named = parts.filter(|part| !["", ".", "..", "~"].contains(part));
        return named.next().unwrap_or("a folder").to_owned();
    }
    match text.split_once('=') {
        Some((name, path)) if is_local(path) => format!("{name}={}", public(path)),
        _ => text.to_owned(),
    }
}

/// Whether a text is a path that begins at the root, a drive, the home folder, or the working directory.
fn is_local(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_slash = |at: usize| bytes.get(at).is_some_and(|b| [b'/', b'\\'].contains(b));
    let has_drive =
        bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.get(1) == Some(&b':');
    is_slash(0)
        || has_drive && is_slash(2)
        || ["~", ".", ".."].contains(&text)
        || text.starts_with("file:")
        || ["~", ".", ".."]
            .iter()
            .any(|start| text.starts_with(start) && is_slash(start.len()))
}

/// The file of the Hub that a path in the official client's cache stands for; its path is empty for the folder of the repository.
pub(crate) fn cached_file(text: &str) -> Option<HubFile> {
    let parts: Vec<&str> = text.split(['/', '\\']).collect();
    let at = parts.iter().position(|part| *part == "snapshots")?;
    let (repo_type, repo) = ["models--", "datasets--"]
        .into_iter()
        .zip([RepoType::Model, RepoType::Dataset])
        .find_map(|(prefix, repo_type)| {
            let repo = parts.get(at.checked_sub(1)?)?.strip_prefix(prefix)?;
            Some((repo_type, repo.replace("--", "/")))
        })?;
    let commit = parts.get(at + 1).filter(|commit| is_commit(commit))?;
    Some(HubFile {
        repo_type,
        repo,
        revision: (*commit).to_owned(),
        path: parts[at + 2..].join("/"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_this_machine_become_names_and_other_texts_stay() {
        for (text, expected) in [
            ("/home/ann/photos/cats", "cats"),
            ("/home/ann/photos/cats/", "cats"),
            ("C:\\Users\\ann\\cats", "cats"),
            ("D:/cats.pt", "cats.pt"),
            ("\\\\server\\share\\cats", "cats"),
            ("~/cats", "cats"),
            ("../../ann/cats", "cats"),
            ("./cats", "cats"),
            ("file:///home/ann/cats", "cats"),
            ("/", "a folder"),
            (
                "clip-b16=/home/ann/clip.safetensors",
                "clip-b16=clip.safetensors",
            ),
            ("digits-source", "digits-source"),
            ("snr-3", "snr-3"),
            (
                "a photo of a man and/or a woman",
                "a photo of a man and/or a woman",
            ),
            ("hf:owner/name/a.pt", "hf:owner/name/a.pt"),
            ("gender=man", "gender=man"),
            ("", ""),
        ] {
            assert_eq!(public(text), expected, "{text}");
        }
    }

    #[test]
    fn files_of_the_cache_are_files_of_the_hub() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let path = format!("/home/ann/hub/models--owner--name/snapshots/{commit}/unet/a.pt");
        assert_eq!(public(&path), format!("hf:owner/name@{commit}/unet/a.pt"));
        let folder = format!("/x/models--owner--name/snapshots/{commit}");
        assert_eq!(public(&folder), format!("hf:owner/name@{commit}/"));
        let set = format!("C:\\x\\datasets--owner--name\\snapshots\\{commit}\\a");
        assert_eq!(public(&set), format!("hf:datasets/owner/name@{commit}/a"));
        assert_eq!(public("/x/models--owner--name/snapshots/main/a.pt"), "a.pt");
        assert_eq!(public("/snapshots"), "snapshots");
    }
}
