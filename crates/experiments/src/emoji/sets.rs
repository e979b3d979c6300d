//! Sets of emoji that models are compared with, and the pictures to translate.

use sdft_data::{DIFFERS, Emoji, EmojiEntry, EmojiStyle, ImageSource, Only};
use sdft_directions::DirectionPlan;
use sdft_eval::EmojiValues;
use sdft_imaging::Rgb8;
use sdft_jobs::{Context, DIRECTIONS, Error, Form, Result, TRAINING, TrainPlan, open_data};
use sdft_settings::{layers, plan};
use sdft_train::DataPlan;

/// All pictures of a style.
pub(crate) fn all_pictures(emoji: &Emoji, style: EmojiStyle) -> Vec<Rgb8> {
    let all = 0..emoji.entries().len();
    all.filter_map(|i| emoji.picture(i, style)).collect()
}

/// The images that the models of a preset are trained on.
pub(crate) fn training_set(preset: &str, context: &mut Context<'_>) -> Result<Vec<Rgb8>> {
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

/// Pictures to edit, and the values of their attribute before and after.
pub(crate) struct ToEdit {
    pub(crate) from: EmojiValues,
    pub(crate) to: EmojiValues,
    pub(crate) inputs: Vec<Rgb8>,
}

/// Up to `n` pictures of the rule of a direction's preset, after those that the direction is trained on.
pub(crate) fn to_edit(preset: &str, n: usize, context: &mut Context<'_>) -> Result<ToEdit> {
    let plan: DirectionPlan = plan(layers::<DirectionPlan>(&DIRECTIONS, &[preset])?)?;
    let data = DataPlan {
        path: plan.data.path,
        style: plan.data.style,
        only: plan.data.only,
        ..DataPlan::default()
    };
    let source = open_data(&data, &Form::rgb8(Emoji::SIZE), context)?;
    let first = plan.data.images;
    let last = (first + n).min(source.len());
    if first >= last {
        return Err(Error::Failed(format!(
            "{preset}: expected more than the {first} pictures that the direction is trained on, found {}",
            source.len()
        )));
    }
    Ok(ToEdit {
        from: plan.goal.from.parse()?,
        to: plan.goal.to.parse()?,
        inputs: screens(&*source, first..last)?,
    })
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
pub(crate) fn to_translate(emoji: &Emoji, n: usize) -> Result<Vec<usize>> {
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
