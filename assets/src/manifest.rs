//! The list of known files, from `manifest.toml`.

use crate::place::HubFile;
use crate::web::WebFile;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const MANIFEST: &str = include_str!("../manifest.toml");

/// A set of files in one place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Asset {
    /// Short and unique, in lower case: `"lpips-alex"`.
    pub name: String,
    /// What it is, in one line.
    pub what: String,
    /// Where the files are.
    pub place: Place,
    /// The files, in order; at least one.
    pub files: Vec<AssetFile>,
    /// How sure it is that the files are there and are what they are said to be.
    pub confidence: Confidence,
    /// The experiments that use it: `"metfaces"`, `"aahq"`.
    pub goals: Vec<String>,
    /// Whether it is a set of classes, prepared as a pair: a source of all of them and a small target.
    pub pair: bool,
    /// The licence as far as it is stated.
    pub licence: String,
    /// What else one should know.
    pub note: Option<String>,
}

impl Asset {
    /// Bytes of all files together, exact or about; files of unknown length count nothing.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(AssetFile::bytes).sum()
    }

    /// Whether it holds images rather than weights.
    pub fn is_images(&self) -> bool {
        matches!(
            self.place,
            Place::Hub {
                repo_type: RepoType::Dataset,
                ..
            }
        )
    }

    /// A file of this asset as a program requests it.
    pub fn remote(&self, file: &AssetFile) -> Remote {
        match &self.place {
            Place::Hub {
                repo_type,
                repo,
                revision,
            } => Remote::Hub(HubFile {
                repo_type: *repo_type,
                repo: repo.clone(),
                revision: revision.clone(),
                path: file.path.clone(),
            }),
            Place::Web { url } => Remote::Web(WebFile {
                url: format!("{url}/{}", file.path),
            }),
        }
    }

    /// The path that a command takes in place of the name, from the paths of all files: the first file, or the folder of a model that
    /// diffusers saved, which has its configuration next to its weights.
    pub fn path_of_model(&self, paths: &[PathBuf]) -> Option<PathBuf> {
        let named = |name: &str| {
            let mut files = self.files.iter().zip(paths);
            files.find_map(|(file, path)| {
                let is_it = file.path.rsplit('/').next() == Some(name);
                is_it.then(|| path.parent().map(Path::to_owned)).flatten()
            })
        };
        let folder = named("model_index.json").or_else(|| named("config.json"));
        folder.or_else(|| paths.first().cloned())
    }
}

/// Where the files of an asset are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A repository of the Hub.
    Hub {
        /// The kind of repository.
        repo_type: RepoType,
        /// The repository, `owner/name`, or `name` alone for the Hub's oldest ones.
        repo: String,
        /// A commit (40 hexadecimal digits), `"main"`, `"refs/pr/N"` for a pull request, or `"refs/convert/parquet"`.
        revision: String,
    },
    /// A folder of a web server.
    Web {
        /// Its address, which begins with `https://` and has no slash at the end.
        url: String,
    },
}

impl Place {
    /// The repository or the address, without the revision.
    pub fn origin(&self) -> &str {
        match self {
            Self::Hub { repo, .. } => repo,
            Self::Web { url } => url,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision, .. } => write!(f, "{repo} at {revision}"),
            Self::Web { url } => f.write_str(url),
        }
    }
}

/// A file on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file of the Hub.
    Hub(HubFile),
    /// A file of another server.
    Web(WebFile),
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(file) => file.fmt(f),
            Self::Web(file) => file.fmt(f),
        }
    }
}

/// An entry of the manifest: `repo` and `revision`, or `url`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    what: String,
    repo: Option<String>,
    repo_type: Option<RepoType>,
    revision: Option<String>,
    url: Option<String>,
    files: Vec<AssetFile>,
    confidence: Confidence,
    #[serde(default, rename = "for")]
    goals: Vec<String>,
    #[serde(default)]
    pair: bool,
    licence: String,
    note: Option<String>,
}

impl TryFrom<Entry> for Asset {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let place = match (entry.repo, entry.revision, entry.repo_type, entry.url) {
            (Some(repo), Some(revision), repo_type, None) => Place::Hub {
                repo_type: repo_type.unwrap_or_default(),
                repo,
                revision,
            },
            (None, None, None, Some(url)) => Place::Web { url },
            _ => {
                return Err(format!(
                    "{}: expected repo and revision, or url",
                    entry.name
                ));
            }
        };
        Ok(Self {
            name: entry.name,
            what: entry.what,
            place,
            files: entry.files,
            confidence: entry.confidence,
            goals: entry.goals,
            pair: entry.pair,
            licence: entry.licence,
            note: entry.note,
        })
    }
}

/// How sure an entry of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The page of the repository shows the file, or the page of those who made it links to it.
    Seen,
    /// Programs that load the file name it.
    Named,
    /// What the file holds is concluded from its size or its neighbours.
    Inferred,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seen => "seen",
            Self::Named => "named",
            Self::Inferred => "inferred",
        })
    }
}

/// What a repository of the Hub holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoType {
    /// Weights.
    #[default]
    Model,
    /// Data.
    Dataset,
}

/// One file of an [`Asset`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetFile {
    /// Its path in the repository, with `/`.
    pub path: String,
    /// Its length in bytes, where it is known.
    pub size: Option<u64>,
    /// Its length in bytes, rounded, where no more is known.
    pub about: Option<u64>,
    /// Its hash as 64 hexadecimal digits in lower case, where it is known.
    pub sha256: Option<String>,
}

impl AssetFile {
    /// Its length in bytes, exact or about.
    pub fn bytes(&self) -> Option<u64> {
        self.size.or(self.about)
    }
}

/// Something that no program can download.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Short and unique, also among the assets.
    pub name: String,
    /// What it is, in one line.
    pub what: String,
    /// Where it goes, relative to the working directory: a file of weights, or a folder of images.
    pub file: String,
    /// How to get it; an instruction that reads on: "download ..".
    pub how: String,
    /// The experiments that use it.
    #[serde(default, rename = "for")]
    pub goals: Vec<String>,
    /// The licence as far as it is stated.
    pub licence: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    asset: Vec<Asset>,
    elsewhere: Vec<Elsewhere>,
}

// The text is part of the program and a test reads it, so the default is never taken.
static KNOWN: LazyLock<Manifest> = LazyLock::new(|| toml::from_str(MANIFEST).unwrap_or_default());

/// All assets, in the order of the manifest.
pub fn assets() -> &'static [Asset] {
    &KNOWN.asset
}

/// What is known by name but cannot be downloaded by a program, in the order of the manifest.
pub fn elsewhere() -> &'static [Elsewhere] {
    &KNOWN.elsewhere
}

/// The names of all assets, and of those that cannot be downloaded by a program.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    let others = elsewhere().iter().map(|known| known.name.as_str());
    assets()
        .iter()
        .map(|asset| asset.name.as_str())
        .chain(others)
}

/// The asset of this name.
pub fn asset(name: &str) -> Option<&'static Asset> {
    assets().iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn is_hex(text: &str, len: usize) -> bool {
        text.len() == len
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }

    /// Words that mean the same to every shell and every file system.
    fn is_plain(text: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let parts = || text.split('/');
        !text.is_empty()
            && text.chars().all(is_plain)
            && parts().all(|part| !["", ".", ".."].contains(&part))
    }

    #[test]
    fn the_embedded_manifest_is_read() {
        toml::from_str::<Manifest>(MANIFEST).unwrap();
        assert!(!assets().is_empty() && !elsewhere().is_empty());
        for name in [
            "inception",
            "lpips-alex",
            "lpips-vgg",
            "clip-b32",
            "irse50",
            "metfaces",
        ] {
            assert!(asset(name).is_some(), "{name}");
        }
        assert!(asset("metfaces").unwrap().is_images());
        assert!(!asset("inception").unwrap().is_images());
        assert!(asset("aahq").is_none());
    }

    #[test]
    fn names_are_unique_and_short() {
        let names: Vec<&str> = assets()
            .iter()
            .map(|asset| asset.name.as_str())
            .chain(elsewhere().iter().map(|known| known.name.as_str()))
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(!name.is_empty() && name.chars().all(is_plain), "{name}");
        }
    }

    #[test]
    fn places_are_well_formed() {
        for asset in assets() {
            let name = &asset.name;
            match &asset.place {
                Place::Hub { repo, revision, .. } => {
                    assert!(is_plain(repo) && repo.split('/').count() <= 2, "{name}");
                    let pull_request = revision.strip_prefix("refs/pr/");
                    let is_pull_request = pull_request.is_some_and(|n| n.parse::<u32>().is_ok());
                    assert!(
                        is_hex(revision, 40)
                            || ["main", "refs/convert/parquet"].contains(&revision.as_str())
                            || is_pull_request,
                        "{name}"
                    );
                }
                Place::Web { url } => {
                    let path = url.strip_prefix("https://");
                    assert!(path.is_some_and(is_plain), "{name}: {url}");
                    for file in &asset.files {
                        let Remote::Web(file) = asset.remote(file) else {
                            panic!("{name}");
                        };
                        file.check().unwrap();
                    }
                }
            }
            assert!(!asset.files.is_empty(), "{name}");
            for file in &asset.files {
                assert!(is_plain(&file.path), "{name}: {}", file.path);
                assert!(file.bytes() != Some(0), "{name}");
                assert!(file.size.is_none() || file.about.is_none(), "{name}");
                assert!(
                    file.sha256.as_ref().is_none_or(|hash| is_hex(hash, 64)),
                    "{name}"
                );
            }
            let paths: BTreeSet<_> = asset.files.iter().map(|file| &file.path).collect();
            assert_eq!(paths.len(), asset.files.len(), "{name}");
        }
    }

    #[test]
    fn what_is_elsewhere_goes_into_the_folders_of_its_kind() {
        for known in elsewhere() {
            let (folder, file) = known.file.split_once('/').unwrap();
            assert!(is_plain(&known.file), "{}", known.name);
            assert!(["checkpoints", "data"].contains(&folder), "{}", known.name);
            assert!(!file.contains('/'), "{}", known.name);
        }
    }

    #[test]
    fn everything_is_explained_in_one_line() {
        let texts = assets().iter().flat_map(|asset| {
            let note = asset.note.as_ref();
            [&asset.what, &asset.licence].into_iter().chain(note)
        });
        let others = elsewhere()
            .iter()
            .flat_map(|known| [&known.what, &known.how, &known.licence]);
        for text in texts.chain(others) {
            assert!(!text.trim().is_empty() && !text.contains('\n'), "{text:?}");
        }
    }

    #[test]
    fn a_model_with_its_configuration_is_a_folder() {
        let at = |name: &str| {
            let asset = asset(name).unwrap();
            let paths = asset
                .files
                .iter()
                .map(|file| Path::new("/c").join(&file.path));
            asset.path_of_model(&paths.collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(at("ddpm-celebahq-256"), Path::new("/c"));
        assert_eq!(at("ffhq-10m-safetensors"), Path::new("/c/ffhq-256/unet"));
        assert_eq!(at("imagenet-256-diffusers"), Path::new("/c"));
        assert_eq!(at("clip-b32"), Path::new("/c/model.safetensors"));
        assert_eq!(
            at("edm-ffhq-64"),
            Path::new("/c/edm-ffhq-64x64-uncond-vp.pkl")
        );
    }

    #[test]
    fn an_entry_is_in_one_place() {
        let entry = |place: &str| {
            let text = format!(
                "elsewhere = []\n[[asset]]\nname = 'a'\nwhat = 'b'\n{place}\nconfidence = 'seen'\nlicence = ''\nfiles = []"
            );
            toml::from_str::<Manifest>(&text).map(drop)
        };
        assert!(entry("repo = 'c/d'\nrevision = 'main'").is_ok());
        assert!(entry("url = 'https://c.d'").is_ok());
        for place in [
            "",
            "repo = 'c/d'",
            "repo = 'c/d'\nrevision = 'main'\nurl = 'https://c.d'",
            "url = 'https://c.d'\nrepo_type = 'model'",
        ] {
            let error = entry(place).unwrap_err().to_string();
            assert!(
                error.contains("expected repo and revision, or url"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        let text = "elsewhere = []\n[[asset]]\nname = 'a'\nwhat = 'b'\nrepo = 'c/d'\nrevision = 'main'\nconfidence = 'seen'\nlicence = ''\nfile = []";
        assert!(toml::from_str::<Manifest>(&text.replace("file =", "files =")).is_ok());
        assert!(toml::from_str::<Manifest>(text).is_err());
    }
}
