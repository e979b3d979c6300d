//! What the judge of the emoji sees in a folder of generated images.

use crate::error::Result;
use crate::judge::load_emoji_judges;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sdft_data::Emoji;
use sdft_eval::{EMOJI_ATTRIBUTES, EMOJI_OTHER, Extractor, Measure, judge_emoji, score_emoji};
use sdft_imaging::to_unit_range;
use std::path::PathBuf;

/// Images that are judged at once.
pub(super) const BATCH: usize = 256;

/// Images of `side` x `side` pixels in the 8-bit RGB that the network takes, `[N, 3, side, side]` in [-1, 1].
///
/// # Errors
/// An image cannot be read, or has another size.
pub(super) fn read_square(
    files: &[(String, PathBuf)],
    extractor: &Extractor,
    side: usize,
) -> Result<Tensor> {
    let images = files.par_iter().map(|(_, path)| extractor.show(path));
    let images = images.collect::<sdft_eval::Result<Vec<_>>>()?;
    let mut pixels = Vec::with_capacity(files.len() * 3 * side * side);
    for image in &images {
        pixels.extend(to_unit_range(image));
    }
    let shape = (files.len(), 3, side, side);
    Ok(Tensor::from_vec(pixels, shape, &Device::Cpu)?)
}

/// The share of images in the target's style, with an attribute that the target set lacks, and with each of these. None for archives.
///
/// # Errors
/// An image cannot be read.
pub(super) fn emoji_measures(
    files: &[(String, PathBuf)],
    extractor: &Extractor,
) -> Result<Vec<Measure>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let (judges, mut judged) = (load_emoji_judges()?, Vec::new());
    for files in files.chunks(BATCH) {
        judged.extend(judge_emoji(
            &judges,
            &read_square(files, extractor, Emoji::SIZE)?,
        )?);
    }
    let score = score_emoji(&judged)?;
    let measure = |name: &str, value, note: &str| Measure {
        name: name.to_owned(),
        value,
        spread: None,
        n: score.n.to_string(),
        note: note.to_owned(),
    };
    let mut measures = vec![
        measure("style", score.style, "share in the style of Fluent"),
        measure(
            "covered",
            score.coverage,
            "higher is better; share in that style with one of the next six attributes; by two judges",
        ),
    ];
    let attributes = EMOJI_ATTRIBUTES.iter().chain([&EMOJI_OTHER]);
    let shares = attributes.zip(score.attributes.into_iter().chain([score.other]));
    measures.extend(shares.map(|(attribute, share)| {
        measure(
            attribute.name,
            share,
            "share of samples in that style with this attribute",
        )
    }));
    Ok(measures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::emoji_judge_features;
    use sdft_data::{EmojiOptions, EmojiSource, EmojiStyle, ImageSource as _, Only};
    use sdft_imaging::write_png;

    #[test]
    fn women_in_the_targets_style_are_covered_and_in_the_sources_style_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let features = emoji_judge_features().unwrap();
        let emoji = Emoji::embedded().unwrap();
        let measure = |style| -> Vec<f64> {
            let one = |column: &str, value: &str| (column.to_owned(), vec![value.to_owned()]);
            let only = [
                one("kind", "portrait"),
                one("gender", "woman"),
                one("hat", "no"),
            ];
            let mut options = EmojiOptions::new(style);
            options.only = Only::from(only);
            let source = EmojiSource::new(&emoji, &options).unwrap();
            let mut files = Vec::new();
            for i in (0..source.len()).step_by(4) {
                let path = dir.path().join(format!("{style}-{i}.png"));
                write_png(&path, &source.screen(i).unwrap()).unwrap();
                files.push((format!("{i}.png"), path));
            }
            let measures = emoji_measures(&files, &features).unwrap();
            let value = |name| measures.iter().find(|m| m.name == name).unwrap().value;
            ["style", "covered", "women", "animals"].map(value).to_vec()
        };
        let fluent = measure(EmojiStyle::Fluent);
        // The judge is sure of about two in three.
        assert!(
            fluent[0] > 0.95 && fluent[1] > 0.7 && fluent[2] > 0.6,
            "{fluent:?}"
        );
        assert!(fluent[3] < 0.05, "{fluent:?}");
        let noto = measure(EmojiStyle::Noto);
        assert!(noto[..3].iter().all(|share| *share < 0.05), "{noto:?}");
        assert!(emoji_measures(&[], &features).unwrap().is_empty());
    }
}
