//! Cases of the kinds `unet2d.*`.

use super::Outputs;
use super::unet::{check_count, run};
use anyhow::{Context, Result};
use sdft_testing::{Case, compute_dtype};
use sdft_unet2d::{Unet2d, Unet2dConfig};

pub(super) fn forward_backward(case: &Case) -> Result<Outputs> {
    let json = case.get("model")?.as_object();
    let config = Unet2dConfig::from_json(json.context("model: expected an object")?)?;
    let params = case.weights("model", &Unet2d::specs(&config)?)?;
    check_count(case, &params)?;
    let (params, vars) = params.trainable()?;
    let unet = Unet2d::load(&params, &config)?.with_compute_dtype(compute_dtype());
    run(case, vars, |x, t, labels| unet.forward(x, t, labels, None))
}
