//! Comparing inputs with outputs.

use super::{
    EvaluatePlan, Evaluation, PairPart, PairsOptions, SetsOptions, check_out, check_range,
    precision_of, warn_of_rounding,
};
use crate::context::Context;
use crate::error::{Error, Result, failed, option};
use crate::shared::{announce, announced, check_same};
use crate::weights::Files;
use candle_core::{DType, Device};
use sdft_eval::{
    Extractor, PairNets, PairOptions, View, compare_pairs, direction_of_texts, pair_up,
};
use sdft_features::{Lpips, LpipsNet, Network};
use sdft_train::Precision;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads LPIPS, which computes in f32 on `device`; its name includes the hash of its weights.
///
/// # Errors
/// The files cannot be read, or are not those of this network.
pub fn read_lpips(net: LpipsNet, files: &Files, device: &Device) -> Result<(Lpips, String)> {
    let network = Network::Lpips(net);
    let params = network
        .read(&files.weights)
        .map_err(|e| failed(e.to_string()))?
        .to(DType::F32, device)?;
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
    let common = &options.common;
    let folders = [options.input.as_path(), options.output.as_path()];
    let precision = precision(options, context)?;
    let plan = EvaluatePlan::new(&SetsOptions::default(), options, folders, common, precision);
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
    context.note_precision(precision);
    let nets = pair_nets(options, context)?;
    announce(&networks(&nets, precision), context)?;
    let nets = nets.with_group(&context.group);
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
    let arithmetic = ("arithmetic".into(), precision.name().to_owned());
    report.settings.push(arithmetic);
    warn_of_rounding(&mut report, precision);
    Ok(Evaluation {
        report,
        strip: None,
        plan,
        out: common.out.clone(),
        overwrite: common.overwrite,
    })
}

/// On the other ranks of [`Context::group`]: computes the networks of rank 0's [`evaluate_pairs`] with the same options until it ends. Images
/// are read by rank 0 alone.
///
/// # Errors
/// Weights that are not those of rank 0; rank 0 fails or disconnects.
pub fn serve_pairs(options: &PairsOptions, context: &mut Context<'_>) -> Result<()> {
    let announced = announced(context)?;
    let nets = pair_nets(options, context)?;
    check_same(
        &announced,
        &networks(&nets, precision(options, context)?),
        context,
    )?;
    Ok(nets.serve(&context.group)?)
}

/// The networks that all ranks need.
fn networks(nets: &PairNets, precision: Precision) -> BTreeMap<&'static str, String> {
    let of = |net: &Extractor| format!("{}, {}", net.cache_key(), net.weights());
    let lpips = nets.lpips.as_ref().map(|(_, name)| name.clone());
    let text = nets.text.as_ref().map(|(net, _)| of(net));
    let all = [
        ("lpips", lpips),
        ("identity", nets.identity.as_ref().map(of)),
        ("text", text),
        ("arithmetic", Some(precision.name().to_owned())),
    ];
    all.into_iter()
        .filter_map(|(name, net)| Some((name, net?)))
        .collect()
}

/// The precision of the networks, if there are any.
fn precision(options: &PairsOptions, context: &Context<'_>) -> Result<Precision> {
    let left_out = |part| options.without.contains(&part);
    let none = options.text.is_none() && left_out(PairPart::Lpips) && left_out(PairPart::Identity);
    let reason = || "PSNR and SSIM are computed without a network".to_owned();
    precision_of(none.then(reason), context)
}

/// The networks that the options choose.
fn pair_nets(options: &PairsOptions, context: &Context<'_>) -> Result<PairNets> {
    let weights = &options.common.weights;
    let runtime = context.runtime_in(context.fine_precision());
    let (device, dtype) = (&runtime.device, runtime.compute_dtype);
    let read = |view, files: &Files| -> Result<Extractor> {
        let net = Extractor::read(view, &files.weights, device)?;
        Ok(net.with_compute_dtype(dtype))
    };
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
        let (net, name) = read_lpips(net, &files, device)?;
        nets.lpips = Some((net.with_compute_dtype(dtype), name));
    }
    if !options.without.contains(&PairPart::Identity) {
        let files = weights.of(
            Network::Identity,
            "give --weights irse50=FILE, or omit it with --without identity",
        )?;
        nets.identity = Some(read(View::Identity, &files)?);
    }
    if let Some([from, to]) = &options.text {
        let patch = options.clip.patch();
        let network = Network::Clip(patch);
        let files = weights.of(network, &format!("give --weights {}=FILE", network.name()))?;
        let Some(tokenizer) = &files.tokenizer else {
            return Err(no_tokenizer(network));
        };
        let texts = [from.as_str(), to.as_str()];
        let direction = direction_of_texts(patch, &files.weights, tokenizer, texts, device)?;
        let eye = read(View::Clip(patch), &files)?;
        nets.text = Some((eye, direction));
    }
    Ok(nets)
}

/// Weights of CLIP without a tokenizer.
pub(crate) fn no_tokenizer(network: Network) -> Error {
    failed(format!(
        "{name}: texts need the model's tokenizer.json too; give --weights {name}=tokenizer.json",
        name = network.name()
    ))
}
