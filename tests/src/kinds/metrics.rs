//! Cases of the kinds `metrics.*`.

use super::Outputs;
use super::features::pictures;
use anyhow::{Result, ensure};
use sdft_metrics::{
    Features, KidOptions, Moments, Picture, SsimWindow, Statistics, fid, kid_of_subsets,
    mmd2_unbiased, mse, psnr, psnr_floored, ssim, ssim_gray,
};
use sdft_testing::{Array, Case};

fn features(case: &Case, name: &str) -> Result<Features> {
    let x = case.input(name)?;
    let dim = x.dim(1)?;
    Ok(Features::new(x.flatten_all()?.to_vec1::<f32>()?, dim)?)
}

pub(super) fn frechet(case: &Case) -> Result<Outputs> {
    let statistics =
        |name| -> Result<Statistics> { Ok(Moments::of(&features(case, name)?)?.statistics()?) };
    let (a, b) = (statistics("features_1")?, statistics("features_2")?);
    let value = fid(&a, &b)?.value;
    let dim = a.dim();
    Ok(Outputs::from([
        ("fid".to_owned(), Array::scalar(value)),
        ("fid_scipy_sqrtm".to_owned(), Array::scalar(value)),
        ("mu_1".to_owned(), Array::vector(a.mean().to_vec())),
        (
            "sigma_1".to_owned(),
            Array {
                shape: vec![dim, dim],
                data: a.covariance().to_vec(),
            },
        ),
    ]))
}

pub(super) fn kernel(case: &Case) -> Result<Outputs> {
    ensure!(
        case.get("gamma")?.as_str() == Some("1/dim"),
        "unknown gamma {}",
        case.get("gamma")?
    );
    let options = KidOptions {
        degree: i32::try_from(case.count("degree")?)?,
        coef0: case.number("coef0")?,
        gamma: None,
    };
    let (a, b) = (features(case, "features_1")?, features(case, "features_2")?);
    let places = |name| -> Result<Vec<Vec<usize>>> {
        let size = case.stored(name)?.dim(1)?;
        let all = case.steps(name)?;
        Ok(all.chunks_exact(size).map(<[usize]>::to_vec).collect())
    };
    let subsets: Vec<_> = places("subset_1")?
        .into_iter()
        .zip(places("subset_2")?)
        .collect();
    let (values, kid) = kid_of_subsets(&a, &b, &subsets, &options)?;
    let n: Vec<usize> = (0..a.n().min(b.n())).collect();
    let whole = mmd2_unbiased(&a.select(&n)?, &b.select(&n)?, &options)?;
    Ok(Outputs::from([
        ("mmd2_per_subset".to_owned(), Array::vector(values)),
        ("kid_mean".to_owned(), Array::scalar(kid.mean)),
        ("kid_std".to_owned(), Array::scalar(kid.std)),
        ("kid_cleanfid".to_owned(), Array::scalar(kid.mean)),
        ("mmd2_full_unbiased".to_owned(), Array::scalar(whole)),
    ]))
}

/// A score of a pair.
type Score = fn(&Picture<'_>, &Picture<'_>) -> sdft_metrics::Result<f64>;

const SCORES: [(&str, Score); 7] = [
    ("psnr_u8", psnr),
    ("psnr_float01_eps", psnr_floored),
    ("mse_float01", mse),
    ("ssim_gauss_u8", |a, b| ssim(a, b, SsimWindow::Gaussian11)),
    ("ssim_torch_float01", |a, b| {
        ssim(a, b, SsimWindow::Gaussian11)
    }),
    ("ssim_uniform7_u8", |a, b| ssim(a, b, SsimWindow::Uniform7)),
    ("ssim_gauss_gray", ssim_gray),
];

pub(super) fn pairs(case: &Case) -> Result<Outputs> {
    let ((_, h, w, a), (_, _, _, b)) = (pictures(case, "a")?, pictures(case, "b")?);
    let pairs = || a.chunks_exact(3 * h * w).zip(b.chunks_exact(3 * h * w));
    let mut out = Outputs::new();
    for (name, score) in SCORES {
        let values = pairs()
            .map(|(a, b)| Ok(score(&Picture::rgb8(a, w, h)?, &Picture::rgb8(b, w, h)?)?))
            .collect::<Result<Vec<f64>>>()?;
        out.insert(name.to_owned(), Array::vector(values));
    }
    Ok(out)
}
