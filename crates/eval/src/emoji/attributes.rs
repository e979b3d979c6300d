//! Attributes of emoji: those that the showcase's target set lacks, and the two sides of an edit.

use super::judged::{CONFIDENT, EmojiJudged};
use crate::error::{EvalError, Result};
use crate::judge::emoji_judge_config;
use candle_core::{Device, Tensor};
use sdft_data::{COLUMNS, Emoji, EmojiEntry, EmojiStyle};
use sdft_features::AttributeJudge;
use sdft_imaging::to_unit_range;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An attribute that the target set of the showcase lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmojiAttribute {
    /// Its name in tables.
    pub name: &'static str,
    /// The column of the set, which is a head of the judge.
    pub column: &'static str,
    /// The values of the column that count.
    pub values: &'static [&'static str],
}

/// The attributes that the target set of the showcase lacks: it has happy and neutral men and persons with the two lightest skin tones, from
/// the chest up, without glasses and hats.
pub const EMOJI_ATTRIBUTES: [EmojiAttribute; 6] = [
    attribute("women", "gender", &["woman"]),
    attribute("dark", "tone", &["medium", "medium-dark", "dark"]),
    attribute("glasses", "glasses", &["yes"]),
    attribute("hats", "hat", &["yes"]),
    attribute("sad or angry", "mood", &["sad", "angry"]),
    attribute("animals", "kind", &["animal"]),
];

/// Everything else that the target set lacks. It is no part of [`EMOJI_ATTRIBUTES`], because shapeless samples look like it, too.
pub const EMOJI_OTHER: EmojiAttribute = attribute(
    "other",
    "kind",
    &[
        "smiley", "figure", "group", "hand", "plant", "food", "place", "object",
    ],
);

const fn attribute(
    name: &'static str,
    column: &'static str,
    values: &'static [&'static str],
) -> EmojiAttribute {
    EmojiAttribute {
        name,
        column,
        values,
    }
}

impl EmojiAttribute {
    /// Whether the emoji has the attribute.
    pub fn is_of(&self, entry: &EmojiEntry) -> bool {
        let value = entry.value(self.column);
        value.is_some_and(|value| self.values.contains(&value))
    }

    /// Whether the image has the attribute with a probability above 0.8.
    pub fn is_seen_in(&self, judged: &EmojiJudged) -> bool {
        judged.probability(self.column, self.values) > CONFIDENT
    }

    /// Whether the image is in the target's style and has the attribute with a probability above 0.8.
    pub fn is_covered_by(&self, judged: &EmojiJudged) -> bool {
        judged.is_in_style() && self.is_seen_in(judged)
    }
}

/// Values of one attribute, as `gender=woman` or `tone=medium-dark,dark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmojiValues {
    /// The attribute.
    pub column: String,
    /// Its values, at least one.
    pub values: Vec<String>,
}

impl EmojiValues {
    /// Whether the emoji has one of the values.
    pub fn is_of(&self, entry: &EmojiEntry) -> bool {
        self.has(entry.value(&self.column))
    }

    /// Whether the most probable value of the attribute is one of these.
    pub fn is_seen_in(&self, judged: &EmojiJudged) -> bool {
        self.has(judged.value(&self.column))
    }

    fn has(&self, value: Option<&str>) -> bool {
        value.is_some_and(|value| self.values.iter().any(|known| known == value))
    }
}

impl FromStr for EmojiValues {
    type Err = EvalError;

    /// Parses `ATTRIBUTE=VALUE`, or several values separated by commas, of an attribute that the judge classifies.
    fn from_str(text: &str) -> Result<Self> {
        let heads = emoji_judge_config().heads;
        let unknown = |expected: String| {
            EvalError::Text(format!(
                "expected {expected}, found {text:?}; for example gender=woman or tone=medium-dark,dark"
            ))
        };
        let names: Vec<&str> = heads.iter().map(|head| head.name.as_str()).collect();
        let names = names.join(", ");
        let (column, values) = text
            .split_once('=')
            .ok_or_else(|| unknown(format!("ATTRIBUTE=VALUE, with one of {names}")))?;
        let column = column.trim();
        let head = heads
            .iter()
            .find(|head| head.name == column)
            .ok_or_else(|| unknown(format!("an attribute of {names}")))?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        if !values.iter().all(|value| head.position(value).is_some()) {
            let all = head.values.join(", ");
            return Err(unknown(format!("values of {column}, which are {all}")));
        }
        Ok(Self {
            column: column.to_owned(),
            values,
        })
    }
}

impl fmt::Display for EmojiValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.column, self.values.join(","))
    }
}

/// The judge's features of Fluent portraits with the values of `from` and of `to` that agree in all other attributes, one row for each
/// combination of these, `[N, F]` each. A direction between the values is computed from them.
///
/// # Errors
/// Fails if the attributes differ, the values overlap, or no portraits agree otherwise.
pub fn features_of_values(
    judge: &AttributeJudge,
    from: &EmojiValues,
    to: &EmojiValues,
) -> Result<[Tensor; 2]> {
    if from.column != to.column || from.values.iter().any(|value| to.values.contains(value)) {
        return Err(EvalError::Text(format!(
            "expected different values of one attribute, found {from} and {to}"
        )));
    }
    let emoji = Emoji::embedded()?;
    let mut alike: BTreeMap<Vec<&str>, [Vec<usize>; 2]> = BTreeMap::new();
    for (index, entry) in emoji.entries().iter().enumerate() {
        let is_portrait = from.column == "kind" || entry.value("kind") == Some("portrait");
        let side = [from, to].iter().position(|values| values.is_of(entry));
        let Some(side) = side.filter(|_| is_portrait) else {
            continue;
        };
        if emoji.picture(index, EmojiStyle::Fluent).is_some() {
            let others = COLUMNS.iter().filter(|(name, _)| *name != from.column);
            let key = others.filter_map(|(name, _)| entry.value(name)).collect();
            alike.entry(key).or_default()[side].push(index);
        }
    }
    alike.retain(|_, sides| sides.iter().all(|side| !side.is_empty()));
    if alike.is_empty() {
        return Err(EvalError::Text(format!(
            "no Fluent portraits with {from} and {to} agree in all other attributes"
        )));
    }
    let mean = |side: usize| -> Result<Tensor> {
        let rows = alike.values().map(|sides| -> Result<Tensor> {
            let pictures = sides[side].iter();
            let pictures = pictures.filter_map(|&i| emoji.picture(i, EmojiStyle::Fluent));
            let pixels: Vec<f32> = pictures.flat_map(|p| to_unit_range(&p)).collect();
            let shape = (sides[side].len(), 3, Emoji::SIZE, Emoji::SIZE);
            let x = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
            Ok(judge.classify(&x)?.features.mean_keepdim(0)?)
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    };
    Ok([mean(0)?, mean(1)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_nn::Params;

    #[test]
    fn values_are_read_and_unknown_ones_list_what_there_is() {
        let dark: EmojiValues = "tone = medium-dark, dark".parse().unwrap();
        assert_eq!(dark.to_string(), "tone=medium-dark,dark");
        for (text, listed) in [
            ("woman", "kind, tone, gender"),
            ("colour=red", "kind, tone, gender"),
            ("age=old", "kind, tone, gender"),
            ("gender=lady", "none, man, woman"),
            ("tone=dark,", "medium-dark"),
            ("hat=differs", "no, yes"),
        ] {
            let error = text.parse::<EmojiValues>().unwrap_err().to_string();
            assert!(error.contains(listed) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_target_set_of_the_presets_has_none_of_the_attributes() {
        let emoji = Emoji::embedded().unwrap();
        let one_of = |column: &str, values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            (column.to_owned(), values)
        };
        let target = [
            one_of("kind", &["portrait"]),
            one_of("tone", &["light", "medium-light"]),
            one_of("gender", &["man", "person"]),
            one_of("glasses", &["no"]),
            one_of("hat", &["no"]),
            one_of("mood", &["happy", "neutral", "none"]),
        ];
        let target = emoji.select(EmojiStyle::Fluent, &target.into()).unwrap();
        assert!(target.len() >= 90);
        for attribute in EMOJI_ATTRIBUTES.into_iter().chain([EMOJI_OTHER]) {
            let has = |&i: &usize| attribute.is_of(&emoji.entries()[i]);
            assert!(!target.iter().any(has), "{}", attribute.name);
            let all = (0..emoji.entries().len()).filter(has).count();
            assert!(all >= 30, "{}: {all}", attribute.name);
        }
    }

    #[test]
    fn both_sides_of_a_direction_are_paired() {
        let config = emoji_judge_config();
        let specs = AttributeJudge::specs(&config).unwrap();
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        let judge = AttributeJudge::load(&config, &params).unwrap();
        let between = |from: &str, to: &str| {
            features_of_values(&judge, &from.parse().unwrap(), &to.parse().unwrap())
        };
        for (from, to) in [
            ("gender=man", "gender=woman"),
            ("tone=light,medium-light", "tone=medium-dark,dark"),
            ("glasses=no", "glasses=yes"),
        ] {
            let [a, b] = between(from, to).unwrap();
            assert_eq!(a.dims(), b.dims());
            assert!(a.dim(0).unwrap() >= 2 && a.dim(1).unwrap() == config.features);
        }
        for (from, to) in [
            ("gender=man", "tone=dark"),
            ("tone=dark", "tone=light,dark"),
        ] {
            let error = between(from, to).unwrap_err().to_string();
            assert!(error.contains(from) && error.contains(to), "{error}");
        }
    }
}
