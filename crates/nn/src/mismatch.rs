//! How a file differs from a network.

use crate::params::ParamSpec;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};

/// How the parameters of a network and the tensors of a file differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Parameters of the network that are not in the file.
    pub missing: Vec<String>,
    /// Tensors of the file that are not in the network.
    pub unexpected: Vec<String>,
    /// Name, shape in the network, shape in the file.
    pub misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }

    /// Compares the parameters of a network with the names and shapes of a file.
    pub fn between(specs: &[ParamSpec], found: &BTreeMap<String, Vec<usize>>) -> Self {
        let mut out = Self::default();
        let wanted: HashMap<&str, &ParamSpec> = specs
            .iter()
            .map(|spec| (spec.name.as_str(), spec))
            .collect();
        for spec in specs {
            match found.get(&spec.name) {
                None => out.missing.push(spec.name.clone()),
                Some(shape) if *shape != spec.shape => {
                    out.misshaped
                        .push((spec.name.clone(), spec.shape.clone(), shape.clone()));
                }
                Some(_) => {}
            }
        }
        out.unexpected.extend(
            found
                .keys()
                .filter(|name| !wanted.contains_key(name.as_str()))
                .cloned(),
        );
        out
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let mut list = |what: &str, items: Vec<String>| -> fmt::Result {
            if items.is_empty() {
                return Ok(());
            }
            writeln!(f, "{} {what}:", items.len())?;
            for item in items.iter().take(SHOWN) {
                writeln!(f, "  {item}")?;
            }
            if items.len() > SHOWN {
                writeln!(f, "  and {} more", items.len() - SHOWN)?;
            }
            Ok(())
        };
        list("missing", self.missing.clone())?;
        list("unexpected", self.unexpected.clone())?;
        let misshaped = self.misshaped.iter();
        list(
            "of another shape",
            misshaped
                .map(|(name, want, got)| format!("{name}: expected {want:?}, found {got:?}"))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, Params};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_mismatch_is_reported_completely() {
        let spec = |name: &str, shape: &[usize]| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init: Init::Constant(0.0),
        };
        let specs = [
            spec("z.weight", &[3, 4]),
            spec("a.bias", &[3]),
            spec("e", &[1000]),
        ];
        let tensors = [("a.bias", 4), ("b", 1), ("e", 1000)].map(|(name, n)| {
            let zeros = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            (name.to_owned(), zeros)
        });
        let mismatch = Params::fit(&specs, HashMap::from(tensors)).unwrap_err();
        assert_eq!(mismatch.missing, ["z.weight"]);
        assert_eq!(mismatch.unexpected, ["b"]);
        assert_eq!(
            mismatch.misshaped,
            [("a.bias".to_owned(), vec![3], vec![4])]
        );
        let text = mismatch.to_string();
        assert!(
            text.contains("1 missing:\n  z.weight")
                && text.contains("a.bias: expected [3], found [4]"),
            "{text}"
        );
    }
}
