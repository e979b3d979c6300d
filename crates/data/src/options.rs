//! How an image folder is read.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use sdft_imaging::{Depth, Fit, Limits};
use serde::{Deserialize, Serialize};

/// Options of reading a folder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Height and width for the model in pixels.
    pub size: [usize; 2],
    /// Number of channels; `None` for the number that all images share, without alpha, or 3 if they differ.
    pub channels: Option<usize>,
    /// Type of the samples; `None` for the type that all images share, or 8 bits in a set of 8 and 16 bits.
    pub depth: Option<Depth>,
    /// The values that become -1 and 1; `None` for the range that the files state, or else the full range of the type.
    pub range: Option<[f64; 2]>,
    /// How images get the size.
    pub fit: Fit,
    /// The colour under transparent pixels and around padded images.
    pub background: [u8; 3],
    /// What the pages of a file are.
    pub pages: Pages,
    /// A folder with a mask for each image, which states how much its pixels count in the loss.
    pub masks: Option<PathBuf>,
    /// Where the classes of the images are; without it they have none.
    pub classes: Option<ClassesFrom>,
    /// Whether a file that looks like an image and cannot be read is an error; otherwise it is left out and listed in the report.
    pub strict: bool,
    /// Memory limit in bytes: decoded and resized images are cached if they all fit; otherwise each is read when it is used.
    pub cache_bytes: u64,
    /// Largest size of an image file.
    pub limits: Limits,
}

impl FolderOptions {
    /// Options for images of `size` x `size` pixels in the form that the files share: cropped, on white, each page an image, without masks
    /// and classes, not strict, 1 GiB of memory (5,461 8-bit RGB images of 256x256), the default limits.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size: [size, size],
            channels: None,
            depth: None,
            range: None,
            fit: Fit::Crop,
            background: [255; 3],
            pages: Pages::Images,
            masks: None,
            classes: None,
            strict: false,
            cache_bytes: 1 << 30,
            limits: Limits::default(),
        }
    }

    /// Like [`new`](Self::new), for 8-bit RGB images.
    #[must_use]
    pub fn rgb8(size: usize) -> Self {
        Self {
            channels: Some(3),
            depth: Some(Depth::U8),
            ..Self::new(size)
        }
    }
}

/// What the pages of a file are. Files of other formats than TIFF and NumPy's have one page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pages {
    /// Each page is an image.
    #[default]
    Images,
    /// All pages together are one image: their channels follow one another.
    Channels,
    /// Only the first page is used.
    First,
}

/// Where the classes of a folder's images are. In settings it is `folders` or the path of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClassesFrom {
    /// Each subfolder of the folder is a class.
    Folders,
    /// A CSV or JSON file with the label of each image.
    File(PathBuf),
}

impl FromStr for ClassesFrom {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "folders" => Self::Folders,
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for ClassesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folders => f.write_str("folders"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
