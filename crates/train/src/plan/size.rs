//! Height and width of images.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// The longest side of an image.
const MOST_SIDE: usize = 1 << 14;

/// Height and width of images in pixels. In settings it is `256` or `"192x256"`: height first, as in shapes of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Size {
    /// Images of this height and width.
    #[must_use]
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// `[height, width]`.
    #[must_use]
    pub fn sides(self) -> [usize; 2] {
        [self.height, self.width]
    }

    fn checked(height: usize, width: usize) -> Option<Self> {
        let fits = |side| (1..=MOST_SIDE).contains(&side);
        (fits(height) && fits(width)).then_some(Self { height, width })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.height == self.width {
            true => write!(f, "{}", self.height),
            false => write!(f, "{}x{}", self.height, self.width),
        }
    }
}

/// A text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a side such as 256, or HEIGHTxWIDTH such as 192x256, up to {MOST_SIDE}, found {found}"
)]
pub struct SizeError {
    found: String,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let side = |text: &str| text.trim().parse::<usize>().ok();
        let size = match text.split_once(['x', 'X']) {
            None => side(text).map(|side| [side, side]),
            Some((height, width)) => side(height).zip(side(width)).map(Into::into),
        };
        size.and_then(|[height, width]| Self::checked(height, width))
            .ok_or_else(|| SizeError {
                found: format!("{text:?}"),
            })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.height == self.width {
            true => self.height.serialize(serializer),
            false => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Side(i64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer) {
            Ok(Written::Side(side)) => side.to_string(),
            Ok(Written::Text(text)) => text,
            Err(_) => {
                return Err(D::Error::custom(
                    "expected a side such as 256, or HEIGHTxWIDTH such as \"192x256\"",
                ));
            }
        };
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Size, toml::de::Error> {
        Size::deserialize(toml::de::ValueDeserializer::parse(text)?)
    }

    #[test]
    fn a_size_is_a_side_or_height_and_width() {
        for (text, size) in [
            ("256", Size::new(256, 256)),
            ("\"256\"", Size::new(256, 256)),
            ("\"192x256\"", Size::new(192, 256)),
        ] {
            assert_eq!(read(text).unwrap(), size);
        }
        for text in ["0", "-1", "\"16x\"", "\"0x16\"", "\"big\"", "1.5", "99999"] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("HEIGHTxWIDTH"), "{text}: {message}");
        }
        assert_eq!(Size::new(24, 16).to_string(), "24x16");
        assert_eq!(Size::new(16, 16).to_string(), "16");
    }
}
