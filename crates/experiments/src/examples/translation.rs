//! The example of translating: emoji that the target set has nothing like, from Noto to Fluent, next to the true pictures.

use super::{ExampleOptions, make_folder, read_pictures, strs, tensor};
use crate::emoji::to_translate;
use sdft_data::{Emoji, EmojiEntry, EmojiStyle};
use sdft_eval::{EmojiKeptScore, judge_emoji, score_kept_emoji};
use sdft_gallery::{Filled, Outcome, write_sheet};
use sdft_imaging::{Rgb8, contact_sheet, write_png};
use sdft_jobs::{
    Context, EMOJI_SOURCE, Error, Result, TranslateOptions, TranslationMethod, load_emoji_judges,
    train_classifier_preset, translate_folder,
};
use std::path::PathBuf;

/// Pictures in a row of the sheet, at most.
const WIDE: usize = 12;

/// The result of [`translation_example`].
#[derive(Clone, Debug)]
pub struct TranslationExample {
    /// The result of filling the folder. Its sheet has the true pictures, too.
    pub outcome: Outcome,
    /// The images of each variant, as the embedded judge sees them; none if the job was interrupted.
    pub folders: Vec<(PathBuf, EmojiKeptScore)>,
}

/// Fine-tunes the embedded model as [`fine_tuning_example`](super::fine_tuning_example) does with SDFT, trains a classifier where the method
/// needs one, and translates Noto's emoji of women, dark skin, glasses, hats, animals and more to Fluent by these options; the model and the
/// input of the options are ignored. Returns `None` if training was interrupted.
///
/// # Errors
/// An error of training or translating.
pub fn translation_example(
    translate: &TranslateOptions,
    options: &ExampleOptions,
    context: &mut Context<'_>,
) -> Result<Option<TranslationExample>> {
    // Options are checked before anything is trained.
    translate.check()?;
    translate.variants([Emoji::SIZE; 2])?;
    let unfit = [
        ("--size", translate.size.is_some()),
        ("--class", translate.class.is_some()),
        ("--guidance", translate.guidance.is_some()),
    ];
    if let Some((option, _)) = unfit.iter().find(|(_, given)| *given) {
        return Err(Error::Usage(format!(
            "{option}: the model of the embedded example draws 32x32 images without classes; give --model and --input, or omit {option}"
        )));
    }
    let Some(model) = options.sdft_model(context)? else {
        return Ok(None);
    };
    let home = options.folder("translate");
    let mut translate = TranslateOptions {
        model: model.display().to_string(),
        input: home.join("inputs"),
        ..translate.clone()
    };
    if translate.method == TranslationMethod::Egsde && translate.classifier.is_none() {
        let (root, set) = (home.join("classifier"), strs(&options.classifier));
        let Some(path) = train_classifier_preset("emoji-classifier", &set, &root, context)? else {
            return Ok(None);
        };
        translate.classifier = Some(path.display().to_string());
    }
    if translate.method == TranslationMethod::Ddib && translate.source_model.is_none() {
        translate.source_model = Some(EMOJI_SOURCE.to_owned());
    }
    let inputs = Inputs::new(options.translated)?;
    make_folder(&translate.input)?;
    for (name, picture) in inputs.names().zip(inputs.pictures(EmojiStyle::Noto)) {
        write_png(&translate.input.join(name), &picture)?;
    }
    let mut outcome = translate_folder(&translate, context)?;
    let mut folders = Vec::new();
    if let Outcome::Done(filled) = &mut outcome
        && filled.failures.is_empty()
    {
        let judges = load_emoji_judges()?;
        let entries: Vec<&EmojiEntry> = inputs.entries().collect();
        let mut made = Vec::new();
        for folder in &filled.folders {
            let images = read_pictures(folder, inputs.names())?;
            let judged = judge_emoji(&judges, &tensor(&images)?)?;
            folders.push((folder.clone(), score_kept_emoji(&judged, &entries)?));
            made.push(images);
        }
        filled.sheet = Some(inputs.sheet(&translate, filled, &made)?);
    }
    Ok(Some(TranslationExample { outcome, folders }))
}

/// The emoji to translate.
struct Inputs {
    emoji: Emoji,
    chosen: Vec<usize>,
}

impl Inputs {
    fn new(of_each_group: usize) -> Result<Self> {
        let emoji = Emoji::embedded()?;
        let chosen = to_translate(&emoji, of_each_group)?;
        Ok(Self { emoji, chosen })
    }

    fn entries(&self) -> impl Iterator<Item = &EmojiEntry> {
        self.chosen.iter().map(|&i| &self.emoji.entries()[i])
    }

    /// Their files; numbered, because a sheet has them in the order of names.
    fn names(&self) -> impl Iterator<Item = String> {
        let all = self.entries().enumerate();
        all.map(|(i, entry)| format!("{i:02}-{}.png", entry.code))
    }

    /// Their pictures in a style; both styles have them.
    fn pictures(&self, style: EmojiStyle) -> Vec<Rgb8> {
        let all = self.chosen.iter();
        all.filter_map(|&i| self.emoji.picture(i, style)).collect()
    }

    /// Writes the sheet of inputs, translations and true pictures. Returns its path and how many inputs it shows.
    fn sheet(
        &self,
        translate: &TranslateOptions,
        filled: &Filled,
        made: &[Vec<Rgb8>],
    ) -> Result<(PathBuf, usize)> {
        let [inputs, truth] =
            [EmojiStyle::Noto, EmojiStyle::Fluent].map(|style| self.pictures(style));
        let rows: Vec<&Vec<Rgb8>> = std::iter::once(&inputs)
            .chain(made)
            .chain([&truth])
            .collect();
        let pictures: Vec<Rgb8> = (0..inputs.len())
            .flat_map(|i| rows.iter().map(move |row| row[i].clone()))
            .collect();
        let method = translate.method.to_string();
        let variant = |folder: &PathBuf| match filled.folders.len() {
            1 => method.clone(),
            _ => folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        let mut columns = vec!["input".to_owned()];
        columns.extend(filled.folders.iter().map(variant));
        columns.push("true".to_owned());
        let in_a_row = columns.len() * (WIDE / columns.len()).max(1);
        let title = format!("{method}: {} emoji unlike the target set", inputs.len());
        let picture = contact_sheet(&pictures, in_a_row, &columns, &title);
        Ok((write_sheet(&translate.out, &picture)?, inputs.len()))
    }
}
