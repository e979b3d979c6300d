//! State by name: what goes out comes in again and continues bit for bit.

use candle_core::{DType, Device, Tensor, Var};
use sdft_noise::{Draw, Purpose};
use sdft_optim::{AdamW, Ema, EmaRamp, OptimError, Optimizer, Rule, Sgd};

/// One parameter larger than a chunk of the parallel loops and two small ones.
const SHAPES: [(&str, &[usize]); 3] = [
    ("conv.weight", &[40, 20, 5, 5]),
    ("conv.bias", &[40]),
    ("scale", &[]),
];

fn normal(step: u64, i: usize) -> Tensor {
    let dims = SHAPES[i].1;
    let values = Draw::new(0, Purpose::Test, step, i as u64).normals(dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn params() -> Vec<(String, Var)> {
    let var = |i: usize| Var::from_tensor(&normal(1000, i)).unwrap();
    (0..SHAPES.len())
        .map(|i| (SHAPES[i].0.to_owned(), var(i)))
        .collect()
}

fn rules() -> [Rule; 3] {
    let adamw = AdamW {
        weight_decay: 0.05,
        ..AdamW::default()
    };
    let sgd = Sgd {
        momentum: 0.9,
        weight_decay: 0.05,
    };
    [
        Rule::AdamW(adamw),
        Rule::Sgd(sgd),
        Rule::Sgd(Sgd::default()),
    ]
}

/// Steps `from..to`; the last parameter has a gradient in even steps only.
fn train(optimizer: &mut Optimizer, ema: &mut Ema, from: u64, to: u64) {
    for step in from..to {
        let grad = |i: usize| (i < 2 || step % 2 == 0).then(|| normal(step, i));
        let grads: Vec<_> = (0..SHAPES.len()).map(grad).collect();
        optimizer.step(&grads, 0.01, 0.8).unwrap();
        ema.update().unwrap();
    }
}

fn bits(tensors: &[(String, Tensor)]) -> Vec<(String, Vec<u32>)> {
    let bits = |tensor: &Tensor| {
        let flat = tensor.flatten_all().unwrap();
        match tensor.dtype() {
            DType::U32 => flat.to_vec1().unwrap(),
            _ => flat
                .to_vec1::<f32>()
                .unwrap()
                .into_iter()
                .map(f32::to_bits)
                .collect(),
        }
    };
    tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), bits(tensor)))
        .collect()
}

fn snapshot(params: &[(String, Var)]) -> Vec<(String, Tensor)> {
    let copy = |var: &Var| var.as_tensor().copy().unwrap();
    params
        .iter()
        .map(|(name, var)| (name.clone(), copy(var)))
        .collect()
}

#[test]
fn a_restored_run_equals_the_uninterrupted_one_bit_for_bit() {
    for rule in rules() {
        let whole = params();
        let mut optimizer = Optimizer::new(rule, &whole).unwrap();
        let mut ema = Ema::new(0.99, EmaRamp::Early, &whole).unwrap();
        train(&mut optimizer, &mut ema, 0, 3);
        let (weights, state, shadow) = (
            snapshot(&whole),
            optimizer.state().unwrap(),
            ema.state().unwrap(),
        );
        let n_updates = ema.n_updates();
        train(&mut optimizer, &mut ema, 3, 6);

        let resumed = params();
        let mut second = Optimizer::new(rule, &resumed).unwrap();
        let mut second_ema = Ema::new(0.99, EmaRamp::Early, &resumed).unwrap();
        for ((_, var), (_, weight)) in resumed.iter().zip(&weights) {
            var.set(weight).unwrap();
        }
        // By name: the order in the file does not matter.
        second.load_state(state.into_iter().rev()).unwrap();
        second_ema
            .load_state(shadow.into_iter().rev(), n_updates)
            .unwrap();
        train(&mut second, &mut second_ema, 3, 6);

        assert_eq!(
            bits(&snapshot(&resumed)),
            bits(&snapshot(&whole)),
            "{rule:?}"
        );
        assert_eq!(
            bits(&second.state().unwrap()),
            bits(&optimizer.state().unwrap())
        );
        assert_eq!(
            bits(&second_ema.state().unwrap()),
            bits(&ema.state().unwrap())
        );
        assert_eq!((second.n_updates(), second_ema.n_updates()), (6, 6));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let run = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build()
            .unwrap();
        pool.install(|| {
            let params = params();
            let mut optimizer = Optimizer::new(rules()[0], &params).unwrap();
            let mut ema = Ema::new(0.99, EmaRamp::None, &params).unwrap();
            train(&mut optimizer, &mut ema, 0, 3);
            [
                snapshot(&params),
                optimizer.state().unwrap(),
                ema.state().unwrap(),
            ]
            .map(|t| bits(&t))
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn state_is_listed_in_the_order_of_the_parameters() {
    let names = |rule| {
        let state = Optimizer::new(rule, &params()).unwrap().state().unwrap();
        state.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let [adamw, momentum, plain] = rules();
    assert_eq!(
        names(adamw)[..4],
        [
            "exp_avg.conv.weight",
            "exp_avg_sq.conv.weight",
            "step.conv.weight",
            "exp_avg.conv.bias"
        ]
    );
    assert_eq!(
        names(momentum)[..3],
        [
            "momentum_buffer.conv.weight",
            "step.conv.weight",
            "momentum_buffer.conv.bias"
        ]
    );
    assert_eq!(
        names(plain),
        ["step.conv.weight", "step.conv.bias", "step.scale"]
    );
}

#[test]
fn a_parameter_without_gradient_stays_as_it_is() {
    let params = params();
    let before = bits(&snapshot(&params));
    let mut optimizer = Optimizer::new(rules()[0], &params).unwrap();
    optimizer
        .step(&[None, Some(normal(0, 1)), None], 0.1, 1.0)
        .unwrap();
    let after = bits(&snapshot(&params));
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    let state = optimizer.state().unwrap();
    let steps: Vec<u32> = state
        .iter()
        .filter(|(name, _)| name.starts_with("step."))
        .map(|(_, n)| n.to_scalar().unwrap())
        .collect();
    assert_eq!(steps, [0, 1, 0]);
}

#[test]
fn an_average_that_follows_within_the_step_is_the_same_to_the_bit() {
    let long = |seed: u64| {
        // Longer than what one job takes, and not a multiple of it.
        let values: Vec<f32> = (0..40_011u64)
            .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0)
            .collect();
        Tensor::new(values, &Device::Cpu).unwrap()
    };
    for rule in rules() {
        let run = |together: bool| {
            let mut params = params();
            params.push(("long".to_owned(), Var::from_tensor(&long(9)).unwrap()));
            let mut optimizer = Optimizer::new(rule, &params).unwrap();
            let mut ema = Ema::new(0.9, EmaRamp::Early, &params).unwrap();
            for step in 0..3 {
                let grads = [
                    Some(normal(step, 0)),
                    None,
                    Some(normal(step, 2)),
                    Some(long(step)),
                ];
                if together {
                    optimizer
                        .step_and_average(&grads, 0.1, 0.7, &mut ema)
                        .unwrap();
                } else {
                    optimizer.step(&grads, 0.1, 0.7).unwrap();
                    ema.update().unwrap();
                }
            }
            assert_eq!(ema.n_updates(), 3);
            (
                bits(&ema.state().unwrap()),
                bits(&optimizer.state().unwrap()),
                bits(&snapshot(&params)),
            )
        };
        assert_eq!(run(true), run(false), "{rule:?}");
    }
    let (ours, others) = (params(), params());
    let mut optimizer = Optimizer::new(rules()[0], &ours).unwrap();
    let mut ema = Ema::new(0.9, EmaRamp::None, &others).unwrap();
    let grads = [None, None, None];
    let error = optimizer
        .step_and_average(&grads, 0.1, 1.0, &mut ema)
        .unwrap_err();
    assert!(matches!(error, OptimError::OtherParameters));
}

#[test]
fn a_clip_coefficient_equals_gradients_scaled_beforehand() {
    let step = |scale: f64, factor: f64| {
        let params = params();
        let mut optimizer = Optimizer::new(rules()[0], &params).unwrap();
        let grads: Vec<_> = (0..3)
            .map(|i| Some(normal(0, i).affine(factor, 0.0).unwrap()))
            .collect();
        optimizer.step(&grads, 0.1, scale).unwrap();
        bits(&snapshot(&params))
    };
    assert_eq!(step(0.25, 1.0), step(1.0, 0.25));
}

#[test]
fn a_state_that_does_not_fit_lists_everything_and_changes_nothing() {
    let params = params();
    let mut optimizer = Optimizer::new(rules()[0], &params).unwrap();
    let mut ema = Ema::new(0.9, EmaRamp::None, &params).unwrap();
    train(&mut optimizer, &mut ema, 0, 1);
    let before = bits(&optimizer.state().unwrap());
    let mut state = optimizer.state().unwrap();
    state.retain(|(name, _)| name != "exp_avg.scale");
    state.push(("exp_avg.head".to_owned(), normal(0, 1)));
    state[3].1 = normal(0, 2);
    let error = optimizer.load_state(state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "state of the optimiser does not fit: missing (1) exp_avg.scale; unexpected (1) exp_avg.head; \
         mis-shaped (1) exp_avg.conv.bias: found f32 [], expected f32 [40]"
    );
    assert!(matches!(error, OptimError::State(_)));
    assert_eq!(bits(&optimizer.state().unwrap()), before);

    let wide = (
        "scale".to_owned(),
        normal(0, 2).to_dtype(DType::F64).unwrap(),
    );
    let error = ema.load_state([wide], 5).unwrap_err().to_string();
    assert_eq!(
        error,
        "state of the EMA does not fit: missing (2) conv.weight, conv.bias; mis-shaped (1) scale: found f64 [], expected f32 []"
    );
    assert_eq!(ema.n_updates(), 1);
}

#[test]
fn a_step_that_does_not_fit_is_refused_before_anything_changes() {
    let params = params();
    let before = bits(&snapshot(&params));
    let mut optimizer = Optimizer::new(rules()[0], &params).unwrap();
    let grads = || -> Vec<_> { (0..3).map(|i| Some(normal(0, i))).collect() };
    let mut mis_shaped = grads();
    mis_shaped[2] = Some(normal(0, 1));
    for (grads, lr, scale, message) in [
        (grads(), f64::NAN, 1.0, "lr = NaN is outside [0, inf)"),
        (grads(), 0.1, f64::NAN, "scale = NaN is outside [0, inf)"),
        (
            grads()[..2].to_vec(),
            0.1,
            1.0,
            "2 gradients for 3 parameters",
        ),
        (
            mis_shaped,
            0.1,
            1.0,
            "gradient of \"scale\" is f32 [40], expected f32 []",
        ),
    ] {
        assert_eq!(
            optimizer.step(&grads, lr, scale).unwrap_err().to_string(),
            message
        );
    }
    assert_eq!(bits(&snapshot(&params)), before);
    assert_eq!(optimizer.n_updates(), 0);
}

#[test]
fn duplicate_parameters_are_refused() {
    let var = Var::new(&[1.0_f32], &Device::Cpu).unwrap();
    let other = Var::new(&[1.0_f32], &Device::Cpu).unwrap();
    let wide = Var::new(&[1.0_f64], &Device::Cpu).unwrap();
    for (params, message) in [
        (
            [("a", &var), ("a", &other)],
            "parameter \"a\" is listed twice",
        ),
        (
            [("a", &var), ("b", &var)],
            "parameter \"b\" is the same tensor as an earlier one",
        ),
        (
            [("a", &var), ("b", &wide)],
            "parameter \"b\" is f64, expected f32",
        ),
    ] {
        let params = params.map(|(name, var)| (name.to_owned(), var.clone()));
        let error = Optimizer::new(rules()[0], &params).unwrap_err().to_string();
        assert_eq!(error, message);
        assert!(Ema::new(0.9, EmaRamp::None, &params).is_err());
    }
    assert!(Ema::new(1.5, EmaRamp::None, &[]).is_err());
}

#[test]
fn a_gradient_that_is_a_view_is_read_as_a_view() {
    let step = |grad: Tensor| {
        let params = [(
            "w".to_owned(),
            Var::new(&[[1.0_f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap(),
        )];
        let mut optimizer = Optimizer::new(Rule::Sgd(Sgd::default()), &params).unwrap();
        optimizer.step(&[Some(grad)], 1.0, 1.0).unwrap();
        params[0].1.to_vec2::<f32>().unwrap()
    };
    let grad = Tensor::new(&[[1.0_f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
    assert_eq!(step(grad.t().unwrap()), [[0.0, -1.0], [1.0, 0.0]]);
}

#[test]
fn the_average_ramps_up_and_its_state_is_a_copy() {
    let params = [("w".to_owned(), Var::new(&[0.0_f32], &Device::Cpu).unwrap())];
    let mut ema = Ema::new(0.2, EmaRamp::Early, &params).unwrap();
    let mut rates = Vec::new();
    for _ in 0..3 {
        rates.push(ema.next_rate());
        ema.update().unwrap();
    }
    assert_eq!(rates, [1.0 / 10.0, 2.0 / 11.0, 0.2]);

    params[0]
        .1
        .set(&Tensor::new(&[10.0_f32], &Device::Cpu).unwrap())
        .unwrap();
    ema.update().unwrap();
    assert_eq!(ema.state().unwrap()[0].1.to_vec1::<f32>().unwrap(), [8.0]);
    // A copy stays what it was.
    let copy = ema.state().unwrap();
    ema.update().unwrap();
    assert_eq!(copy[0].1.to_vec1::<f32>().unwrap(), [8.0]);
}
