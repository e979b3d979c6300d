//! Cases of the kinds `vae.*`.

use super::{Outputs, put};
use anyhow::{Context, Result};
use candle_core::Var;
use sdft_autoencoder::{Autoencoder, AutoencoderConfig};
use sdft_testing::{Case, compute_dtype};

fn autoencoder(case: &Case) -> Result<Autoencoder> {
    let json = case.get("model")?.as_object();
    let config = AutoencoderConfig::from_fields(json.context("model: expected an object")?)?;
    let params = case.weights("model", &Autoencoder::specs(&config)?)?;
    Ok(Autoencoder::load(&params, &config)?.with_compute_dtype(compute_dtype()))
}

pub(super) fn kl(case: &Case) -> Result<Outputs> {
    let autoencoder = autoencoder(case)?;
    let moments = autoencoder.encode(&case.input("x")?)?;
    let mut out = Outputs::new();
    put(&mut out, "mean", &moments.mean)?;
    put(&mut out, "logvar", &moments.log_variance()?)?;
    put(&mut out, "z", &moments.sample(&case.input("noise")?)?)?;
    let latent = Var::from_tensor(&case.input("latent")?)?;
    let decoded = autoencoder.decode(&latent)?;
    let gradients = (&decoded * case.input("R")?)?.sum_all()?.backward()?;
    super::put_gradient(&mut out, "latent", &latent, &gradients)?;
    put(&mut out, "decoded", &decoded.detach())?;
    Ok(out)
}

pub(super) fn vq(case: &Case) -> Result<Outputs> {
    let autoencoder = autoencoder(case)?;
    let latents = autoencoder.encode(&case.input("x")?)?.mean;
    let indices = autoencoder.code_indices(&latents)?;
    let mut out = Outputs::new();
    put(&mut out, "indices", &indices.context("no codes")?)?;
    put(&mut out, "decoded", &autoencoder.decode(&latents)?)?;
    let scaled = (&latents * 1.7)?;
    let unquantized = autoencoder.decode_unquantized(&scaled)?;
    put(&mut out, "decoded_unquantized", &unquantized)?;
    put(&mut out, "latents", &latents)?;
    Ok(out)
}
