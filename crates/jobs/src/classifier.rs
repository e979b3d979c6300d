//! The classifier of noised images of two domains, for EGSDE and ANT.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::{ModelFile, options_of_partner, options_of_partner_with_size};
use sdft_adm::Origin;
use sdft_models::{LoadedEncoder, LoadedModel, load_encoder};
use std::path::Path;

/// A classifier for states of this shape, `[C, H, W]`, and the noise of `model`, and its path. `wrong` makes the error of a classifier that does not fit.
///
/// # Errors
/// No such file, no classifier, or one of other images or another process.
pub(crate) fn load_classifier(
    name: &str,
    model: &LoadedModel,
    [channels, height, width]: [usize; 3],
    wrong: &dyn Fn(String) -> Error,
    context: &mut Context<'_>,
) -> Result<(String, LoadedEncoder)> {
    let name = ModelFile::find(name)?.noted(context);
    let mut classifier = load_encoder(Path::new(&name), &options_of_partner(model))?;
    if classifier.origins.get("image_size") == Some(&Origin::Assumed) {
        classifier = load_encoder(Path::new(&name), &options_of_partner_with_size(model))?;
    }
    context.notes(&classifier.notes);
    let net = &classifier.config.net;
    let found = net.image_size;
    if found != model.architecture.image_size() && found != height.max(width) {
        return Err(wrong(format!(
            "{name}: made for {found}x{found}, the model's network takes {height}x{width}"
        )));
    }
    let multiple = net.factor();
    if !height.is_multiple_of(multiple) || !width.is_multiple_of(multiple) {
        return Err(wrong(format!(
            "{name}: takes sides that are multiples of {multiple}, the model's network has {height}x{width}"
        )));
    }
    let found = net.in_channels;
    if found != channels {
        return Err(wrong(format!(
            "{name}: the model's network takes {channels} channels, the classifier {found}"
        )));
    }
    if let (Some(found), expected) = (&classifier.autoencoder_sha256, model.autoencoder_sha256())
        && expected.as_ref() != Some(found)
    {
        return Err(wrong(format!(
            "{name}: trained on latents of the autoencoder of SHA-256 {found}, the model works on {}",
            expected.map_or("images".to_owned(), |sha256| format!("those of {sha256}"))
        )));
    }
    if !classifier.process.same_noise(&model.process.discrete()) {
        return Err(wrong(format!(
            "{name}: trained on the noise of {:?}, the model on {:?}",
            classifier.process, model.process
        )));
    }
    Ok((name, classifier))
}
