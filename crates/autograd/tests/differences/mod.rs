//! Gradients against central differences, in f64.

use candle_core::{Device, Result, Tensor, Var};

pub(crate) fn wave(shape: &[usize], phase: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|i| (0.61 * i as f64 + phase).sin()).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Compares the gradient of `sum(f(inputs) * R)` with central differences at 8 places of each input.
pub(crate) fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|t| Var::from_tensor(t).unwrap())
        .collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let out = f(&tracked).unwrap();
    let r = wave(out.dims(), 0.9);
    let value = |inputs: &[Tensor]| {
        let out = f(inputs).unwrap();
        out.mul(&r)
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
    };
    let gradients = sdft_autograd::backward(&out.mul(&r).unwrap().sum_all().unwrap()).unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let gradient = gradients
            .get(&vars[i])
            .unwrap_or_else(|| panic!("input {i} got no gradient"));
        let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
        let base: Vec<f64> = input.flatten_all().unwrap().to_vec1().unwrap();
        for place in 0..8 {
            let j = place * (base.len() - 1) / 7;
            let h = 1e-5;
            let moved = |by: f64| {
                let mut data = base.clone();
                data[j] += by;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(data, input.shape(), &Device::Cpu).unwrap();
                value(&inputs)
            };
            let numeric = (moved(h) - moved(-h)) / (2.0 * h);
            let error = (gradient[j] - numeric).abs() / (1.0 + numeric.abs());
            assert!(
                error < 1e-7,
                "input {i}, element {j}: {} against {numeric}",
                gradient[j]
            );
        }
    }
}
