//! Training the judge of the emoji.

use super::disturb::{BLUR, blurred, disturbed};
use super::report::{EmojiJudgeReport, Tally};
use super::{Batch, HELD_OUT, train};
use crate::emoji::judge_emoji;
use crate::error::{EvalError, Result};
use candle_core::{Device, Tensor};
use sdft_data::{COLUMNS, Emoji, EmojiEntry, EmojiStyle};
use sdft_features::{AttributeJudge, JudgeConfig, JudgeHead};
use sdft_imaging::{Rgb8, to_unit_range};
use sdft_nn::Params;
use sdft_noise::{Draw, Purpose};
use std::collections::BTreeMap;

const STEPS: u64 = 12_000;
const BATCH: u64 = 32;
const SIDE: usize = Emoji::SIZE;
/// The attributes that the judge classifies.
const HEADS: [&str; 6] = ["kind", "tone", "gender", "glasses", "hat", "mood"];
/// The columns by which emoji are sorted before every tenth is held out.
const SORTED_BY: [&str; 5] = ["glasses", "hat", "mood", "kind", "gender"];
/// The noise of held-out pictures that are as soft as samples.
const SOFT_NOISE: f32 = 0.1;

/// The network of the judge of the emoji: about 440,000 parameters.
pub fn emoji_judge_config() -> JudgeConfig {
    let columns = HEADS.iter().filter_map(|head| {
        let (name, values) = COLUMNS.iter().find(|(name, _)| name == head)?;
        Some(JudgeHead {
            name: (*name).to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        })
    });
    JudgeConfig {
        side: SIDE,
        widths: vec![32, 64, 128, 160],
        norm_groups: Some(8),
        features: 64,
        heads: columns.collect(),
    }
}

/// Trains the judge of the emoji on both styles and on blends of them: flipped, shifted, turned, resized, with blotches, blurred and with
/// noise, because samples of a diffusion model are softer than drawings, and its predictions of `x0` are blurs. Values that are rare are drawn
/// more often. The same seed gives the same weights.
///
/// The report is of another network, trained in the same way without every tenth emoji (in all its skin tones and genders) and tested on these.
///
/// # Errors
/// Fails if a tensor operation fails.
pub fn train_emoji_judge(
    seed: u64,
    mut progress: impl FnMut(u64, u64, f64),
) -> Result<(JudgeConfig, Params, EmojiJudgeReport)> {
    let album = Album::embedded()?;
    let tested = Pool::new(&album, album.families(false));
    let (judge, _) = fit(&tested, seed, STEPS, &mut |step, _, loss| {
        progress(step, 2 * STEPS, loss)
    })?;
    let report = evaluate(&album, album.families(true), &[judge])?;
    let all = Pool::new(&album, album.families.iter());
    let (judge, params) = fit(&all, seed, STEPS, &mut |step, _, loss| {
        progress(STEPS + step, 2 * STEPS, loss);
    })?;
    Ok((judge.config().clone(), params, report))
}

/// Compares judges, as [`judge_emoji`] averages them, with all emoji.
///
/// # Errors
/// Fails without a judge, or if one has other heads or takes images of another size.
pub fn evaluate_emoji_judges(judges: &[AttributeJudge]) -> Result<EmojiJudgeReport> {
    let album = Album::embedded()?;
    evaluate(&album, album.families.iter(), judges)
}

fn fit(
    pool: &Pool<'_>,
    seed: u64,
    steps: u64,
    progress: &mut dyn FnMut(u64, u64, f64),
) -> Result<(AttributeJudge, Params)> {
    let config = emoji_judge_config();
    let draw = |step| pool.draw(seed, step);
    Ok(train(&config, seed, steps, draw, progress)?)
}

/// All emoji, and which of them are held out.
struct Album {
    emoji: Emoji,
    /// The picture in each style, if there is one.
    pictures: Vec<[Option<Rgb8>; 2]>,
    /// Emoji that differ in the skin tone and the gender only, sorted by their values.
    families: Vec<Vec<usize>>,
}

impl Album {
    fn embedded() -> Result<Self> {
        let emoji = Emoji::embedded()?;
        let mut bases: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, entry) in emoji.entries().iter().enumerate() {
            let base = without_gender(&entry.base);
            bases.entry(base).or_default().push(index);
        }
        // Sorted by their values, so that some of the rare ones are held out.
        let mut families: Vec<Vec<usize>> = bases.into_values().collect();
        families.sort_by_cached_key(|family| {
            let entry = &emoji.entries()[family[0]];
            SORTED_BY.map(|column| entry.value(column).map(str::to_owned))
        });
        Ok(Self {
            pictures: (0..emoji.entries().len())
                .map(|index| EmojiStyle::ALL.map(|style| emoji.picture(index, style)))
                .collect(),
            families,
            emoji,
        })
    }

    /// The families that are held out, or the others.
    fn families(&self, held_out: bool) -> impl Iterator<Item = &Vec<usize>> {
        let numbered = self.families.iter().enumerate();
        numbered.filter_map(move |(i, family)| ((i % HELD_OUT == 0) == held_out).then_some(family))
    }
}

/// The code points of an emoji without those that state the gender, so that the man, the woman and the person of a drawing are the same.
fn without_gender(base: &str) -> String {
    let points = base.split('-').filter_map(|point| match point {
        "200d" | "2640" | "2642" | "fe0f" => None,
        "1f468" | "1f469" => Some("1f9d1"),
        "1f466" | "1f467" => Some("1f9d2"),
        "1f474" | "1f475" => Some("1f9d3"),
        point => Some(point),
    });
    points.collect::<Vec<_>>().join("-")
}

/// The places of an emoji's values among the logits of each head; `None` where the styles differ.
fn labels(entry: &EmojiEntry, config: &JudgeConfig) -> Vec<Option<usize>> {
    let heads = config.heads.iter();
    heads
        .map(|head| head.position(entry.value(&head.name)?))
        .collect()
}

/// The emoji to train on.
struct Pool<'a> {
    album: &'a Album,
    labels: Vec<Vec<Option<usize>>>,
    all: Vec<Vec<usize>>,
    /// For each head and each of its values: the emoji of each family that have it.
    by_value: Vec<Vec<Vec<Vec<usize>>>>,
}

impl<'a> Pool<'a> {
    fn new(album: &'a Album, families: impl Iterator<Item = &'a Vec<usize>>) -> Self {
        let config = emoji_judge_config();
        let entries = album.emoji.entries().iter();
        let labels: Vec<_> = entries.map(|entry| labels(entry, &config)).collect();
        let all: Vec<Vec<usize>> = families.cloned().collect();
        let with = |head: usize, value: usize| -> Vec<Vec<usize>> {
            let has = |&&i: &&usize| labels[i][head] == Some(value);
            let families = all.iter();
            families
                .map(|family| family.iter().filter(has).copied().collect::<Vec<_>>())
                .filter(|family| !family.is_empty())
                .collect()
        };
        let by_value = config.heads.iter().enumerate();
        let by_value = by_value.map(|(head, known)| {
            let values = (0..known.values.len()).map(|value| with(head, value));
            values.filter(|families| !families.is_empty()).collect()
        });
        Self {
            by_value: by_value.collect(),
            album,
            all,
            labels,
        }
    }

    /// An emoji: half of them from a random family, half with a random value of a random attribute.
    fn pick(&self, draw: &Draw) -> usize {
        let below = |at, n: usize| draw.below(at, n as u64) as usize;
        let mut families = &self.all;
        if below(0, 2) == 1 {
            let values = &self.by_value[below(1, self.by_value.len())];
            families = &values[below(2, values.len())];
        }
        let family = &families[below(3, families.len())];
        family[below(4, family.len())]
    }

    fn draw(&self, seed: u64, step: u64) -> Batch {
        let mut batch = Batch {
            images: Vec::new(),
            style: Vec::new(),
            labels: vec![Vec::new(); HEADS.len()],
        };
        for sample in 0..BATCH {
            let draw = Draw::new(seed, Purpose::Judge, step, sample);
            let noise = Draw::new(seed, Purpose::Judge, step, BATCH + sample);
            let index = self.pick(&draw);
            let Some((picture, style)) = blend(&self.album.pictures[index], &draw) else {
                continue;
            };
            batch.images.extend(disturbed(&picture, &draw, &noise));
            batch.style.push(style);
            for (labels, label) in batch.labels.iter_mut().zip(&self.labels[index]) {
                labels.push(label.and_then(|label| u32::try_from(label).ok()));
            }
        }
        batch
    }
}

/// One third Noto, one third Fluent, one third in between, and the share of Fluent. An emoji without one of them says nothing about the style.
#[expect(clippy::cast_possible_truncation, reason = "a share")]
fn blend(pictures: &[Option<Rgb8>; 2], draw: &Draw) -> Option<(Vec<f32>, Option<f32>)> {
    let [Some(noto), Some(fluent)] = pictures else {
        let only = pictures.iter().flatten().next()?;
        return Some((to_unit_range(only), None));
    };
    let share = match draw.below(5, 3) {
        0 => 0.0,
        1 => 1.0,
        _ => draw.uniform(6) as f32,
    };
    let pairs = to_unit_range(noto).into_iter().zip(to_unit_range(fluent));
    let blended = pairs.map(|(noto, fluent)| (1.0 - share) * noto + share * fluent);
    Some((blended.collect(), Some(share)))
}

/// How often judges are right about the emoji of these families.
fn evaluate<'a>(
    album: &Album,
    families: impl Iterator<Item = &'a Vec<usize>>,
    judges: &[AttributeJudge],
) -> Result<EmojiJudgeReport> {
    let config = emoji_judge_config();
    if let Some(other) = judges
        .iter()
        .find(|judge| judge.config().heads != config.heads)
    {
        return Err(EvalError::Text(format!(
            "expected a judge of emoji, found one that classifies {:?}",
            other.config().heads
        )));
    }
    let mut tally = Tally::new(&config);
    for family in families {
        let (mut pixels, mut known) = (Vec::new(), Vec::new());
        for &index in family {
            for (picture, is_fluent) in album.pictures[index].iter().zip([false, true]) {
                let Some(picture) = picture else { continue };
                let sharp = to_unit_range(picture);
                let noise = Draw::new(0, Purpose::Judge, 0, index as u64).normals(sharp.len());
                let soft = blurred(&sharp, BLUR).into_iter().zip(noise);
                pixels.extend(soft.map(|(v, n)| v + SOFT_NOISE * n));
                pixels.extend(sharp);
                known.push((index, is_fluent));
            }
        }
        let x = Tensor::from_vec(pixels, (2 * known.len(), 3, SIDE, SIDE), &Device::Cpu)?;
        let judged = judge_emoji(judges, &x)?;
        for ((index, is_fluent), seen) in known.into_iter().zip(judged.chunks_exact(2)) {
            let labels = labels(&album.emoji.entries()[index], &config);
            tally.add([&seen[1], &seen[0]], &labels, is_fluent);
            tally.add_attributes(&seen[1], &album.emoji.entries()[index]);
        }
    }
    Ok(tally.finish(&config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let album = Album::embedded().unwrap();
        let weights = |seed| {
            let pool = Pool::new(&album, album.families(false));
            let (_, params) = fit(&pool, seed, 2, &mut |_, _, _| {}).unwrap();
            let all = params
                .iter()
                .map(|(_, tensor)| tensor.flatten_all().unwrap());
            all.flat_map(|tensor| tensor.to_vec1::<f32>().unwrap())
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        };
        let first = weights(3);
        assert!(first == weights(3) && first != weights(4));
    }

    #[test]
    fn rare_values_are_drawn_often_and_held_out_emoji_never() {
        let album = Album::embedded().unwrap();
        let pool = Pool::new(&album, album.families(false));
        let draws = 4000;
        let drawn: Vec<usize> = (0..draws)
            .map(|i| pool.pick(&Draw::new(5, Purpose::Judge, i, 0)))
            .collect();
        let held_out: Vec<usize> = album.families(true).flatten().copied().collect();
        assert!(held_out.len() > 200 && !drawn.iter().any(|i| held_out.contains(i)));
        let share = |column: &str, value: &str, among: &[usize]| {
            let entries = among.iter().map(|&i| &album.emoji.entries()[i]);
            let n = entries.filter(|entry| entry.value(column) == Some(value));
            n.count() as f64 / among.len() as f64
        };
        let all: Vec<usize> = (0..album.pictures.len()).collect();
        for (column, value) in [("glasses", "yes"), ("mood", "sad"), ("mood", "angry")] {
            let (usual, balanced) = (share(column, value, &all), share(column, value, &drawn));
            assert!(
                balanced > 1.2 * usual && balanced > 0.015,
                "{column}={value}: {balanced}"
            );
            assert!(share(column, value, &held_out) > 0.0, "{column}={value}");
        }
    }

    #[test]
    fn a_held_out_emoji_has_no_twin_of_another_tone_or_gender_in_training() {
        for (base, known_as) in [
            ("1f469-200d-1f692", "1f9d1-1f692"),
            ("1f9d1-200d-1f692", "1f9d1-1f692"),
            ("1f473-200d-2640-fe0f", "1f473"),
            ("1f475", "1f9d3"),
            ("1f98a", "1f98a"),
        ] {
            assert_eq!(without_gender(base), known_as);
        }
        let album = Album::embedded().unwrap();
        let bases = |held_out| -> Vec<String> {
            let all = album.families(held_out).flatten();
            all.map(|&i| without_gender(&album.emoji.entries()[i].base))
                .collect()
        };
        let (held_out, trained) = (bases(true), bases(false));
        assert!(held_out.len() > 200 && !held_out.iter().any(|base| trained.contains(base)));
    }

    #[test]
    fn emoji_of_one_style_say_nothing_about_the_style() {
        let album = Album::embedded().unwrap();
        let draw = Draw::new(0, Purpose::Judge, 0, 0);
        let missing = |pictures: &&[Option<Rgb8>; 2]| pictures[1].is_none();
        let one = album.pictures.iter().find(missing).unwrap();
        let (picture, style) = blend(one, &draw).unwrap();
        assert_eq!(style, None);
        assert_eq!(picture, to_unit_range(one[0].as_ref().unwrap()));
        let both = [one[0].clone(), one[0].clone()];
        assert!(blend(&both, &draw).unwrap().1.is_some());
        assert!(blend(&[None, None], &draw).is_none());
    }
}
