//! Where the source model of a run comes from.

use sdft_assets::{HubFile, Remote, RepoType, assets};

use super::{
    names::{cached_file, public},
    run::Run,
};

/// Models that are part of the program.
const EMBEDDED: [&str; 3] = ["digits-source", "digits-dit-source", "emoji-source"];

/// The source model of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// There is none: the weights were random.
    None,
    /// It is part of the program, under this name.
    Embedded(String),
    /// A file of the Hub.
    Hub(HubFile),
    /// A file of another server.
    Web(String),
    /// A file whose origin the plan does not state.
    File(String),
}

impl Origin {
    /// Reads the source model of a plan. A file without a name of the Hub is recognised by its hash, if it is known.
    pub(crate) fn of(run: &Run) -> Self {
        let Some(text) = run.text("source").or_else(|| run.text("init")) else {
            return Self::None;
        };
        if EMBEDDED.contains(&text) {
            return Self::Embedded(text.to_owned());
        }
        if let Some(Ok(file)) = HubFile::parse(text) {
            return Self::Hub(file);
        }
        if let Some(file) = cached_file(text).filter(|file| file.repo_type == RepoType::Model) {
            return Self::Hub(file);
        }
        let hash = run
            .text("source_sha256")
            .or_else(|| run.text("init_sha256"));
        let known = assets()
            .iter()
            .flat_map(|asset| asset.files.iter().map(move |file| (asset, file)));
        let mut known =
            known.filter(|(_, file)| file.sha256.is_some() && file.sha256.as_deref() == hash);
        match known.next().map(|(asset, file)| asset.remote(file)) {
            Some(Remote::Hub(file)) => Self::Hub(file),
            Some(Remote::Web(file)) => Self::Web(file.url),
            None => Self::File(public(text)),
        }
    }

    /// The repository of the Hub.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            // The Hub's oldest repositories have no owner, and its pages do not take them as a base.
            Self::Hub(file) if file.repo.contains('/') => Some(&file.repo),
            _ => None,
        }
    }

    /// The model as a command takes it.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::None => "SOURCE".to_owned(),
            Self::Embedded(name) => name.clone(),
            Self::Hub(file) if file.path.is_empty() => file.repo.clone(),
            Self::Hub(file) => file.to_string(),
            Self::Web(url) => url.rsplit('/').next().unwrap_or(url).to_owned(),
            Self::File(name) => name.clone(),
        }
    }

    /// A description for the card, in Markdown.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::None => "none, the weights were random".to_owned(),
            Self::Embedded(name) => format!("`{name}`, which is part of `sdft`"),
            Self::Hub(file) => {
                let HubFile {
                    repo,
                    revision,
                    path,
                    ..
                } = file;
                let file = if path.is_empty() {
                    String::new()
                } else {
                    format!(", `{path}`")
                };
                format!("[{repo}](https://huggingface.co/{repo}) at `{revision}`{file}")
            }
            Self::Web(url) => format!("<{url}>"),
            Self::File(name) => {
                format!("`{name}` (the plan does not record where it is published)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::run::Verb;

    fn origin(plan: &str) -> Origin {
        Origin::of(&Run {
            verb: Verb::Train,
            plan: toml::from_str(plan).unwrap(),
        })
    }

    #[test]
    fn source_models_are_known_by_place_or_hash() {
        assert_eq!(origin("source = \"\""), Origin::None);
        assert_eq!(
            origin("source = \"emoji-source\""),
            Origin::Embedded("emoji-source".into())
        );
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let path = format!("source = \"/x/models--owner--name/snapshots/{commit}/a.pt\"");
        let found = origin(&path);
        assert_eq!(found.repository(), Some("owner/name"));
        assert!(found.describe().contains(&format!("at `{commit}`, `a.pt`")));
        let with_hash = assets().iter().find(|asset| {
            asset.files[0].sha256.is_some()
                && matches!(asset.remote(&asset.files[0]), Remote::Hub(_))
        });
        let asset = with_hash.unwrap();
        let hash = asset.files[0].sha256.as_deref().unwrap();
        let text = format!("source = \"/home/ann/a.pt\"\nsource_sha256 = \"{hash}\"");
        let found = origin(&text);
        assert!(found.describe().contains(asset.place.origin()), "{found:?}");
        let unknown = origin("source = \"/home/ann/a.pt\"\nsource_sha256 = \"00\"");
        assert_eq!(unknown, Origin::File("a.pt".into()));
        assert_eq!(unknown.repository(), None);
    }
}
