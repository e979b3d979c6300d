//! The one-dimensional transforms of Winograd's F(m, 3).

use crate::simd::Lanes;

/// The matrices A, B and G applied to vectors of sixteen channels.
///
/// `m` outputs of a filter of three taps take `t = m + 2` products: `y = A^T [ (G g) * (B^T d) ]`. In two dimensions this is done along
/// rows, then along columns.
pub(super) trait Points<const M: usize, const T: usize> {
    /// `B^T d`
    fn data<V: Lanes>(d: [V; T]) -> [V; T];
    /// `G g`
    fn filter<V: Lanes>(g: [V; 3]) -> [V; T];
    /// `A^T p`
    fn output<V: Lanes>(p: [V; T]) -> [V; M];
    /// `A y`, the adjoint of [`Self::output`].
    fn output_adjoint<V: Lanes>(y: [V; M]) -> [V; T];
    /// `G^T u`, the adjoint of [`Self::filter`].
    fn filter_adjoint<V: Lanes>(u: [V; T]) -> [V; 3];
}

/// F(2, 3) on the points 0, 1, -1 and infinity.
pub(super) struct F2;

impl Points<2, 4> for F2 {
    #[inline(always)]
    fn data<V: Lanes>(d: [V; 4]) -> [V; 4] {
        [
            d[0].sub(d[2]),
            d[1].add(d[2]),
            d[2].sub(d[1]),
            d[3].sub(d[1]),
        ]
    }
    #[inline(always)]
    fn filter<V: Lanes>(g: [V; 3]) -> [V; 4] {
        let half = V::splat(0.5);
        let (even, odd) = (g[0].add(g[2]).mul(half), g[1].mul(half));
        [g[0], even.add(odd), even.sub(odd), g[2]]
    }
    #[inline(always)]
    fn output<V: Lanes>(p: [V; 4]) -> [V; 2] {
        [p[0].add(p[1].add(p[2])), p[1].sub(p[2]).add(p[3])]
    }
    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: [V; 2]) -> [V; 4] {
        [y[0], y[0].add(y[1]), y[0].sub(y[1]), y[1]]
    }
    #[inline(always)]
    fn filter_adjoint<V: Lanes>(u: [V; 4]) -> [V; 3] {
        let half = V::splat(0.5);
        let (even, odd) = (u[1].add(u[2]).mul(half), u[1].sub(u[2]).mul(half));
        [u[0].add(even), odd, even.add(u[3])]
    }
}

/// F(4, 3) on the points 0, a, -a, b, -b and infinity with a = sqrt(1/2), b = sqrt(2).
///
/// With the usual points 1 and 2, rounding errors are five times larger.
pub(super) struct F4;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

impl Points<4, 6> for F4 {
    #[inline(always)]
    fn data<V: Lanes>(d: [V; 6]) -> [V; 6] {
        let (two, half, mid) = (V::splat(2.0), V::splat(0.5), V::splat(2.5));
        let (a, b) = (V::splat(A), V::splat(B));
        let even_a = d[2].neg_mul_add(two, d[4]);
        let odd_a = d[1].neg_mul_add(two, d[3]);
        let even_b = d[2].neg_mul_add(half, d[4]);
        let odd_b = d[1].neg_mul_add(half, d[3]);
        [
            d[2].neg_mul_add(mid, d[0].add(d[4])),
            odd_a.mul_add(a, even_a),
            odd_a.neg_mul_add(a, even_a),
            odd_b.mul_add(b, even_b),
            odd_b.neg_mul_add(b, even_b),
            d[3].neg_mul_add(mid, d[1].add(d[5])),
        ]
    }
    #[inline(always)]
    fn filter<V: Lanes>(g: [V; 3]) -> [V; 6] {
        let even_a = g[2].mul_add(V::splat(0.5), g[0]).mul(V::splat(-2.0 / 3.0));
        let odd_a = V::splat(-2.0 / 3.0 * A);
        let even_b = g[2].mul_add(V::splat(2.0), g[0]).mul(V::splat(1.0 / 6.0));
        let odd_b = V::splat(B / 6.0);
        [
            g[0],
            g[1].mul_add(odd_a, even_a),
            g[1].neg_mul_add(odd_a, even_a),
            g[1].mul_add(odd_b, even_b),
            g[1].neg_mul_add(odd_b, even_b),
            g[2],
        ]
    }
    #[inline(always)]
    fn output<V: Lanes>(p: [V; 6]) -> [V; 4] {
        let (two, half) = (V::splat(2.0), V::splat(0.5));
        let (sum_a, difference_a) = (p[1].add(p[2]), p[1].sub(p[2]).mul(V::splat(A)));
        let (sum_b, difference_b) = (p[3].add(p[4]), p[3].sub(p[4]).mul(V::splat(B)));
        [
            p[0].add(sum_a.add(sum_b)),
            difference_a.add(difference_b),
            sum_b.mul_add(two, sum_a.mul(half)),
            difference_b.mul_add(two, difference_a.mul_add(half, p[5])),
        ]
    }
    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: [V; 4]) -> [V; 6] {
        let (two, half) = (V::splat(2.0), V::splat(0.5));
        let (a, b) = (V::splat(A), V::splat(B));
        let (even_a, odd_a) = (y[2].mul_add(half, y[0]), y[3].mul_add(half, y[1]));
        let (even_b, odd_b) = (y[2].mul_add(two, y[0]), y[3].mul_add(two, y[1]));
        [
            y[0],
            odd_a.mul_add(a, even_a),
            odd_a.neg_mul_add(a, even_a),
            odd_b.mul_add(b, even_b),
            odd_b.neg_mul_add(b, even_b),
            y[3],
        ]
    }
    #[inline(always)]
    fn filter_adjoint<V: Lanes>(u: [V; 6]) -> [V; 3] {
        let third = V::splat(1.0 / 3.0);
        let (sum_a, difference_a) = (u[1].add(u[2]), u[1].sub(u[2]));
        let (sum_b, difference_b) = (u[3].add(u[4]), u[3].sub(u[4]));
        let low = sum_b.mul_add(V::splat(1.0 / 6.0), sum_a.mul(V::splat(-2.0 / 3.0)));
        let middle = difference_a.mul(V::splat(-2.0 / 3.0 * A));
        [
            u[0].add(low),
            difference_b.mul_add(V::splat(B / 6.0), middle),
            sum_b.sub(sum_a).mul_add(third, u[5]),
        ]
    }
}
