use candle_core::*; use sdft_optim::*; use std::time::Instant;
fn main() {
    let n = 256*1024usize; let k=120;
    let params: Vec<(String, Var)> = (0..k).map(|i| (format!("p{i}"), Var::from_tensor(&Tensor::full(0.5f32, n, &Device::Cpu).unwrap()).unwrap())).collect();
    let grads: Vec<Option<Tensor>> = (0..k).map(|_| Some(Tensor::full(0.25f32, n, &Device::Cpu).unwrap())).collect();
    let mut o = Optimizer::new(Rule::AdamW(AdamW::default()), &params).unwrap();
    let mut e = Ema::new(0.99, EmaRamp::None, &params).unwrap();
    for t in [1usize,2] { let pool = rayon::ThreadPoolBuilder::new().num_threads(t).build().unwrap(); pool.install(|| for _ in 0..4 {
        let a=Instant::now(); o.step(&grads,1e-4,1.0).unwrap(); let b=a.elapsed(); let a=Instant::now(); e.update().unwrap(); let c=a.elapsed(); let a=Instant::now(); global_norm(&grads).unwrap(); let d=a.elapsed();
        println!("threads {t} 31.5M: step {b:?} ema {c:?} norm {d:?}");
    }); }
}
