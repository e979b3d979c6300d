use crate::args::JudgeArgs;
use crate::{assets, console};
use anyhow::Result;
use candle_core::DType;
use sdft_eval::{Extractor, View};
use sdft_features::DigitsJudge;
use sdft_models::read_params_bytes;
use sdft_nn::Params;
use std::collections::BTreeMap;

/// Trains the judge and writes it.
pub(crate) fn judge(args: &JudgeArgs) -> Result<()> {
    let (params, report) = sdft_eval::train_judge(args.seed, |step, steps, loss| {
        if step % 100 == 0 {
            console::note(&format!("step {step}/{steps} loss {loss:.4}"));
        }
    })?;
    let metadata = BTreeMap::from([
        ("sdft.kind".to_owned(), "digits-judge".to_owned()),
        ("sdft.provenance.seed".to_owned(), args.seed.to_string()),
        (
            "sdft.provenance.class_accuracy".to_owned(),
            format!("{:.4}", report.class_accuracy),
        ),
    ]);
    sdft_checkpoint::write_safetensors(&args.out, params.iter(), &metadata, Some(DType::F16))?;
    console::line(format_args!(
        "{}: class accuracy {:.3}, style accuracy {:.3} on {} held-out images",
        args.out.display(),
        report.class_accuracy,
        report.style_accuracy,
        report.n
    ))?;
    Ok(())
}

/// The judge's features for sets of digits.
pub(crate) fn extractor() -> Result<Extractor> {
    let hash = sdft_checkpoint::sha256_bytes(assets::DIGITS_JUDGE_WEIGHTS);
    Ok(Extractor::new(View::Digits, &params()?, hash)?)
}

fn params() -> Result<Params> {
    Ok(read_params_bytes(
        "digits-judge",
        assets::DIGITS_JUDGE_WEIGHTS,
        &DigitsJudge::specs()?,
    )?)
}

/// The judge that the program carries with it.
pub(crate) fn load() -> Result<DigitsJudge> {
    Ok(DigitsJudge::load(&params()?)?)
}
