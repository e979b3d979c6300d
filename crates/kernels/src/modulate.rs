//! The affine map of a norm for each image: a learned scale and shift, modulated by those of an embedding.

use crate::Real;

/// Scale `a` and shift `b` of each image, `[2, batch, c]`, from `w` and `bias` `[c]` and `e` `[batch, 2 c]`.
///
/// ```text
/// a = w (1 + scale)        b = bias (1 + scale) + shift        scale, shift = halves of e, or zeros
/// ```
pub fn modulate<T: Real>(w: &[T], bias: &[T], e: Option<&[T]>, batch: usize) -> Vec<T> {
    let c = w.len();
    let one = T::from_f64(1.0);
    let mut ab = vec![T::default(); 2 * batch * c];
    let (a, b) = ab.split_at_mut(batch * c);
    for (i, (a, b)) in a.chunks_exact_mut(c).zip(b.chunks_exact_mut(c)).enumerate() {
        match e.map(|e| e[2 * i * c..2 * (i + 1) * c].split_at(c)) {
            None => {
                a.copy_from_slice(w);
                b.copy_from_slice(bias);
            }
            Some((scale, shift)) => {
                for j in 0..c {
                    let factor = one + scale[j];
                    a[j] = w[j] * factor;
                    b[j] = bias[j] * factor + shift[j];
                }
            }
        }
    }
    ab
}

/// The gradients of `w`, `bias` and `e`, one after the other, from that of [`modulate`]'s result.
pub fn modulate_gradient<T: Real>(dab: &[T], w: &[T], bias: &[T], e: &[T]) -> Vec<T> {
    let c = w.len();
    let one = T::from_f64(1.0);
    let mut all = vec![T::default(); 2 * c + e.len()];
    let (dw, rest) = all.split_at_mut(c);
    let (dbias, de) = rest.split_at_mut(c);
    let (da, db) = dab.split_at(dab.len() / 2);
    let images = da.chunks_exact(c).zip(db.chunks_exact(c));
    let embeddings = e.chunks_exact(2 * c).zip(de.chunks_exact_mut(2 * c));
    for ((da, db), (e, de)) in images.zip(embeddings) {
        let (dscale, dshift) = de.split_at_mut(c);
        for j in 0..c {
            let factor = one + e[j];
            dw[j] += da[j] * factor;
            dbias[j] += db[j] * factor;
            dscale[j] = da[j] * w[j] + db[j] * bias[j];
            dshift[j] = db[j];
        }
    }
    all
}
