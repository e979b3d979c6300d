//! Cosines: identity and directional similarity.

use crate::features::{Features, enough, same_dim};
use crate::{MetricsError, Result};

/// Added to the length of an image direction, as in the reference.
const EPS: f64 = 1e-7;

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn unit(what: &'static str, x: &[f64]) -> Result<Vec<f64>> {
    let length = length(x);
    if length > 0.0 {
        Ok(x.iter().map(|v| v / length).collect())
    } else {
        Err(MetricsError::Zero { what })
    }
}

/// The cosine of the angle between two vectors, -1 to 1. For two face embeddings it is the identity similarity.
///
/// # Errors
/// Fails if the vectors have different lengths or one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> Result<f64> {
    same_dim("a cosine", a.len(), b.len())?;
    let (a, b) = (unit("a vector", &wide(a))?, unit("a vector", &wide(b))?);
    Ok(a.iter().zip(&b).map(|(a, b)| a * b).sum())
}

/// The direction from one text to another: the unit vector along the mean, over templates, of the differences of unit vectors.
///
/// # Shapes
/// - `source`, `target`: one row for each template, in the same order
///
/// # Errors
/// Fails if the sets have different shapes or no rows, or if the texts have the same features and so no direction.
pub fn text_direction(source: &Features, target: &Features) -> Result<Vec<f64>> {
    same_dim("a text direction", source.dim(), target.dim())?;
    same_dim("templates", source.n(), target.n())?;
    enough("a text direction", source.n(), 1)?;
    let mut sum = vec![0.0; source.dim()];
    for (a, b) in source.rows().zip(target.rows()) {
        let (a, b) = (unit("a text", &wide(a))?, unit("a text", &wide(b))?);
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            *sum += b - a;
        }
    }
    unit("the direction between the texts", &sum)
}

/// Directional similarity: the cosine between an edit of an image and a direction between texts, -1 to 1.
///
/// ```text
/// d = unit(edited) - unit(source),   S_dir = d / (|d| + 1e-7) . direction
/// ```
/// Source: the directional CLIP loss of StyleGAN-NADA, DiffusionCLIP and Asyrp, which is one minus this.
///
/// # Errors
/// Fails if the vectors have different lengths or an image's vector is zero.
pub fn directional_similarity(source: &[f32], edited: &[f32], direction: &[f64]) -> Result<f64> {
    same_dim("an image direction", source.len(), edited.len())?;
    same_dim("a directional similarity", source.len(), direction.len())?;
    let (a, b) = (
        unit("an image", &wide(source))?,
        unit("an image", &wide(edited))?,
    );
    let d: Vec<f64> = b.iter().zip(&a).map(|(b, a)| b - a).collect();
    let length = length(&d) + EPS;
    Ok(d.iter().zip(direction).map(|(d, t)| d / length * t).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_simple_vectors() {
        assert!((cosine(&[3.0, 0.0], &[1.0, 1.0]).unwrap() - 0.5f64.sqrt()).abs() < 1e-12);
        assert!(matches!(
            cosine(&[0.0; 2], &[1.0; 2]),
            Err(MetricsError::Zero { .. })
        ));
        assert!(cosine(&[1.0], &[1.0; 2]).is_err());
        let text = |rows: &[f32]| Features::new(rows.to_vec(), 2).unwrap();
        let direction = text_direction(&text(&[2.0, 0.0, 1.0, 0.0]), &text(&[0.0, 5.0, 0.0, 1.0]));
        let direction = direction.unwrap();
        let half = 0.5f64.sqrt();
        assert!((direction[0] + half).abs() < 1e-12 && (direction[1] - half).abs() < 1e-12);
        let moved = directional_similarity(&[1.0, 0.0], &[0.0, 2.0], &direction).unwrap();
        assert!((moved - 1.0).abs() < 1e-6);
        let back = directional_similarity(&[0.0, 1.0], &[1.0, 0.0], &direction).unwrap();
        assert!((back + 1.0).abs() < 1e-6);
        // An image that does not change has similarity 0.
        let still = directional_similarity(&[1.0, 0.0], &[2.0, 0.0], &direction).unwrap();
        assert_eq!(still, 0.0);
        assert!(text_direction(&text(&[1.0, 0.0]), &text(&[2.0, 0.0])).is_err());
    }
}
