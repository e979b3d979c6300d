//! One source for three instruction sets: [`Simd::run`] compiles a [`Task`], generic over a vector of sixteen floats, once per set.

// The compiler gives a function the instructions of its caller only by inlining it, so a task and all that it calls are
// `#[inline(always)]`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::micro::Product;

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Simd {
    /// The baseline of the build target.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// The instruction sets of this machine, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "no other set there")
        )]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    all.push(Self::Avx512);
                }
            }
        }
        all
    }

    /// The fastest available, or the one of this name (`avx512`, `avx2`, `portable`) if it is available.
    pub(super) fn choose(name: Option<&str>) -> Self {
        let all = Self::available();
        let named = name.and_then(|name| all.iter().find(|simd| simd.name() == name).copied());
        named.or(all.last().copied()).unwrap_or(Self::Portable)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable if cfg!(target_arch = "aarch64") => "neon",
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// Runs a task compiled for this instruction set.
    pub(crate) fn run<K: Task>(self, task: K) -> K::Output {
        match self {
            Self::Portable => task.run::<portable::Lanes16>(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: values other than `Portable` come from `available`, which asked the processor.
            Self::Avx2 => unsafe { avx2::run(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::run(task) },
        }
    }

    /// Runs plain loops compiled for this instruction set; the closure must be `#[inline(always)]`.
    ///
    /// A closure that writes through a pointer must own the pointer (`move`). A write through a borrowed one might change the pointer,
    /// so the compiler would read it again for every element and build no vector code.
    pub(crate) fn vectorise<R>(self, f: impl FnOnce() -> R) -> R {
        self.vectorise_fused(
            #[inline(always)]
            |_| f(),
        )
    }

    /// As [`Self::vectorise`], for loops that multiply and add.
    pub(crate) fn vectorise_fused<R>(self, f: impl FnOnce(Fused) -> R) -> R {
        struct Plain<F>(F);
        impl<R, F: FnOnce(Fused) -> R> Task for Plain<F> {
            type Output = R;
            #[inline(always)]
            fn run<V: Lanes>(self) -> R {
                (self.0)(Fused(V::FUSED))
            }
        }
        self.run(Plain(f))
    }
}

/// Whether the instruction set can multiply and add with one rounding. A constant in code that is compiled for a set, so the test for it
/// is left out there.
#[derive(Clone, Copy, Debug)]
pub struct Fused(bool);

impl Fused {
    /// `a b + c`, rounded once where the instruction set can.
    #[inline(always)]
    pub(crate) fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if self.0 { a.mul_add(b, c) } else { a * b + c }
    }
}

/// A piece of work written for any vector type.
pub(crate) trait Task {
    type Output;
    /// Must be `#[inline(always)]`.
    fn run<V: Lanes>(self) -> Self::Output;
}

/// Sixteen floats. Values exist only inside [`Simd::run`], where the instructions are available.
///
/// # Safety of the pointer methods
/// They read or write sixteen floats (or the first `n < 16`) at a pointer that must be valid for that;
/// alignment does not matter.
pub(crate) trait Lanes: Copy {
    /// Whether [`Self::mul_add`] rounds once.
    const FUSED: bool;
    fn zero() -> Self;
    fn splat(x: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once where the instruction set can.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `term - self * factor`.
    fn neg_mul_add(self, factor: Self, term: Self) -> Self;
    /// Element j of vector i becomes element i of vector j.
    fn transpose(rows: [Self; 16]) -> [Self; 16];
    /// # Safety
    /// Sixteen readable floats.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// Sixteen writable floats.
    unsafe fn store(self, to: *mut f32);
    /// The first `n` lanes from memory, zeros in the others.
    /// # Safety
    /// `n` readable floats, `n < 16`.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    /// # Safety
    /// `n` writable floats, `n < 16`.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    /// The matrix product with the register block that suits the instruction set.
    /// # Safety
    /// As [`Product::run`].
    unsafe fn product(product: &Product);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exercise;

    impl Task for Exercise {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<V: Lanes>(self) -> Vec<f32> {
            let data: Vec<f32> = (0..256).map(|i| i as f32).collect();
            let mut rows = [V::zero(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: 256 floats.
                *row = unsafe { V::load(data.as_ptr().add(16 * i)) };
            }
            let mut out = vec![-1.0f32; 256 + 64];
            for (i, row) in V::transpose(rows).into_iter().enumerate() {
                // SAFETY: more than 256 floats.
                unsafe { row.store(out.as_mut_ptr().add(16 * i)) };
            }
            let (two, three) = (V::splat(2.0), V::splat(3.0));
            // SAFETY: four more blocks of sixteen; eleven floats of the input.
            unsafe {
                let eleven = V::load_first(data.as_ptr(), 11);
                eleven.mul_add(two, three).store(out.as_mut_ptr().add(256));
                eleven
                    .neg_mul_add(two, three)
                    .sub(two.mul(three))
                    .store(out.as_mut_ptr().add(272));
                eleven.add(two).store_first(out.as_mut_ptr().add(288), 5);
                eleven.store_first(out.as_mut_ptr().add(304), 0);
            }
            out
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        for simd in Simd::available() {
            let out = simd.run(Exercise);
            for (i, &value) in out[..256].iter().enumerate() {
                assert_eq!(value, (i % 16 * 16 + i / 16) as f32, "{simd:?}");
            }
            for i in 0..16 {
                let x = if i < 11 { i as f32 } else { 0.0 };
                assert_eq!(out[256 + i], 2.0 * x + 3.0, "{simd:?}");
                assert_eq!(out[272 + i], 3.0 - 2.0 * x - 6.0, "{simd:?}");
                assert_eq!(out[288 + i], if i < 5 { x + 2.0 } else { -1.0 }, "{simd:?}");
                assert_eq!(out[304 + i], -1.0, "{simd:?}");
            }
        }
    }

    #[test]
    fn an_unknown_or_missing_name_gives_the_fastest_set() {
        let best = Simd::available().last().copied().unwrap();
        assert_eq!(Simd::choose(None), best);
        assert_eq!(Simd::choose(Some("abacus")), best);
        assert_eq!(Simd::choose(Some("portable")), Simd::Portable);
    }
}
