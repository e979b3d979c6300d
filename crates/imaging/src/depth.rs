//! The type of a picture's samples.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ImagingError;

/// The type of a picture's samples. In settings it is `8`, `16` or `"float"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Depth {
    /// 8 bits, 0 to 255.
    #[default]
    U8,
    /// 16 bits, 0 to 65535.
    U16,
    /// 32-bit floats.
    F32,
}

impl Depth {
    /// The values that become -1 and 1 unless a range is given: all levels of an integer, 0 to 1 for floats.
    #[must_use]
    pub fn full_range(self) -> [f64; 2] {
        match self {
            Self::U8 => [0.0, 255.0],
            Self::U16 => [0.0, 65_535.0],
            Self::F32 => [0.0, 1.0],
        }
    }

    /// Bytes of one sample.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "8",
            Self::U16 => "16",
            Self::F32 => "float",
        })
    }
}

impl FromStr for Depth {
    type Err = ImagingError;

    fn from_str(text: &str) -> Result<Self, ImagingError> {
        match text {
            "8" => Ok(Self::U8),
            "16" => Ok(Self::U16),
            "float" => Ok(Self::F32),
            other => Err(ImagingError::Depth {
                found: other.to_owned(),
            }),
        }
    }
}

impl Serialize for Depth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::U8 => serializer.serialize_u8(8),
            Self::U16 => serializer.serialize_u8(16),
            Self::F32 => serializer.serialize_str("float"),
        }
    }
}

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bits(u64),
            Name(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Bits(bits) => bits.to_string(),
            Written::Name(name) => name,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_a_number_of_bits_or_float_and_nothing_else() {
        for (json, depth) in [
            ("8", Depth::U8),
            ("16", Depth::U16),
            ("\"float\"", Depth::F32),
        ] {
            assert_eq!(serde_json::from_str::<Depth>(json).unwrap(), depth);
            assert_eq!(serde_json::to_string(&depth).unwrap(), json);
            assert_eq!(depth.to_string().parse::<Depth>().unwrap(), depth);
        }
        assert_eq!(serde_json::from_str::<Depth>("\"16\"").unwrap(), Depth::U16);
        let error = serde_json::from_str::<Depth>("12").unwrap_err().to_string();
        assert!(error.contains("12") && error.contains("float"), "{error}");
    }
}
