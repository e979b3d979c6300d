//! The original model and tuned models, mixed.

use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Prediction};

/// A share below this does not take part; sums of shares are exact up to rounding.
const NOTHING: f64 = 1e-9;

/// The predictions of an original model and of tuned ones, mixed, as a [`Denoiser`].
///
/// ```text
/// output = (1 - sum_i share_i) original + sum_i share_i tuned_i
/// ```
/// A model with share 0 is not evaluated, and a model with share 1, if all others have share 0, gives its own prediction to the bit. All
/// models must predict the same quantity; the mixture is the same in every quantity.
///
/// Source: DiffusionCLIP `utils/diffusion_utils.py` `denoising_step`: `ratio` for one tuned model (the option `model_ratio`), and the
/// mixed noise of several.
pub struct Mixture<'a>(Vec<(&'a dyn Denoiser, f64)>);

impl<'a> Mixture<'a> {
    /// Of `original` and of tuned models with their shares, 0 to 1 or beyond.
    pub fn new(
        original: &'a dyn Denoiser,
        tuned: impl IntoIterator<Item = (&'a dyn Denoiser, f64)>,
    ) -> Self {
        let mut all: Vec<(&dyn Denoiser, f64)> = tuned.into_iter().collect();
        let left = 1.0 - all.iter().map(|(_, share)| share).sum::<f64>();
        all.insert(0, (original, left));
        // NaN is kept, so that the result is NaN.
        all.retain(|(_, share)| share.is_nan() || share.abs() >= NOTHING);
        Self(all)
    }
}

impl Denoiser for Mixture<'_> {
    /// # Errors
    /// Those of the models; models that predict different quantities.
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        if let [(only, _)] = self.0[..] {
            return only.predict(xt, t);
        }
        let mut mixed: Option<Prediction> = None;
        for (net, share) in &self.0 {
            let part = net.predict(xt, t)?;
            let output = (&part.output * *share)?;
            mixed = Some(match mixed {
                None => Prediction::new(output, part.prediction_type),
                Some(sum) if sum.prediction_type == part.prediction_type => {
                    Prediction::new((sum.output + output)?, part.prediction_type)
                }
                Some(sum) => bail!(
                    "models that are mixed predict the same quantity, found {} and {}",
                    sum.prediction_type,
                    part.prediction_type
                ),
            });
        }
        match mixed {
            Some(mixed) => Ok(mixed),
            None => bail!("a mixture has at least one model"),
        }
    }
}
