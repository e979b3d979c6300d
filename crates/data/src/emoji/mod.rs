//! The embedded emoji: the same pictures in two styles, and what each of them shows.

mod entry;
mod only;
mod source;

use std::{fmt, str::FromStr, sync::OnceLock};

use sdft_imaging::{Limits, Rgb8, decode_bytes};
use serde::{Deserialize, Serialize};

pub use entry::{COLUMN_NAMES, COLUMNS, DIFFERS, EmojiEntry};
pub use only::Only;
pub use source::{EmojiOptions, EmojiSource};

use crate::{DataError, Result};

/// Pictures in a row of an atlas.
const GRID: usize = 60;

/// The style in which an emoji is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmojiStyle {
    /// Google's flat drawings (Noto Emoji): the source domain.
    Noto,
    /// Microsoft's 3D renderings (Fluent Emoji): the target domain.
    Fluent,
}

impl EmojiStyle {
    /// Both styles.
    pub const ALL: [Self; 2] = [Self::Noto, Self::Fluent];
}

impl fmt::Display for EmojiStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noto => "noto",
            Self::Fluent => "fluent",
        })
    }
}

impl FromStr for EmojiStyle {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|s| s.to_string() == text);
        known.ok_or_else(|| DataError::Option {
            option: "style",
            expected: "noto or fluent".to_owned(),
            found: format!("{text:?}"),
        })
    }
}

/// 3,287 emoji, most of them in two styles, with their attributes (Google's Noto Emoji, Apache License 2.0, and Microsoft's Fluent Emoji, MIT
/// License; see `assets/emoji/NOTICE`).
///
/// The pictures of a style are decoded when the first of them is asked for, and kept.
#[derive(Clone, Default)]
pub struct Emoji {
    entries: Vec<EmojiEntry>,
    /// In the order of [`EmojiStyle::ALL`].
    atlases: [OnceLock<Rgb8>; 2],
}

impl Emoji {
    /// Width and height of a picture in pixels.
    pub const SIZE: usize = 32;

    /// The emoji that are embedded in the program.
    ///
    /// # Errors
    /// Never fails with the files that the program is built with.
    pub fn embedded() -> Result<Self> {
        Ok(Self {
            entries: entry::parse(sdft_assets::EMOJI_INDEX)?,
            ..Self::default()
        })
    }

    /// All emoji, in the order of the Unicode standard; each is followed by its tones.
    #[must_use]
    pub fn entries(&self) -> &[EmojiEntry] {
        &self.entries
    }

    /// Emoji `index` in `style`, 32x32 pixels; `None` if the style lacks it or `index` is not below the number of [`entries`](Self::entries).
    #[must_use]
    pub fn picture(&self, index: usize, style: EmojiStyle) -> Option<Rgb8> {
        if !self.entries.get(index)?.has(style) {
            return None;
        }
        let [x, y] = [index % GRID, index / GRID].map(|cell| cell * Self::SIZE);
        let atlas = self.atlas(style).ok()?;
        atlas.crop(x, y, Self::SIZE, Self::SIZE).ok()
    }

    /// The indices of the emoji that `style` has and that fit `only`, in the order of [`entries`](Self::entries). A column without values
    /// accepts all.
    ///
    /// # Errors
    /// Fails if `only` has an unknown column or a value that no emoji has; the error lists what there is.
    pub fn select(&self, style: EmojiStyle, only: &Only) -> Result<Vec<usize>> {
        only::check(only, &self.entries)?;
        let all = self.entries.iter().enumerate();
        let fits = all.filter(|(_, entry)| entry.has(style) && only::fits(only, entry));
        Ok(fits.map(|(i, _)| i).collect())
    }

    /// All pictures of a style.
    fn atlas(&self, style: EmojiStyle) -> Result<&Rgb8> {
        let (atlas, bytes) = match style {
            EmojiStyle::Noto => (&self.atlases[0], sdft_assets::EMOJI_NOTO_PNG),
            EmojiStyle::Fluent => (&self.atlases[1], sdft_assets::EMOJI_FLUENT_PNG),
        };
        if let Some(decoded) = atlas.get() {
            return Ok(decoded);
        }
        let decoded = decode_bytes(bytes, &Limits::default())?;
        let rows = self.entries.len().div_ceil(GRID);
        let expected = [GRID, rows].map(|cells| cells * Self::SIZE);
        if [decoded.width, decoded.height] != expected {
            return Err(DataError::Embedded {
                file: format!("emoji/{style}.png"),
                problem: format!(
                    "expected {}x{} pixels, found {}x{}",
                    expected[0], expected[1], decoded.width, decoded.height
                ),
            });
        }
        Ok(atlas.get_or_init(|| decoded))
    }
}

impl fmt::Debug for Emoji {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decoded = self.atlases.iter().filter(|atlas| atlas.get().is_some());
        f.debug_struct("Emoji")
            .field("entries", &self.entries.len())
            .field("decoded", &decoded.count())
            .finish()
    }
}
