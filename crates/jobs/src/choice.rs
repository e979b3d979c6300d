//! Settings that are one of several names, the same on the command line and in plans.

use crate::error::{Error, usage};

/// A setting that is one of several named values.
pub trait Choice: Copy + PartialEq + Send + Sync + 'static {
    /// Every value, its name, and a sentence about it; empty where the name is enough.
    const ALL: &'static [(Self, &'static str, &'static str)];

    /// The value's name.
    fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(value, ..)| *value == self);
        known.map_or("", |(_, name, _)| name)
    }

    /// The value of a name.
    ///
    /// # Errors
    /// No value has this name.
    fn named(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|(_, known, _)| *known == name);
        known.map(|(value, ..)| *value).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name, _)| *name).collect();
            usage(format!("{name}: expected one of {}", names.join(", ")))
        })
    }
}

/// Writes and reads choices by name.
macro_rules! by_name {
    ($($choice:ty),+) => {$(
        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::choice::Choice::name(*self))
            }
        }

        impl std::str::FromStr for $choice {
            type Err = $crate::Error;

            fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
                $crate::choice::Choice::named(name)
            }
        }

        impl serde::Serialize for $choice {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_str($crate::choice::Choice::name(*self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $choice {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(from)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use by_name;
