//! The embedded example of editing: digits of a class that the target set lacks become those of another, in the target's style.

use crate::digits::form;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_gallery::{Filled, Outcome};
use sdft_imaging::{Limits, decode_file, write_png};
use sdft_jobs::{
    Context, EditOptions, Result, ResultExt, edit_folder, second_judge, train_direction_preset,
    train_preset,
};
use sdft_train::to_tensor;
use std::path::{Path, PathBuf};

/// The class to edit, and the class to turn it into.
pub(crate) const FROM: u8 = 3;
pub(crate) const TO: u8 = 2;
/// Digits that the direction is trained on; others are edited.
pub(crate) const TRAINED: usize = 20;
/// Digits that are edited.
const EDITED: usize = 24;
/// Strengths of the strips.
const SWEEP: [f64; 4] = [0.0, 0.5, 1.0, 1.5];

/// The result of [`edit_example`].
#[derive(Clone, Debug)]
pub struct EditExample {
    /// The folder of the edited images.
    pub out: PathBuf,
    /// Its contents.
    pub filled: Filled,
    /// The images of each strength, as a second classifier judges them.
    pub folders: Vec<EditedFolder>,
}

/// The edited images of one strength. Shares are from 0 to 1.
#[derive(Clone, Debug)]
pub struct EditedFolder {
    /// Their folder.
    pub folder: PathBuf,
    /// The number of images.
    pub n: usize,
    /// The share of twos.
    pub edited: f64,
    /// The share of threes, which the inputs are.
    pub unchanged: f64,
    /// The share in the target's style.
    pub style: f64,
}

/// Fine-tunes the embedded model on 1, 4 and 7, trains a direction from 3 to 2 on it, and edits threes that neither was trained on, in `home`.
/// Existing results are reused. Returns `None` if the job was interrupted.
///
/// # Errors
/// An error of training or editing.
pub fn edit_example(home: &Path, context: &mut Context<'_>) -> Result<Option<EditExample>> {
    let Some(model) = train_preset("digits-sdft", &[], &home.join("model"), context)? else {
        return Ok(None);
    };
    let model = model.display().to_string();
    let root = home.join("direction");
    let Some(direction) = train_direction_preset(
        "digits-3-to-2",
        &["data.style=ember"],
        &root,
        &model,
        context,
    )?
    else {
        return Ok(None);
    };
    let digits = Digits::embedded()?;
    let threes = DigitsSource::new(digits, Style::Ember, &[FROM], TRAINED + EDITED)?;
    let input = home.join("inputs");
    std::fs::create_dir_all(&input)
        .with_context(|| format!("cannot create the folder {}", input.display()))?;
    let name = |i: usize| format!("{}.png", threes.id(i).replace(['/', ' '], "-"));
    for i in TRAINED..threes.len() {
        write_png(&input.join(name(i)), &threes.screen(i)?)?;
    }
    let options = EditOptions {
        model,
        edits: vec![direction.display().to_string()],
        input,
        out: home.join("edited"),
        sweep: SWEEP.to_vec(),
        ..EditOptions::default()
    };
    let Outcome::Done(filled) = edit_folder(&options, context)? else {
        return Ok(None);
    };
    // A second classifier, because the one that guided the direction can be fooled by its results.
    let (judge, _) = second_judge(&home.join("judge.safetensors"), context)?;
    if context.is_stopped() {
        return Ok(None);
    }
    let mut folders = Vec::new();
    for folder in &filled.folders {
        let images = (TRAINED..threes.len())
            .map(|i| Ok(decode_file(&folder.join(name(i)), &Limits::default())?))
            .collect::<Result<Vec<_>>>()?;
        let x = to_tensor(&images, &form())?;
        let edited = score_kept(&judge, &x, &vec![TO; images.len()])?;
        let unchanged = score_kept(&judge, &x, &vec![FROM; images.len()])?;
        folders.push(EditedFolder {
            folder: folder.clone(),
            n: edited.n,
            edited: edited.class,
            unchanged: unchanged.class,
            style: edited.style,
        });
    }
    Ok(Some(EditExample {
        out: options.out,
        filled,
        folders,
    }))
}
