//! The embedded example of translating: digits of classes that the target set lacks, from chalk to ember.

use crate::digits::form;
use crate::translation::inputs;
use sdft_data::ImageSource;
use sdft_eval::{KeptScore, score_kept};
use sdft_gallery::Outcome;
use sdft_imaging::{Limits, decode_file, write_png};
use sdft_jobs::{
    Context, DIGITS_SOURCE, Result, ResultExt, TranslateOptions, TranslationMethod, load_judge,
    train_classifier_preset, train_preset, translate_folder,
};
use sdft_train::to_tensor;
use std::path::{Path, PathBuf};

/// Inputs of each class.
const PER_CLASS: usize = 10;

/// The result of [`translation_example`].
#[derive(Clone, Debug)]
pub struct TranslationExample {
    /// The result of filling the folder.
    pub outcome: Outcome,
    /// The images of each variant, as the embedded classifier judges them; none if the job was interrupted.
    pub folders: Vec<(PathBuf, KeptScore)>,
}

/// Fine-tunes the embedded model on 1, 4 and 7, trains a classifier where the method needs one, and translates digits of the other
/// classes by these options; the model and the input of the options are ignored. Networks and inputs are kept in `home`. Returns `None`
/// if training was interrupted.
///
/// # Errors
/// An error of training or translating.
pub fn translation_example(
    options: &TranslateOptions,
    home: &Path,
    context: &mut Context<'_>,
) -> Result<Option<TranslationExample>> {
    let digits = inputs(PER_CLASS)?;
    // Options are checked before anything is trained.
    options.check()?;
    options.variants([digits.spec().height, digits.spec().width])?;
    let Some(model) = train_preset("digits-sdft", &[], &home.join("model"), context)? else {
        return Ok(None);
    };
    let mut options = TranslateOptions {
        model: model.display().to_string(),
        input: home.join("inputs"),
        ..options.clone()
    };
    if options.method == TranslationMethod::Egsde && options.classifier.is_none() {
        let Some(path) =
            train_classifier_preset("digits-classifier", &[], &home.join("classifier"), context)?
        else {
            return Ok(None);
        };
        options.classifier = Some(path.display().to_string());
    }
    if options.method == TranslationMethod::Ddib && options.source_model.is_none() {
        options.source_model = Some(DIGITS_SOURCE.to_owned());
    }
    let input = &options.input;
    std::fs::create_dir_all(input)
        .with_context(|| format!("cannot create the folder {}", input.display()))?;
    let name = |i: usize| {
        let id = digits.id(i).replace("digits/", "");
        format!("{}-{id}.png", digits.labels()[i])
    };
    for i in 0..digits.len() {
        write_png(&input.join(name(i)), &digits.screen(i)?)?;
    }
    let outcome = translate_folder(&options, context)?;
    let mut folders = Vec::new();
    if let Outcome::Done(filled) = &outcome
        && filled.failures.is_empty()
    {
        let judge = load_judge()?;
        for folder in &filled.folders {
            let images = (0..digits.len())
                .map(|i| Ok(decode_file(&folder.join(name(i)), &Limits::default())?))
                .collect::<Result<Vec<_>>>()?;
            let score = score_kept(&judge, &to_tensor(&images, &form())?, digits.labels())?;
            folders.push((folder.clone(), score));
        }
    }
    Ok(Some(TranslationExample { outcome, folders }))
}
