//! Cases of networks that measure images.

use super::{Outputs, put};
use anyhow::{Result, anyhow, bail, ensure};
use candle_core::{DType, Tensor};
use sdft_features::{
    Dinov2, Dinov2Config, INCEPTION_FEATURES, INCEPTION_SIDE, IdentityNet, Inception,
    InceptionResize, Lpips, LpipsNet, inception_plane,
};
use sdft_imaging::{Filter, Rgb8, Sampling, enlarge, interpolate, resize, to_unit_range};
use sdft_testing::{Array, Case, device};

pub(super) fn lpips(case: &Case) -> Result<Outputs> {
    let net = match case.get("net")?.as_str() {
        Some("alex") => LpipsNet::Alex,
        Some("vgg") => LpipsNet::Vgg,
        _ => bail!("unknown net {}", case.get("net")?),
    };
    ensure!(
        case.get("version")?.as_str() == Some("0.1"),
        "unknown version"
    );
    let lpips = Lpips::load(net, &case.weights("lpips", &Lpips::specs(net)?)?)?;
    let input = |name| -> Result<Tensor> {
        let x = case.input(name)?;
        Ok(if case.flag("normalize", false)? {
            x.affine(2.0, -1.0)?
        } else {
            x
        })
    };
    let (a, b) = (input("a")?, input("b")?);
    let distance = lpips.distance(&a, &b)?;
    let mut out = Outputs::new();
    put(&mut out, "lpips", &distance.total)?;
    put(&mut out, "per_layer", &distance.per_layer)?;
    for (i, map) in lpips.maps(&a)?.iter().enumerate() {
        let mean = map.flatten_from(2)?.mean(2)?;
        put(&mut out, format!("feature_mean_{i}"), &mean)?;
    }
    Ok(out)
}

pub(super) fn inception(case: &Case) -> Result<Outputs> {
    let inception = Inception::load(&case.weights("inception", &Inception::specs()?)?)?;
    let mut x = case.input("x")?;
    if case.flag("resize_input", true)? {
        let (b, c, _, w) = x.dims4()?;
        let mut planes = Vec::new();
        for plane in x.flatten_to(1)?.flatten_from(1)?.to_vec2::<f32>()? {
            planes.extend(interpolate(
                &plane,
                w,
                INCEPTION_SIDE,
                INCEPTION_SIDE,
                Sampling::Centres,
            ));
        }
        x = Tensor::from_vec(planes, (b, c, INCEPTION_SIDE, INCEPTION_SIDE), device())?;
    }
    if case.flag("normalize_input", true)? {
        x = x.affine(2.0, -1.0)?;
    }
    let mut out = Outputs::new();
    for map in inception.maps(&x)? {
        let mut dims = map.dims().to_vec();
        if dims[1] == INCEPTION_FEATURES {
            // The reference's last block ends with the mean.
            dims[2..].fill(1);
        }
        put(
            &mut out,
            format!("pool_{}", dims[1]),
            &map.flatten_from(2)?.mean(2)?,
        )?;
        out.insert(format!("shape_{}", dims[1]), Array::indices(&dims));
    }
    Ok(out)
}

pub(super) fn dinov2(case: &Case) -> Result<Outputs> {
    let model = case.get("model")?.as_object();
    let config = Dinov2Config::from_json(model.ok_or_else(|| anyhow!("model is no object"))?)?;
    let params = case.weights("model", &Dinov2::specs(&config)?)?;
    let tokens = Dinov2::load(config, &params)?.tokens(&case.input("x")?)?;
    let patches = (tokens.dim(1)? - 1).min(3);
    let mut out = Outputs::new();
    put(&mut out, "cls", &tokens.narrow(1, 0, 1)?.squeeze(1)?)?;
    put(&mut out, "patches", &tokens.narrow(1, 1, patches)?)?;
    Ok(out)
}

pub(super) fn irse50(case: &Case) -> Result<Outputs> {
    let net = IdentityNet::load(&case.weights("irse50", &IdentityNet::specs()?)?)?;
    let factor = case.count("nearest_upsample")?;
    let (n, h, w, pixels) = pictures(case, "images")?;
    let mut x = Vec::new();
    for pixels in pixels.chunks_exact(3 * h * w) {
        let image = enlarge(&Rgb8::new(w, h, pixels.to_vec())?, factor);
        x.extend(to_unit_range(&image));
    }
    let x = Tensor::from_vec(x, (n, 3, factor * h, factor * w), device())?;
    let (face, embedding) = (IdentityNet::face(&x)?, net.embed(&x)?);
    let mut out = Outputs::new();
    put(&mut out, "embedding", &embedding)?;
    put(&mut out, "pooled_mean", &face.flatten_from(2)?.mean(2)?)?;
    put(&mut out, "pooled_sub", &strided(&face, [13, 11])?)?;
    let similarity = (embedding.get(0)? * embedding.get(1)?)?
        .to_dtype(DType::F64)?
        .sum_all()?
        .to_scalar::<f64>()?;
    out.insert("id_similarity".into(), Array::vector(vec![similarity]));
    out.insert("id_loss".into(), Array::vector(vec![1.0 - similarity]));
    Ok(out)
}

/// Every `rows`-th row and `columns`-th column of `[B, C, H, W]`.
fn strided(x: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let every = |side: usize, step: usize| -> Result<Tensor> {
        let places: Vec<u32> = (0..u32::try_from(side)?).step_by(step).collect();
        Ok(Tensor::new(places, device())?)
    };
    let x = x.contiguous()?.index_select(&every(h, rows)?, 2)?;
    Ok(x.index_select(&every(w, columns)?, 3)?)
}

/// Number, height, width and bytes of `[N, H, W, 3]` or `[H, W, 3]`.
pub(super) fn pictures(case: &Case, name: &str) -> Result<(usize, usize, usize, Vec<u8>)> {
    let stored = case.stored(name)?;
    let (n, h, w) = match *stored.dims() {
        [h, w, 3] => (1, h, w),
        [n, h, w, 3] => (n, h, w),
        ref other => bail!("{name}: {other:?} are no pictures"),
    };
    Ok((n, h, w, stored.flatten_all()?.to_vec1::<u8>()?))
}

pub(super) fn resize_modes(case: &Case) -> Result<Outputs> {
    let (_, h, w, pixels) = pictures(case, "image")?;
    let image = Rgb8::new(w, h, pixels)?;
    let side = case.count("output_size")?;
    ensure!(side == INCEPTION_SIDE, "an output of {side} pixels");
    let stride: Vec<usize> = serde_json::from_value(case.get("stride")?.clone())
        .map_err(|_| anyhow!("config.stride is no pair"))?;
    let [rows, columns] = stride[..] else {
        bail!("config.stride is no pair");
    };
    // Planes `[3][side, side]` to every so many rows and columns of `[side, side, 3]`.
    let sub = |planes: &[Vec<f32>]| {
        let mut data = Vec::new();
        for y in (0..side).step_by(rows) {
            for x in (0..side).step_by(columns) {
                data.extend(planes.iter().map(|plane| f64::from(plane[y * side + x])));
            }
        }
        let shape = vec![side.div_ceil(rows), side.div_ceil(columns), 3];
        Array { shape, data }
    };
    let planes = |f: &dyn Fn(Vec<f32>) -> Vec<f32>| -> Vec<Vec<f32>> {
        let channel = |c: usize| image.pixels.iter().skip(c).step_by(3);
        (0..3)
            .map(|c| f(channel(c).map(|&v| f32::from(v)).collect()))
            .collect()
    };
    let clean = planes(&|p| inception_plane(&p, w, InceptionResize::Clean));
    let bilinear = planes(&|p| inception_plane(&p, w, InceptionResize::PytorchFid));
    let unit = planes(&|p| {
        let p: Vec<f32> = p.into_iter().map(|v| v / 255.0).collect();
        interpolate(&p, w, side, side, Sampling::Centres)
    });
    let small = resize(&image, side, side, Filter::Bicubic);
    let levels: Vec<Vec<f32>> = (0..3)
        .map(|c| {
            let channel = small.pixels.iter().skip(c).step_by(3);
            channel.map(|&v| f32::from(v)).collect()
        })
        .collect();
    let sum = clean.iter().flatten().map(|&v| f64::from(v)).sum();
    Ok(Outputs::from([
        ("clean_bicubic".to_owned(), sub(&clean)),
        ("clean_bicubic_sum".to_owned(), Array::scalar(sum)),
        ("legacy_bilinear".to_owned(), sub(&bilinear)),
        ("pytorch_fid_bilinear01".to_owned(), sub(&unit)),
        ("pil_bicubic_uint8".to_owned(), sub(&levels)),
    ]))
}
