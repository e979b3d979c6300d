//! How often a judge is right.

use crate::emoji::{CONFIDENT, EMOJI_ATTRIBUTES, EmojiJudged};
use sdft_data::{DIFFERS, EmojiEntry};
use sdft_features::JudgeConfig;

/// How often a judge of the emoji is right about some pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiJudgeReport {
    /// Number of pictures, both styles together.
    pub n: usize,
    /// Share of them with the right style.
    pub style: f64,
    /// The same after blur and noise as in the samples of a diffusion model.
    pub soft_style: f64,
    /// The attributes.
    pub heads: Vec<HeadReport>,
    /// [`EMOJI_ATTRIBUTES`](crate::EMOJI_ATTRIBUTES) as tables count them, style aside: several values of an attribute add up.
    pub counted: Vec<ValueReport>,
}

/// The accuracy of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadReport {
    /// The attribute.
    pub name: String,
    /// Number of pictures whose value is known.
    pub n: usize,
    /// Share of them whose most probable value is the right one.
    pub accuracy: f64,
    /// Its values.
    pub values: Vec<ValueReport>,
}

/// How well one value of an attribute is found, where the judge's probability is above 0.8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueReport {
    /// The value.
    pub value: String,
    /// Number of pictures that have it.
    pub n: usize,
    /// Number of pictures in which the judge sees it.
    pub found: usize,
    /// Number of pictures that have it and in which the judge sees it.
    pub right: usize,
}

impl ValueReport {
    /// Share of the pictures with this value among those in which the judge sees it; NaN if it sees none.
    pub fn precision(&self) -> f64 {
        self.right as f64 / self.found as f64
    }

    /// Share of the pictures in which the judge sees this value among those that have it; NaN if none has.
    pub fn recall(&self) -> f64 {
        self.right as f64 / self.n as f64
    }
}

/// Counts for a report.
pub(super) struct Tally {
    n: usize,
    style: usize,
    soft_style: usize,
    /// For each head: pictures with a known value, and those with the right answer.
    heads: Vec<[usize; 2]>,
    values: Vec<Vec<ValueReport>>,
    counted: Vec<ValueReport>,
}

impl Tally {
    pub(super) fn new(config: &JudgeConfig) -> Self {
        let none = |value: &str| ValueReport {
            value: value.to_owned(),
            n: 0,
            found: 0,
            right: 0,
        };
        let heads = config.heads.iter();
        Self {
            n: 0,
            style: 0,
            soft_style: 0,
            heads: vec![[0; 2]; config.heads.len()],
            values: heads
                .map(|head| head.values.iter().map(|value| none(value)).collect())
                .collect(),
            counted: EMOJI_ATTRIBUTES.iter().map(|a| none(a.name)).collect(),
        }
    }

    /// Counts the attributes of one picture whose value is known.
    pub(super) fn add_attributes(&mut self, seen: &EmojiJudged, entry: &EmojiEntry) {
        for (attribute, counts) in EMOJI_ATTRIBUTES.iter().zip(&mut self.counted) {
            if entry.value(attribute.column) != Some(DIFFERS) {
                let (has, found) = (attribute.is_of(entry), attribute.is_seen_in(seen));
                counts.n += usize::from(has);
                counts.found += usize::from(found);
                counts.right += usize::from(has && found);
            }
        }
    }

    /// Counts one picture, as it is and softened; `labels` are the places of its values.
    pub(super) fn add(
        &mut self,
        [sharp, soft]: [&EmojiJudged; 2],
        labels: &[Option<usize>],
        is_fluent: bool,
    ) {
        self.n += 1;
        self.style += usize::from(sharp.is_in_style() == is_fluent);
        self.soft_style += usize::from(soft.is_in_style() == is_fluent);
        for (head, label) in labels.iter().enumerate() {
            let Some(label) = *label else { continue };
            self.heads[head][0] += 1;
            self.heads[head][1] += usize::from(sharp.most_probable(head) == label);
            let probabilities = &sharp.probabilities()[head];
            for (value, p) in probabilities.iter().enumerate() {
                let counts = &mut self.values[head][value];
                let (has, found) = (value == label, *p > CONFIDENT);
                counts.n += usize::from(has);
                counts.found += usize::from(found);
                counts.right += usize::from(has && found);
            }
        }
    }

    pub(super) fn finish(self, config: &JudgeConfig) -> EmojiJudgeReport {
        let share = |count: usize, n: usize| count as f64 / n.max(1) as f64;
        let heads = config.heads.iter().zip(self.heads).zip(self.values);
        EmojiJudgeReport {
            n: self.n,
            style: share(self.style, self.n),
            soft_style: share(self.soft_style, self.n),
            counted: self.counted,
            heads: heads
                .map(|((head, [n, right]), values)| HeadReport {
                    name: head.name.clone(),
                    n,
                    accuracy: share(right, n),
                    values,
                })
                .collect(),
        }
    }
}
