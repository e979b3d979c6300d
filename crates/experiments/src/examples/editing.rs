//! The example of editing: men in the target's style become women, whom the target set lacks.

use super::{ExampleOptions, make_folder, read_pictures, refill, tensor};
use crate::emoji::{ToEdit, to_edit};
use sdft_eval::{EmojiEditScore, judge_emoji, score_edited_emoji};
use sdft_gallery::{Filled, Outcome};
use sdft_imaging::write_png;
use sdft_jobs::{
    Context, DirectionOptions, EditOptions, Result, RunOptions, edit_folder, second_emoji_judge,
    train_direction_in,
};
use std::path::PathBuf;

/// The preset of the direction.
const DIRECTION: &str = "emoji-man-to-woman";
/// Strengths of the strips.
const SWEEP: [f64; 4] = [0.0, 0.5, 1.0, 1.5];

/// The result of [`edit_example`].
#[derive(Clone, Debug)]
pub struct EditExample {
    /// The folder of the edited images.
    pub out: PathBuf,
    /// Its contents.
    pub filled: Filled,
    /// The images of each strength, as a judge sees them that did not guide the direction.
    pub folders: Vec<(PathBuf, EmojiEditScore)>,
}

/// Fine-tunes the embedded model as [`fine_tuning_example`](super::fine_tuning_example) does with SDFT, trains a direction from men to women
/// on it, and edits pictures of men that the direction was not trained on. Existing results are reused. Returns `None` if the job was
/// interrupted.
///
/// # Errors
/// An error of training or editing.
pub fn edit_example(
    options: &ExampleOptions,
    context: &mut Context<'_>,
) -> Result<Option<EditExample>> {
    let Some(model) = options.sdft_model(context)? else {
        return Ok(None);
    };
    let model = model.display().to_string();
    let home = options.folder("edit");
    let train = DirectionOptions {
        run: RunOptions {
            config: vec![DIRECTION.to_owned()],
            name: Some("direction".to_owned()),
            set: options.direction.clone(),
            ..RunOptions::default()
        },
        model: Some(model.clone()),
        cache: options.cache.clone(),
        ..DirectionOptions::default()
    };
    let (root, table) = (home.join("direction"), train.settings()?);
    let Some(direction) = train_direction_in(&root, table, &train, context)? else {
        return Ok(None);
    };
    let ToEdit { from, to, inputs } = to_edit(DIRECTION, options.edited, context)?;
    let input = home.join("inputs");
    make_folder(&input)?;
    let names = || (0..inputs.len()).map(|i| format!("{i:02}.png"));
    for (name, picture) in names().zip(&inputs) {
        write_png(&input.join(name), picture)?;
    }
    let apply = EditOptions {
        model,
        edits: vec![direction.display().to_string()],
        input,
        out: home.join("edited"),
        sweep: SWEEP.to_vec(),
        cache: options.cache.clone(),
        ..EditOptions::default()
    };
    let outcome = refill(context, |overwrite, context| {
        let apply = EditOptions {
            overwrite,
            ..apply.clone()
        };
        edit_folder(&apply, context)
    })?;
    let Outcome::Done(filled) = outcome else {
        return Ok(None);
    };
    let (judge, _) = second_emoji_judge()?;
    let mut folders = Vec::new();
    for folder in &filled.folders {
        let judged = judge_emoji(
            std::slice::from_ref(&judge),
            &tensor(&read_pictures(folder, names())?)?,
        )?;
        folders.push((folder.clone(), score_edited_emoji(&judged, &from, &to)?));
    }
    Ok(Some(EditExample {
        out: apply.out,
        filled,
        folders,
    }))
}
