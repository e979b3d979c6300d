//! The denoiser D: a network with its preconditioning.

use crate::unet::EdmUnet;
use crate::{EdmConfig, EdmInputs};
use candle_core::{DType, Result, Tensor, bail};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Edited, FeatureNet, Network, Precond,
    Preconditioned, Prediction,
};
use sdft_nn::{Init, ParamSource, ParamSpec, Scope, specs_of};

/// A network of NVlabs/edm with its preconditioning.
///
/// As a [`Network`] it is called with the variance-preserving state `x_t = sqrt(ab) x0 + sqrt(1 - ab) n` and `t = sigma =
/// sqrt((1 - ab) / ab)`, and predicts the clean image. Its deepest features, those of [`BottleneckNet`] and [`FeatureNet`], are the result
/// of `{res}_in1`: the reference counts `{res}_in0` (with attention) and `{res}_in1` to the decoder, but they take no encoder result, and
/// are ADM's middle.
#[derive(Clone, Debug)]
pub struct EdmNet(Preconditioned<EdmUnet>);

impl EdmNet {
    /// The network with the parameters and constants of `source`.
    ///
    /// # Errors
    /// An invalid configuration; parameters that are missing or of another shape; constants with other values than the configuration
    /// implies.
    pub fn load(source: &dyn ParamSource, config: &EdmConfig) -> Result<Self> {
        let unet = EdmUnet::build(&Scope::root(&Constants(source)), config)?;
        Ok(Self(Preconditioned::new(unet, config.precond)))
    }

    /// The names, shapes and initial values of all parameters and constants, in the order of construction.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &EdmConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| EdmUnet::build(scope, config))
    }

    /// Whether this is the name of a constant, which is in the file and not trained.
    pub fn is_constant(name: &str) -> bool {
        name.ends_with(".resample_filter") || name == "model.map_noise.freqs"
    }

    /// The same network with activation checkpointing: in training it saves only the inputs of blocks and computes the values inside a
    /// second time.
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.0.net_mut().set_recomputed();
        self
    }

    /// The same network with feature maps of this type (bf16, f16). Parameters, norm statistics, embeddings, preconditioning and output
    /// keep their type.
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.0.net_mut().set_maps(maps);
        self
    }

    /// Network and preconditioning.
    pub fn config(&self) -> &EdmConfig {
        self.0.net().config()
    }

    /// The preconditioning.
    pub fn precond(&self) -> Precond {
        self.0.precond()
    }

    /// `D(x; sigma)`: the clean image behind a clean image plus noise of standard deviation sigma.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, W]` · `sigma`: `B` noise levels above 0 · returns: `[B, C, H, W]`
    ///
    /// # Errors
    /// Shapes that do not fit the network; a noise level that is not positive and finite; labels that are missing, unexpected or out of
    /// range.
    pub fn denoise(&self, x: &Tensor, sigma: &[f32], condition: &Condition<'_>) -> Result<Tensor> {
        self.0.denoise(x, sigma, condition)
    }

    /// [`Self::denoise`] with labels as the reference passes them, those of augmentation included.
    ///
    /// # Errors
    /// As [`Self::denoise`].
    pub fn denoise_with(
        &self,
        x: &Tensor,
        sigma: &[f32],
        inputs: &EdmInputs<'_>,
    ) -> Result<Tensor> {
        let f = |x: &Tensor, t: &[f32]| self.0.net().forward(x, t, inputs);
        self.0.denoise_by(x, sigma, f)
    }
}

/// A source whose constants are compared with those that the configuration implies.
struct Constants<'a>(&'a dyn ParamSource);

impl ParamSource for Constants<'_> {
    fn get(&self, spec: ParamSpec) -> Result<Tensor> {
        let (name, init) = (spec.name.clone(), spec.init);
        let tensor = self.0.get(spec)?;
        if let Init::Outer(taps) = init {
            let found: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let expected = taps.outer();
            let mut pairs = found.iter().zip(&expected);
            // A comparison with NaN is false.
            if !pairs.all(|(a, b)| (a - b).abs() <= 1e-6) {
                bail!(
                    "{name}: expected {expected:?}, which model.resample_filter implies, found {found:?}"
                );
            }
        }
        Ok(tensor)
    }
}

impl Denoiser for EdmNet {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.0.predict(xt, t)
    }
}

impl Network for EdmNet {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        self.0.predict_with(xt, t, condition)
    }

    fn predict_edited_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Change<'_>,
    ) -> Result<Edited> {
        self.0.predict_edited_with(xt, t, condition, change)
    }

    fn n_classes(&self) -> usize {
        self.0.n_classes()
    }
}

impl BottleneckNet for EdmNet {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        self.0.bottleneck()
    }
}

impl FeatureNet for EdmNet {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.0.features(xt, t)
    }
}
