//! The classifier of noised images of two domains, for EGSDE and ANT.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::{ModelFile, options_of_partner, options_of_partner_with_size};
use sdft_adm::Origin;
use sdft_imaging::ImageSpec;
use sdft_models::{LoadedEncoder, LoadedModel, load_encoder};
use std::path::Path;

/// A classifier for images of this form and the noise of `model`, and its path. `wrong` makes the error of a classifier that does not fit.
///
/// # Errors
/// No such file, no classifier, or one of other images or another process.
pub(crate) fn load_classifier(
    name: &str,
    model: &LoadedModel,
    form: &ImageSpec,
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
    if found != model.architecture.image_size() && found != form.height.max(form.width) {
        return Err(wrong(format!(
            "{name}: made for images of {found}x{found}, the model makes {}x{}",
            form.height, form.width
        )));
    }
    let multiple = net.factor();
    if !form.height.is_multiple_of(multiple) || !form.width.is_multiple_of(multiple) {
        return Err(wrong(format!(
            "{name}: takes sides that are multiples of {multiple}, the images have {}x{}",
            form.height, form.width
        )));
    }
    let (found, expected) = (net.in_channels, form.channels);
    if found != expected {
        return Err(wrong(format!(
            "{name}: images have {expected} channels, the classifier takes {found}"
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
