//! Sets of emoji that models are compared with, and the pictures to translate.

use sdft_data::{DIFFERS, Emoji, EmojiEntry, EmojiStyle, ImageSource, Only};
use sdft_imaging::Rgb8;
use sdft_jobs::{Context, Form, Result, TRAINING, TrainPlan, open_data};
use sdft_settings::{layers, plan};

/// All pictures of a style.
pub(super) fn all_pictures(emoji: &Emoji, style: EmojiStyle) -> Vec<Rgb8> {
    let all = 0..emoji.entries().len();
    all.filter_map(|i| emoji.picture(i, style)).collect()
}

/// The images that the models of a preset are trained on.
pub(super) fn training_set(preset: &str, context: &mut Context<'_>) -> Result<Vec<Rgb8>> {
    let plan: TrainPlan = plan(layers::<TrainPlan>(&TRAINING, &[preset])?)?;
    let source = open_data(&plan.data, &Form::rgb8(Emoji::SIZE), context)?;
    Ok(screens(&*source, 0..source.len())?)
}

/// These images of a source.
pub(super) fn screens(
    source: &dyn ImageSource,
    range: std::ops::Range<usize>,
) -> sdft_data::Result<Vec<Rgb8>> {
    range.map(|i| source.screen(i)).collect()
}

/// Columns and accepted values.
type Rule = &'static [(&'static str, &'static [&'static str])];

/// Groups of emoji that the target set lacks.
const GROUPS: [Rule; 8] = [
    &[("kind", &["portrait"]), ("gender", &["woman"])],
    &[
        ("kind", &["portrait"]),
        ("tone", &["medium", "medium-dark", "dark"]),
    ],
    &[("kind", &["portrait"]), ("glasses", &["yes"])],
    &[("kind", &["portrait"]), ("hat", &["yes"])],
    &[("kind", &["smiley"])],
    &[("kind", &["animal"])],
    &[("kind", &["hand"])],
    &[("kind", &["figure", "plant", "food", "place", "object"])],
];

/// Columns that are judged; emoji that the two styles draw differently in one of them have no true answer.
const JUDGED: [&str; 6] = ["kind", "tone", "gender", "glasses", "hat", "mood"];

/// Up to `n` emoji of each group, evenly spaced among those that both styles have and draw alike.
pub(super) fn to_translate(emoji: &Emoji, n: usize) -> Result<Vec<usize>> {
    let mut chosen: Vec<usize> = Vec::new();
    let is_alike = |entry: &EmojiEntry| {
        let mut values = JUDGED.iter().map(|column| entry.value(column));
        values.all(|value| value != Some(DIFFERS))
    };
    for rule in GROUPS {
        let only: Only = rule
            .iter()
            .map(|(column, values)| {
                let values = values.iter().map(|&value| value.to_owned());
                ((*column).to_owned(), values.collect())
            })
            .collect();
        let mut fitting = emoji.select(EmojiStyle::Noto, &only)?;
        fitting.retain(|&i| {
            emoji.picture(i, EmojiStyle::Fluent).is_some()
                && is_alike(&emoji.entries()[i])
                && !chosen.contains(&i)
        });
        let count = n.min(fitting.len());
        chosen.extend((0..count).map(|i| fitting[i * fitting.len() / count]));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emoji_to_translate_have_a_true_answer_and_something_that_the_target_set_lacks() {
        let emoji = Emoji::embedded().unwrap();
        let chosen = to_translate(&emoji, 8).unwrap();
        assert_eq!(chosen.len(), 8 * GROUPS.len());
        let mut different = chosen.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), chosen.len());
        for &i in &chosen {
            let entry = &emoji.entries()[i];
            let is = |column: &str, values: &[&str]| {
                entry
                    .value(column)
                    .is_some_and(|value| values.contains(&value))
            };
            let lacks = !is("kind", &["portrait"])
                || is("gender", &["woman"])
                || is("tone", &["medium", "medium-dark", "dark"])
                || is("glasses", &["yes"])
                || is("hat", &["yes"]);
            assert!(lacks, "{}", entry.name);
            for style in [EmojiStyle::Noto, EmojiStyle::Fluent] {
                assert!(emoji.picture(i, style).is_some(), "{}", entry.name);
            }
        }
    }
}
