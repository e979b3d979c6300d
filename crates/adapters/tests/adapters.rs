//! Adapters of a small network: identities, gradients, merging, files.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adapters::{
    AdaptedNetwork, Adapter, AdapterConfig, AdapterFile, AdapterKind, Base, merge, write_peft,
};
use sdft_autograd::{backward, conv2d, linear};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Condition, Prediction, PredictionType, Trainable};
use sdft_nn::{Init, ParamSpec, Params};
use std::collections::BTreeMap;
use std::path::Path;

/// A convolution, a residual branch of two, and a dense layer.
struct Net {
    params: Params,
    vars: Vec<(String, Var)>,
}

const SHAPES: [(&str, &[usize]); 8] = [
    ("res.conv1.weight", &[4, 3, 3, 3]),
    ("res.conv1.bias", &[4]),
    ("res.conv2.weight", &[3, 4, 3, 3]),
    ("res.conv2.bias", &[3]),
    ("attn.qkv.weight", &[9, 3, 1]),
    ("attn.qkv.bias", &[9]),
    ("attn.proj_out.weight", &[3, 9, 1]),
    ("attn.proj_out.bias", &[3]),
];

fn specs() -> Vec<ParamSpec> {
    let spec = |(name, shape): (&str, &[usize])| ParamSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
        init: Init::Uniform(0.5),
    };
    SHAPES.into_iter().map(spec).collect()
}

fn params(dtype: DType) -> Params {
    let params = Params::init(&specs(), 3, &Device::Cpu).unwrap();
    params.to(dtype, &Device::Cpu).unwrap()
}

impl Net {
    fn boxed(params: &Params) -> Result<Box<dyn Trainable>> {
        let (params, vars) = params.trainable()?;
        Ok(Box::new(Self { params, vars }))
    }
}

impl Trainable for Net {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn pulls_back(&self) -> bool {
        false
    }

    fn predict(&self, x: &Tensor, _: &[f32], _: &Condition<'_>) -> Result<Prediction> {
        let of = |name: &str| self.params.tensor(name).unwrap();
        let conv = |x: &Tensor, layer: &str| {
            let [weight, bias] = ["weight", "bias"].map(|leaf| of(&format!("{layer}.{leaf}")));
            conv2d(x, weight, bias, 1, [1; 2])
        };
        let h = conv(&conv(x, "res.conv1")?.tanh()?, "res.conv2")?;
        let h = (x + h)?;
        let rows = h.permute((0, 2, 3, 1))?.contiguous()?.flatten_to(2)?;
        let dense = |x: &Tensor, layer: &str| {
            let weight = of(&format!("{layer}.weight")).squeeze(2)?;
            linear(x, &weight, of(&format!("{layer}.bias")))
        };
        let out = dense(&dense(&rows, "attn.qkv")?.tanh()?, "attn.proj_out")?;
        Ok(Prediction::new((rows + out)?, PredictionType::Epsilon))
    }
}

fn kinds() -> Vec<AdapterConfig> {
    let of = |kind| AdapterConfig {
        kind,
        ..AdapterConfig::default()
    };
    vec![
        AdapterConfig {
            rank: Some(2),
            alpha: Some(3.0),
            targets: vec!["qkv".into(), "proj_out".into(), "conv*".into()],
            ..of(AdapterKind::Lora)
        },
        of(AdapterKind::Difffit),
        AdapterConfig {
            names: vec!["*.qkv.*".into(), "conv1.bias".into()],
            ..of(AdapterKind::Names)
        },
    ]
}

fn adapted(config: &AdapterConfig, params: &Params) -> AdaptedNetwork {
    let base = Base {
        params,
        specs: &specs(),
        sha256: "abc".to_owned(),
    };
    AdaptedNetwork::new(config, base, 5, Net::boxed).unwrap()
}

/// A fixed input without symmetries.
fn input(dtype: DType) -> Tensor {
    let values = Tensor::arange(0f64, 96.0, &Device::Cpu).unwrap();
    let values = (values * 1.7).unwrap().sin().unwrap();
    let x = values.reshape((2, 3, 4, 4)).unwrap();
    x.to_dtype(dtype).unwrap()
}

fn predict(net: &dyn Trainable, dtype: DType) -> Tensor {
    let x = input(dtype);
    net.predict(&x, &[], &Condition::default()).unwrap().output
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    tensor.to_vec1().unwrap()
}

/// Moves every variable away from its start.
fn move_vars(net: &dyn Trainable) {
    for (i, (_, var)) in net.vars().iter().enumerate() {
        let n = var.elem_count() as f64;
        let wave = Tensor::arange(0.0, n, &Device::Cpu).unwrap();
        let wave = (wave + 1.3 * i as f64).unwrap().cos().unwrap();
        let wave = wave.reshape(var.shape()).unwrap();
        let wave = wave.to_dtype(var.dtype()).unwrap();
        var.set(&(var.as_tensor() + (wave * 0.2).unwrap()).unwrap())
            .unwrap();
    }
}

fn save(net: &AdaptedNetwork, path: &Path) {
    let vars = net.vars();
    let entries = vars
        .iter()
        .map(|(name, var)| (name.as_str(), var.as_tensor()));
    write_safetensors(path, entries, &net.adapter_metadata().unwrap(), None).unwrap();
}

#[test]
fn an_untrained_adapter_leaves_predictions_and_files_the_same_to_the_bit() {
    let params = params(DType::F32);
    let base = Net::boxed(&params).unwrap();
    for config in kinds() {
        let net = adapted(&config, &params);
        let expected = numbers(&predict(&*base, DType::F32));
        assert_eq!(numbers(&predict(&net, DType::F32)), expected, "{config}");
        let values = net.vars().into_iter();
        let values = values.map(|(name, var)| (name, var.as_tensor().clone()));
        let file: BTreeMap<String, Tensor> = net
            .file_tensors(values.collect())
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(file.len(), params.len());
        for (name, tensor) in params.iter() {
            assert_eq!(numbers(&file[name]), numbers(tensor), "{config}: {name}");
        }
        assert!(net.buffers().is_empty(), "{config}");
    }
}

#[test]
fn gradients_of_every_kind_agree_with_differences_in_f64() {
    let params = params(DType::F64);
    for config in kinds() {
        let net = adapted(&config, &params);
        move_vars(&net);
        let loss = || {
            let out = predict(&net, DType::F64);
            let weights = Tensor::arange(0f64, out.elem_count() as f64, &Device::Cpu).unwrap();
            let weights = weights.cos().unwrap().reshape(out.shape()).unwrap();
            (out.sqr().unwrap() * weights).unwrap().sum_all().unwrap()
        };
        let mut gradients = backward(&loss()).unwrap();
        let is_known = |(_, var): &(String, Var)| gradients.get(var).is_some();
        assert_eq!(
            net.pulls_back(),
            !net.vars().iter().all(is_known),
            "{config}"
        );
        net.pull_back(&mut gradients).unwrap();
        for (name, var) in net.vars() {
            let gradient = numbers(gradients.get(&var).expect(&name));
            let start = numbers(var.as_tensor());
            for place in [0, start.len() / 2, start.len() - 1] {
                let at = |by: f64| {
                    let mut moved = start.clone();
                    moved[place] += by;
                    let moved = Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap();
                    var.set(&moved).unwrap();
                    loss().to_scalar::<f64>().unwrap()
                };
                let h = 1e-5;
                let numeric = (at(h) - at(-h)) / (2.0 * h);
                at(0.0);
                let error = (gradient[place] - numeric).abs() / (1.0 + numeric.abs());
                assert!(
                    error < 1e-6,
                    "{config}: {name}: {} {numeric}",
                    gradient[place]
                );
            }
        }
    }
}

#[test]
fn a_file_merged_into_its_base_is_the_trained_network_to_the_bit() {
    let params = params(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.safetensors");
    let mut all = Vec::new();
    for config in kinds() {
        let net = adapted(&config, &params);
        move_vars(&net);
        save(&net, &path);
        let adapter = Adapter::read(dir.path()).unwrap();
        assert_eq!(adapter.config, config);
        let merged = merge(&params, &specs(), &[(adapter.clone(), 1.0)]).unwrap();
        let expected = numbers(&predict(&net, DType::F32));
        let found = predict(&*Net::boxed(&merged).unwrap(), DType::F32);
        assert_eq!(numbers(&found), expected, "{config}");
        let none = merge(&params, &specs(), &[(adapter.clone(), 0.0)]).unwrap();
        for ((name, found), (_, expected)) in none.iter().zip(params.iter()) {
            assert_eq!(numbers(found), numbers(expected), "{config}: {name}");
        }
        all.push(adapter);
    }
    // Differences add up, in any order.
    let name = "attn.qkv.weight";
    let of = |adapters: &[(Adapter, f64)]| {
        numbers(
            merge(&params, &specs(), adapters)
                .unwrap()
                .tensor(name)
                .unwrap(),
        )
    };
    let base = numbers(params.tensor(name).unwrap());
    let [lora, names] = [0, 2].map(|i| all[i].clone());
    let both = of(&[(lora.clone(), 0.5), (names.clone(), 2.0)]);
    let swapped = of(&[(names.clone(), 2.0), (lora.clone(), 0.5)]);
    let (lora, names) = (of(&[(lora, 1.0)]), of(&[(names, 1.0)]));
    for i in 0..base.len() {
        let expected = base[i] + 0.5 * (lora[i] - base[i]) + 2.0 * (names[i] - base[i]);
        assert!((both[i] - expected).abs() < 1e-5 && (swapped[i] - expected).abs() < 1e-5);
    }
}

#[test]
fn a_file_of_another_network_is_refused_and_both_are_named() {
    let params = params(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.safetensors");
    save(&adapted(&kinds()[0], &params), &path);
    let adapter = Adapter::read(&path).unwrap();
    adapter.check_base("base.pt", "abc").unwrap();
    let error = adapter
        .check_base("base.pt", "def")
        .unwrap_err()
        .to_string();
    for words in ["adapter.safetensors", "abc", "base.pt of def"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    // Another width.
    let narrow = params.iter().map(|(name, tensor)| {
        let tensor = match name {
            "attn.qkv.weight" => tensor.narrow(0, 0, 6).unwrap(),
            _ => tensor.clone(),
        };
        (name.to_owned(), tensor)
    });
    let narrow = Params::new(narrow.collect());
    let error = merge(&narrow, &specs(), &[(adapter.clone(), 1.0)]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("attn.qkv.weight") && error.contains("[6, 2, 1]"),
        "{error}"
    );
    let other = params.iter().filter(|(name, _)| !name.starts_with("res"));
    let other = Params::new(other.map(|(n, t)| (n.to_owned(), t.clone())).collect());
    let error = merge(&other, &specs(), &[(adapter, 1.0)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("res.conv1.weight, which the network does not have"),
        "{error}"
    );
    // A model is no adapter.
    write_safetensors(&path, params.iter(), &BTreeMap::new(), None).unwrap();
    let error = Adapter::read(&path).unwrap_err().to_string();
    assert!(error.contains("expected an adapter"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = Adapter::read(empty.path()).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json"), "{error}");
}

#[test]
fn a_lora_survives_the_way_to_peft_and_back() {
    let params = params(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.safetensors");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    std::fs::create_dir(&theirs).unwrap();
    let stable = AdapterConfig {
        rank_stabilised: true,
        ..kinds()[0].clone()
    };
    let net = adapted(&stable, &params);
    move_vars(&net);
    save(&net, &path);
    let before = Adapter::read(&path).unwrap();
    write_peft(&ours, &before).unwrap();
    let after = Adapter::read(&ours).unwrap();
    assert_eq!(after.base_sha256, None);
    assert_eq!(after.config.scale(), before.config.scale());
    let [a, b] =
        [before, after].map(|adapter| merge(&params, &specs(), &[(adapter, 1.0)]).unwrap());
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        assert_eq!(numbers(a), numbers(b), "{name}");
    }
    // Settings that would change the result are refused by name.
    let config = std::fs::read_to_string(ours.join("adapter_config.json")).unwrap();
    let weights = ours.join("adapter_model.safetensors");
    std::fs::copy(weights, theirs.join("adapter_model.safetensors")).unwrap();
    let dora = config.replacen('{', "{\"use_dora\": true,", 1);
    std::fs::write(theirs.join("adapter_config.json"), dora).unwrap();
    let error = Adapter::read(&theirs).unwrap_err().to_string();
    assert!(error.contains("use_dora"), "{error}");
    save(&adapted(&kinds()[1], &params), &path);
    let difffit = Adapter::read(&path).unwrap();
    let error = write_peft(&ours, &difffit).unwrap_err().to_string();
    assert!(error.contains("LoRA, found DiffFit"), "{error}");
}

#[test]
fn the_strength_is_the_number_after_the_last_equals_sign() {
    let of = |text: &str| text.parse::<AdapterFile>();
    assert_eq!(of("a.safetensors").unwrap().strength, 1.0);
    let half = of("x=y/a.safetensors=0.5").unwrap();
    assert_eq!(
        (half.path, half.strength),
        ("x=y/a.safetensors".into(), 0.5)
    );
    assert!(of("a=much").unwrap_err().to_string().contains("FILE=SCALE"));
    assert!(of("a=inf").is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lr=1");
    std::fs::write(&path, b"").unwrap();
    assert_eq!(of(path.to_str().unwrap()).unwrap().path, path);
}
