//! Comparing inputs with outputs.

use super::{
    EvaluatePlan, Evaluation, PairPart, PairsOptions, SetsOptions, check_out, check_range,
};
use crate::context::Context;
use crate::error::{Error, Result, failed, option};
use crate::weights::Files;
use sdft_eval::{
    Extractor, PairNets, PairOptions, View, compare_pairs, direction_of_texts, pair_up,
};
use sdft_features::{Lpips, LpipsNet, Network};
use std::path::Path;

/// Reads LPIPS; its name includes the hash of its weights.
///
/// # Errors
/// The files cannot be read, or are not those of this network.
pub fn read_lpips(net: LpipsNet, files: &Files) -> Result<(Lpips, String)> {
    let network = Network::Lpips(net);
    let params = network
        .read(&files.weights)
        .map_err(|e| failed(e.to_string()))?;
    let hash = sdft_eval::hash_of(&files.weights)?;
    let name = format!("{}, weights {}", network.name(), &hash[..12]);
    Ok((Lpips::load(net, &params)?, name))
}

/// A folder, and the other files in it.
fn described(folder: &Path) -> Result<String> {
    Ok(match sdft_data::list_all(folder)?.describe_skipped() {
        Some(text) => format!("{} (skipped: {text})", folder.display()),
        None => folder.display().to_string(),
    })
}

/// Compares inputs with outputs: PSNR, SSIM, LPIPS, identity and, with texts, the directional CLIP similarity.
///
/// # Errors
/// An option cannot be used, or images or weights cannot be read.
pub fn evaluate_pairs(options: &PairsOptions, context: &mut Context<'_>) -> Result<Evaluation> {
    let (common, weights) = (&options.common, &options.common.weights);
    let folders = [options.input.as_path(), options.output.as_path()];
    let plan = EvaluatePlan::new(&SetsOptions::default(), options, folders, common);
    check_range(common)?;
    check_out(common, &plan, &folders)?;
    for folder in folders {
        if !folder.is_dir() {
            return Err(option(
                "pairs",
                format!("{}: no such folder", folder.display()),
            ));
        }
    }
    let pairs = pair_up(&options.input, &options.output, options.pair_by)?;
    let mut nets = PairNets::default();
    if !options.without.contains(&PairPart::Lpips) {
        let net = options.lpips;
        let network = Network::Lpips(net);
        let files = weights.of(
            network,
            &format!(
                "give --weights {}=FILE, or omit it with --without lpips",
                network.name()
            ),
        )?;
        nets.lpips = Some(read_lpips(net, &files)?);
    }
    if !options.without.contains(&PairPart::Identity) {
        let files = weights.of(
            Network::Identity,
            "give --weights irse50=FILE, or omit it with --without identity",
        )?;
        nets.identity = Some(Extractor::read(View::Identity, &files.weights)?);
    }
    if let Some([from, to]) = &options.text {
        let patch = options.clip.patch();
        let network = Network::Clip(patch);
        let files = weights.of(network, &format!("give --weights {}=FILE", network.name()))?;
        let Some(tokenizer) = &files.tokenizer else {
            return Err(no_tokenizer(network));
        };
        let direction = direction_of_texts(patch, &files.weights, tokenizer, [from, to])?;
        nets.text = Some((
            Extractor::read(View::Clip(patch), &files.weights)?,
            direction,
        ));
    }
    let settings = PairOptions {
        size: options.size,
        range: common.range,
    };
    let mut report = compare_pairs(&pairs, &settings, &nets, &mut |done, all| {
        context.progress.images(done as f64, all);
    })?;
    let folders = [
        ("input".into(), described(&options.input)?),
        ("output".into(), described(&options.output)?),
        (
            "size".into(),
            options.size.map_or_else(
                || "as it is".to_owned(),
                |s| format!("short side {s}, bicubic"),
            ),
        ),
    ];
    report.settings.splice(0..0, folders);
    if let Some([from, to]) = &options.text {
        report
            .settings
            .push(("text".into(), format!("{from:?} to {to:?}")));
    }
    Ok(Evaluation {
        report,
        strip: None,
        plan,
        out: common.out.clone(),
        overwrite: common.overwrite,
    })
}

/// Weights of CLIP without a tokenizer.
pub(crate) fn no_tokenizer(network: Network) -> Error {
    failed(format!(
        "{name}: texts need the model's tokenizer.json too; give --weights {name}=tokenizer.json",
        name = network.name()
    ))
}
