//! Where data sets that were prepared are.

use crate::manifest::{Asset, asset};
use std::path::{Path, PathBuf};

/// The index of a prepared set; a folder that has it is complete.
pub const INDEX: &str = "index.jsonl";

/// The ending of the target's name of a pair.
const TARGET: &str = "-target";

/// A data set of the list, and the folder that it is prepared into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// The asset.
    pub asset: &'static Asset,
    /// The folder of images, relative to the working directory.
    pub folder: PathBuf,
    /// Side of the images.
    pub size: usize,
}

impl ImageSet {
    /// Side of the images of pairs.
    pub const PAIR_SIZE: usize = 32;

    /// The data set of this name with images of this size: `metfaces`, or `mnist` and `mnist-target` for the two sides of a pair.
    pub fn named(name: &str, size: usize) -> Option<Self> {
        if let Some(asset) = asset(name).filter(|asset| asset.is_images()) {
            return Some(match asset.pair {
                true => Self::half(asset, "source"),
                false => Self {
                    asset,
                    folder: Path::new("data").join(format!("{name}-{size}")),
                    size,
                },
            });
        }
        let asset = asset(name.strip_suffix(TARGET)?)?;
        asset.pair.then(|| Self::half(asset, "target"))
    }

    fn half(asset: &'static Asset, side: &str) -> Self {
        let folder = format!("{}-{}", asset.name, Self::PAIR_SIZE);
        Self {
            asset,
            folder: Path::new("data").join(folder).join(side),
            size: Self::PAIR_SIZE,
        }
    }

    /// Whether the set was prepared, below this working directory.
    pub fn is_here(&self, directory: &Path) -> bool {
        directory.join(&self.folder).join(INDEX).is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_a_folder_for_each_size_and_pairs_two() {
        let folder = |name: &str| ImageSet::named(name, 64).map(|set| set.folder);
        assert_eq!(folder("metfaces").unwrap(), Path::new("data/metfaces-64"));
        assert_eq!(folder("mnist").unwrap(), Path::new("data/mnist-32/source"));
        assert_eq!(
            folder("mnist-target").unwrap(),
            Path::new("data/mnist-32/target")
        );
        for name in ["metfaces-target", "ffhq-10m", "aahq", "x-target", "-target"] {
            assert_eq!(folder(name), None, "{name}");
        }
    }

    #[test]
    fn a_set_is_here_when_its_index_is() {
        let directory = tempfile::tempdir().unwrap();
        let set = ImageSet::named("metfaces", 64).unwrap();
        let folder = directory.path().join(&set.folder);
        std::fs::create_dir_all(&folder).unwrap();
        assert!(!set.is_here(directory.path()));
        std::fs::write(folder.join(INDEX), "").unwrap();
        assert!(set.is_here(directory.path()));
    }
}
