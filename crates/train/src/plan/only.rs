//! The table `only`: which of the embedded emoji are taken.

use sdft_data::{COLUMN_NAMES, Only};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny},
};
use std::collections::BTreeMap;

/// The values that are accepted in columns of the emoji's index, such as `kind = ["portrait"]`. In settings, one value needs no brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct OnlyPlan(pub Only);

impl<'de> Deserialize<'de> for OnlyPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Accepted {
            One(String),
            Many(Vec<String>),
            // Refused after the column, whose name is checked first.
            Other(IgnoredAny),
        }
        let mut only = Only::new();
        for (column, accepted) in BTreeMap::<String, Accepted>::deserialize(deserializer)? {
            if !COLUMN_NAMES.contains(&column.as_str()) {
                return Err(D::Error::unknown_field(&column, COLUMN_NAMES));
            }
            let accepted = match accepted {
                Accepted::One(value) => vec![value],
                Accepted::Many(values) => values,
                Accepted::Other(_) => {
                    let text = format!("{column}: expected a text or a list of texts");
                    return Err(D::Error::custom(text));
                }
            };
            only.insert(column, accepted);
        }
        Ok(Self(only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_takes_a_value_or_several() {
        let read = |text: &str| toml::from_str::<OnlyPlan>(text);
        let plan = read("kind = \"portrait\"\ntone = [\"light\", \"dark\"]").unwrap();
        assert_eq!(plan.0["kind"], ["portrait"]);
        assert_eq!(plan.0["tone"], ["light", "dark"]);
        assert_eq!(read(&toml::to_string(&plan).unwrap()).unwrap(), plan);
        for (text, words) in [
            ("colour = [\"red\"]", "`colour`"),
            ("colour = 3", "`colour`"),
            ("tone = 3", "tone: expected a text or a list of texts"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
