//! Layers whose factors are rounded to a narrower type.

use candle_core::{DType, Result, Tensor};

/// The result of `layer` for `x` rounded to `dtype`, in the type of `x`.
pub(crate) fn narrowed(
    x: &Tensor,
    dtype: DType,
    layer: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    layer(&x.to_dtype(dtype)?)?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use crate::{Clip, ClipConfig, Dinov2, Dinov2Config, IdentityNet, Inception, Lpips, LpipsNet};
    use candle_core::{DType, Device, Result, Tensor};
    use sdft_nn::{ParamSpec, Params};

    /// The distance of features in bf16 from those in f32, relative to their length.
    fn error(
        specs: Result<Vec<ParamSpec>>,
        side: usize,
        features: impl Fn(&Params, DType, &Tensor) -> Result<Tensor>,
    ) -> f64 {
        let params = Params::init(&specs.unwrap(), 1, &Device::Cpu).unwrap();
        let values = (0..2 * 3 * side * side).map(|i| ((i * i % 9973) as f32 * 0.1).sin());
        let x = Tensor::from_iter(values, &Device::Cpu).unwrap();
        let x = x.reshape((2, 3, side, side)).unwrap();
        let of = |dtype| {
            let y = features(&params, dtype, &x).unwrap();
            let y = y.flatten_all().unwrap().to_vec1::<f32>();
            y.unwrap().into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let (exact, rounded) = (of(DType::F32), of(DType::BF16));
        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let difference: Vec<f64> = exact.iter().zip(&rounded).map(|(a, b)| a - b).collect();
        length(&difference) / length(&exact)
    }

    #[test]
    fn networks_in_bf16_round_and_return_f32() {
        let clip = ClipConfig {
            image: [64, 2, 2],
            ..ClipConfig::vit_b(32)
        };
        let dinov2 = Dinov2Config {
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 56,
            ..Dinov2Config::default()
        };
        let errors = [
            error(Inception::specs(), 139, |params, dtype, x| {
                let net = Inception::load(params)?.with_compute_dtype(dtype);
                net.features(x)
            }),
            error(Lpips::specs(LpipsNet::Vgg), 64, |params, dtype, x| {
                let net = Lpips::load(LpipsNet::Vgg, params)?.with_compute_dtype(dtype);
                net.maps(x)?[4].contiguous()
            }),
            error(IdentityNet::specs(), 256, |params, dtype, x| {
                let net = IdentityNet::load(params)?.with_compute_dtype(dtype);
                net.embed(x)
            }),
            error(Clip::specs(clip), 224, |params, dtype, x| {
                let net = Clip::load(clip, params)?.with_compute_dtype(dtype);
                net.image_features(x)
            }),
            error(Dinov2::specs(&dinov2), 56, |params, dtype, x| {
                let net = Dinov2::load(dinov2.clone(), params)?.with_compute_dtype(dtype);
                net.features(x)
            }),
        ];
        // bf16 has 8 bits: one rounding is up to 0.002.
        for (i, error) in errors.into_iter().enumerate() {
            assert!(error > 1e-5 && error < 0.02, "network {i}: {error}");
        }
    }
}
