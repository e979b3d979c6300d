//! The class that a network is asked for, and classifier-free guidance.

use crate::error::{Result, option, usage};
use candle_core::Tensor;
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Edited, Guided, Network, Prediction,
};
use sdft_files::did_you_mean;
use sdft_models::{Classes, LoadedModel};

/// Names of classes that an error lists.
const LISTED: usize = 12;

/// The names of a model's classes that a plan records: without a null class, and none if `class` is given and they are the labels.
pub(crate) fn names_of_classes(model: &LoadedModel, class: Option<u32>) -> Vec<String> {
    let names = |classes: &Classes| {
        let numbered = Classes::numbered(classes.names.len(), false).names;
        match class.is_some() && classes.names == numbered {
            true => Vec::new(),
            false => classes.names.clone(),
        }
    };
    model.classes.as_ref().map(names).unwrap_or_default()
}

/// The label of the class that option `name` gives: its name, or its label if no class has a number for a name.
///
/// # Errors
/// The model is unconditional or has no such class.
pub(crate) fn label_of(name: &'static str, text: &str, model: &LoadedModel) -> Result<u32> {
    let wrong = |problem: String| Err(option(name, format!("{text}: {problem}")));
    let n = model.n_classes();
    if n == 0 {
        return wrong("the model is unconditional, so it has no classes".to_owned());
    }
    let number: Option<u32> = text.parse().ok();
    let Some(classes) = &model.classes else {
        // Classes that are embedded like timesteps have no names.
        return match number {
            Some(label) if (label as usize) < n => Ok(label),
            _ => wrong("expected the number of a class".to_owned()),
        };
    };
    if let Some(label) = classes.label(text) {
        return Ok(label);
    }
    let has_numbers = classes.names.iter().any(|name| name.parse::<u64>().is_ok());
    if let Some(label) = number.filter(|label| !has_numbers && (*label as usize) < n) {
        return Ok(label);
    }
    if classes.names == Classes::numbered(n, false).names {
        return wrong(format!("the model has {n} classes, 0 to {}", n - 1));
    }
    let near = did_you_mean(text, classes.names.iter().map(String::as_str));
    let listed = classes.names.iter().take(LISTED).cloned();
    let listed = listed.collect::<Vec<_>>().join(", ");
    let more = if n > LISTED { ", .." } else { "" };
    wrong(format!(
        "the model has no such class, its {n} classes are {listed}{more}{near}"
    ))
}

/// The label of the null class that a scale of guidance needs, `None` if it needs none.
///
/// # Errors
/// A scale that is negative or not finite; a model without classes or without a null class.
pub(crate) fn null_for(guidance: Option<f64>, model: &LoadedModel) -> Result<Option<u32>> {
    let Some(guidance) = guidance.filter(|guidance| *guidance != 1.0) else {
        return Ok(None);
    };
    let wrong = |problem: &str| option("guidance", format!("{guidance}: {problem}"));
    if !guidance.is_finite() || guidance < 0.0 {
        return Err(wrong(
            "expected 0 or more; 0 is the null class, and 1 no guidance",
        ));
    }
    if model.n_classes() == 0 {
        return Err(wrong(
            "the model is unconditional; classifier-free guidance needs a class-conditional model",
        ));
    }
    let without = || {
        wrong(
            "the model has no null class, because it was trained without dropping labels; train it with `loss.label_dropout`, or omit the guidance",
        )
    };
    model.null_class().map(Some).ok_or_else(without)
}

/// The class of all images that a command makes of others, if the model has classes: the given label, or else the null class.
///
/// # Errors
/// A class-conditional model without a null class and no given label.
pub(crate) fn class_or_null(
    name: &'static str,
    class: Option<u32>,
    model: &LoadedModel,
) -> Result<Option<u32>> {
    if model.n_classes() == 0 || class.is_some() {
        return Ok(class);
    }
    let missing = || {
        usage(format!(
            "the model has classes and no null class, which would stand for all of them; give a class as `{name}`"
        ))
    };
    model.null_class().map(Some).ok_or_else(missing)
}

/// A network that is asked for one class, with guidance, or an unconditional network as it is.
pub(crate) struct Conditioned {
    net: Box<dyn Network>,
    class: Option<u32>,
    null: Option<u32>,
    guidance: f64,
}

impl Conditioned {
    /// Asks `net`, the network of `model`, for `class`; the label of option `name`.
    ///
    /// # Errors
    /// Those of [`class_or_null`] and [`null_for`]; guidance without a class.
    pub(crate) fn new(
        net: Box<dyn Network>,
        name: &'static str,
        class: Option<u32>,
        guidance: Option<f64>,
        model: &LoadedModel,
    ) -> Result<Self> {
        let null = null_for(guidance, model)?;
        if null.is_some() && class.is_none() {
            return Err(option(
                "guidance",
                format!("leads to a class; give it as `{name}`"),
            ));
        }
        if let Some(class) = class.filter(|class| *class as usize >= model.n_classes()) {
            let n = model.n_classes();
            return Err(option(name, format!("{class}: the model has {n} classes")));
        }
        Ok(Self {
            net,
            class: class_or_null(name, class, model)?,
            null,
            guidance: guidance.unwrap_or(1.0),
        })
    }

    /// The labels of `n` images; `None` if the network is unconditional.
    pub(crate) fn labels(&self, n: usize) -> Option<Vec<u32>> {
        self.class.map(|class| vec![class; n])
    }
}

impl Denoiser for Conditioned {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> candle_core::Result<Prediction> {
        let Some(labels) = self.labels(t.len()) else {
            return self.net.predict(xt, t);
        };
        let guided = Guided {
            net: &*self.net,
            labels: &labels,
            null: self.null,
            guidance: self.guidance,
        };
        guided.predict(xt, t)
    }
}

impl BottleneckNet for Conditioned {
    /// Without guidance.
    fn predict_edited(
        &self,
        xt: &Tensor,
        t: &[f32],
        change: &mut Change<'_>,
    ) -> candle_core::Result<Edited> {
        let labels = self.labels(t.len());
        let condition = Condition {
            labels: labels.as_deref(),
            ..Condition::default()
        };
        self.net.predict_edited_with(xt, t, &condition, change)
    }

    fn bottleneck(&self) -> Bottleneck {
        self.net.bottleneck()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use sdft_adm::AdmConfig;
    use sdft_diffusion::{Continuous, PredictionType, Process};
    use sdft_models::{Architecture, LoadOptions, NetworkFile, load_network, save_network};
    use sdft_testing::{nonzero_params, normal, tiny_config};
    use serde_json::json;

    /// A network of each architecture with these classes.
    fn models(classes: &Classes) -> Vec<LoadedModel> {
        let adm = AdmConfig {
            image_size: 8,
            ..tiny_config()
        };
        let fields = [
            json!({
                "architecture": "unet2d", "sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"],
                "up_block_types": ["UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4
            }),
            json!({
                "architecture": "edm", "img_resolution": 8,
                "model": { "model_type": "DhariwalUNet", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [] }
            }),
        ];
        let others = fields.map(|fields| serde_json::from_value::<Architecture>(fields).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let all = std::iter::once(Architecture::from(adm)).chain(others);
        all.map(|architecture| {
            let architecture = architecture.with_classes(Some(classes));
            let mut process = Process::default();
            if let Some(precond) = architecture.precond() {
                process.continuous = Some(Continuous::of(&precond));
                process.prediction_type = PredictionType::Sample;
            }
            let params = nonzero_params(architecture.specs().unwrap(), 3);
            let file = NetworkFile {
                classes: Some(classes),
                ..NetworkFile::new(&architecture, &process)
            };
            let path = dir.path().join("model.safetensors");
            save_network(&path, &file, &params, None).unwrap();
            load_network(&path, &LoadOptions::default()).unwrap()
        })
        .collect()
    }

    fn asked(model: &LoadedModel, class: Option<u32>) -> Conditioned {
        let net = model.process.in_steps(model.network().unwrap()).unwrap();
        Conditioned::new(net, "class", class, None, model).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        let x = x.to_dtype(DType::F32).unwrap();
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn networks_of_every_architecture_are_asked_for_a_class_and_edited_with_it() {
        let names = ["cat", "dog"].map(str::to_owned).to_vec();
        let x = normal(1, &[2, 3, 8, 8]).to_device(&Device::Cpu).unwrap();
        let t = [10.0, 700.0];
        for model in models(&Classes::new(names, true)) {
            let name = model.architecture.title();
            let predictions = [Some(0), Some(1), None].map(|class| {
                let net = asked(&model, class);
                let prediction = values(&net.predict(&x, &t).unwrap().output);
                let edited = net.predict_edited(&x, &t, &mut |_, _| Ok(None)).unwrap();
                assert_eq!(values(&edited.plain.output), prediction, "{name}");
                prediction
            });
            assert_ne!(predictions[0], predictions[1], "{name}");
            // Without a class, the null class.
            assert_ne!(predictions[0], predictions[2], "{name}");
        }
    }

    #[test]
    fn a_class_is_given_by_name_or_by_label() {
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            models(&Classes::new(names, true)).remove(0)
        };
        let label = |model: &LoadedModel, text: &str| label_of("class", text, model);
        let animals = of(&["cat", "dog"]);
        assert_eq!(label(&animals, "dog").unwrap(), 1);
        assert_eq!(label(&animals, "0").unwrap(), 0);
        // The label of the null class is not one of them.
        assert!(label(&animals, "2").is_err());
        // Where names are numbers, a number is a name.
        let digits = of(&["1", "4", "7"]);
        assert_eq!(label(&digits, "7").unwrap(), 2);
        let error = label(&digits, "2").unwrap_err().to_string();
        assert!(error.contains("1, 4, 7"), "{error}");
        let numbered = of(&["0", "1", "2"]);
        let error = label(&numbered, "3").unwrap_err().to_string();
        assert_eq!(error, "class 3: the model has 3 classes, 0 to 2");
    }
}
