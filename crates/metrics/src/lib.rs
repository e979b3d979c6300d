//! Metrics of image sets and image pairs, computed in f64.
//!
//! ```text
//! pairs    PSNR  10 log10(1 / mse)            SSIM  Gaussian 11 taps, or the mean over 7 x 7         cosine, directional similarity
//! sets     FID   |mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr sqrt(S_a S_b)
//!          KID   unbiased squared MMD with k(x, y) = (x.y / D + 1)^3
//!          precision, recall, density, coverage; nearest neighbours; memorisation ratio, AuthPct
//! ```
//! Features are stored in f32, as networks compute them, and every sum over them is f64. A picture has a known range of
//! values: all levels of 8 or 16 bits, or the range that its caller states.
//!
//! # Example
//! ```
//! use sdft_metrics::{Features, KidOptions, Moments, Picture, fid, mmd2_unbiased, psnr};
//!
//! let (grey, white) = ([128u8; 12], [255u8; 12]);
//! let (a, b) = (Picture::rgb8(&grey, 2, 2)?, Picture::rgb8(&white, 2, 2)?);
//! assert!((psnr(&a, &b)? - 6.054).abs() < 0.001);
//!
//! let x = Features::new(vec![0.0, 1.0, 2.0, 1.0, 4.0, 0.0], 2)?;
//! let statistics = Moments::of(&x)?.statistics()?;
//! assert!(fid(&statistics, &statistics)?.value.abs() < 1e-12);
//! assert!(mmd2_unbiased(&x, &x, &KidOptions::default())?.is_finite());
//! # Ok::<(), sdft_metrics::MetricsError>(())
//! ```
//!
//! **Invariant:** knows no tensor library, no files and no network; every metric is a pure function of its arguments.

pub use crate::{
    cosine::{cosine, directional_similarity, text_direction},
    draw::{SubsetDraw, draw_subsets},
    error::{MetricsError, Result},
    features::Features,
    fid::{Fid, fid},
    kid::{Kid, KidOptions, KidSubsets, kid, kid_of_subsets, mmd2_error, mmd2_unbiased},
    memorisation::{Memorisation, memorisation},
    moments::{Moments, Statistics},
    neighbours::{Manifold, Neighbour, manifold, nearest, nearest_others},
    picture::{Picture, PictureSamples},
    pixels::{SsimWindow, mse, psnr, psnr_floored, ssim, ssim_gray},
};

mod cosine;
mod draw;
mod error;
mod features;
mod fid;
mod kid;
mod linalg;
mod memorisation;
mod moments;
mod neighbours;
mod picture;
mod pixels;
