//! Directions in a space of embeddings, and the losses along them.

use candle_core::{D, DType, Result, Tensor, bail};

/// Added to the length of an image direction.
const EPS: f64 = 1e-7;

/// A direction between two texts, of length one, `[1, F]`.
#[derive(Clone, Debug)]
pub struct TextDirection(Tensor);

impl TextDirection {
    /// The mean over templates of the differences of unit vectors.
    ///
    /// # Shapes
    /// - `source`, `target`: `[templates, F]`, paired
    ///
    /// # Errors
    /// Sets of different shape; texts with the same embedding.
    pub fn between(source: &Tensor, target: &Tensor) -> Result<Self> {
        let difference = (unit(target)? - unit(source)?)?.mean_keepdim(0)?;
        let length = length(&difference)?.flatten_all()?.to_dtype(DType::F64)?;
        if length
            .to_vec1::<f64>()?
            .iter()
            .any(|&l| l.is_nan() || l <= 0.0)
        {
            bail!("the texts have the same embedding, so there is no direction between them");
        }
        Ok(Self(unit(&difference)?))
    }

    /// `[1, F]`, of length one.
    pub fn as_tensor(&self) -> &Tensor {
        &self.0
    }
}

/// Lengths along the last dimension, which is kept.
fn length(x: &Tensor) -> Result<Tensor> {
    x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()
}

fn unit(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&length(x)?)
}

/// Similarity of each edit to a direction between texts, -1 to 1: `d . direction / (|d| + 1e-7)`, `d` the difference of unit vectors.
///
/// # Shapes
/// - `source`, `edited`: embeddings `[B, F]` · returns `[B]`
///
/// Source: `clip_directional_loss` of StyleGAN-NADA, DiffusionCLIP and Asyrp.
///
/// # Errors
/// When shapes do not fit.
pub fn directional_similarity(
    source: &Tensor,
    edited: &Tensor,
    direction: &TextDirection,
) -> Result<Tensor> {
    let d = (unit(edited)? - unit(source)?)?;
    let along = d.broadcast_mul(&direction.0)?.sum_keepdim(D::Minus1)?;
    along.div(&(length(&d)? + EPS)?)?.squeeze(1)
}

/// `mean(1 - S_dir)` over the batch, 0 to 2.
///
/// # Errors
/// As [`directional_similarity`].
pub fn clip_loss(source: &Tensor, edited: &Tensor, direction: &TextDirection) -> Result<Tensor> {
    directional_similarity(source, edited, direction)?
        .affine(-1.0, 1.0)?
        .mean_all()
}

/// The form in which Asyrp minimises it: `-log((2 - L) / 2)`.
///
/// Source: Asyrp `diffusion_latent.py` `run_training`.
///
/// # Errors
/// Never in practice.
pub fn asyrp_loss(clip_loss: &Tensor) -> Result<Tensor> {
    clip_loss.affine(-0.5, 1.0)?.log()?.neg()
}

/// The term that keeps an edit near the image: `weight cosine mean|x0 - x0_origin|`, `cosine` being that of the two texts.
///
/// # Errors
/// When shapes do not fit.
pub fn l1_term(x0: &Tensor, origin: &Tensor, weight: f64, cosine: f64) -> Result<Tensor> {
    (x0 - origin)?.abs()?.mean_all()? * (weight * cosine)
}
