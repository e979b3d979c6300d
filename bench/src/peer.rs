//! The Python that the other side runs in, and what it has installed.

use crate::cases::{Case, Pass, Work};
use anyhow::{Context, Result, bail};
use sdft_cuda::DeviceSpec;
use sdft_train::Precision;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints the versions of what is installed, as JSON.
const PROBE: &str = "\
import importlib.metadata, json, shutil, torch
found = {name: None for name in ('openvino', 'onnxruntime', 'onnx')}
for name in found:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
compiler = any(shutil.which(name) for name in ('c++', 'g++', 'clang++'))
print(json.dumps({'torch': torch.__version__, 'compiler': compiler, **found}))";

/// Versions of packages; `None` if one is not installed.
#[derive(Clone, Debug, Deserialize)]
struct Installed {
    torch: String,
    /// Whether there is a C++ compiler, which `torch.compile` needs on a CPU.
    compiler: bool,
    openvino: Option<String>,
    onnxruntime: Option<String>,
    /// Exports to ONNX.
    onnx: Option<String>,
}

/// The names of everything that runs the work of the other side.
pub(crate) const RUNNERS: [&str; 5] = [
    "eager",
    "channels_last",
    "compile",
    "openvino",
    "onnxruntime",
];

/// PyTorch on this machine, and the runtimes next to it.
pub(crate) struct Peer {
    python: PathBuf,
    script: PathBuf,
    installed: Installed,
}

/// Something that runs the work of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runner {
    /// Its name for the script.
    pub(crate) name: &'static str,
    pub(crate) precision: Precision,
}

impl Peer {
    pub(crate) fn find(python: &Path) -> Result<Self> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/peer.py");
        // A program that was moved finds the script relative to the current folder.
        let script = if built.is_file() {
            built
        } else {
            PathBuf::from("bench/peer/peer.py")
        };
        let output = Command::new(python)
            .args(["-c", PROBE])
            .output()
            .with_context(|| {
                format!(
                    "--peer: starting {} (--python selects another)",
                    python.display()
                )
            })?;
        if !output.status.success() {
            bail!(
                "--peer: {} has no PyTorch (install it with `pip install torch`, or select another Python with --python): {}",
                python.display(),
                String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .last()
                    .unwrap_or("no message")
            );
        }
        let installed = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "--peer: {} did not print versions, but {:?}",
                python.display(),
                String::from_utf8_lossy(&output.stdout)
            )
        })?;
        Ok(Self {
            python: python.to_owned(),
            script,
            installed,
        })
    }

    /// The script with its Python.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script);
        command
    }

    /// The version of PyTorch.
    pub(crate) fn torch(&self) -> &str {
        &self.installed.torch
    }

    /// A line that names what is compared with, and what is missing.
    pub(crate) fn describe(&self) -> String {
        let Installed {
            torch,
            compiler,
            openvino,
            onnxruntime,
            ..
        } = &self.installed;
        let mut all = vec![format!("PyTorch {torch}")];
        let mut missing = Vec::new();
        if !compiler {
            missing.push("torch.compile (needs a C++ compiler)".to_owned());
        }
        for (name, version, package) in [
            ("OpenVINO", openvino, "openvino"),
            ("ONNX Runtime", onnxruntime, "onnxruntime onnx"),
        ] {
            match version {
                Some(version) if self.has(package) => all.push(format!("{name} {version}")),
                _ => missing.push(format!("{name} (pip install {package})")),
            }
        }
        let mut line = format!("compared with {}", all.join(", "));
        if !missing.is_empty() {
            line += &format!("; skipped: {}", missing.join(", "));
        }
        line
    }

    /// Whether packages are installed.
    fn has(&self, package: &str) -> bool {
        let Installed {
            openvino,
            onnxruntime,
            onnx,
            ..
        } = &self.installed;
        match package {
            "openvino" => openvino.is_some(),
            _ => onnxruntime.is_some() && onnx.is_some(),
        }
    }

    /// What runs a case on the other side. Those of another precision than ours are for comparison only.
    pub(crate) fn runners(
        &self,
        case: &Case,
        place: DeviceSpec,
        precision: Precision,
    ) -> Vec<Runner> {
        let of = |names: &[&'static str], precision| -> Vec<Runner> {
            let names = names.iter();
            names.map(|&name| Runner { name, precision }).collect()
        };
        if matches!(place, DeviceSpec::Cuda(_)) {
            return of(&["eager", "compile"], precision);
        }
        match case.work {
            Work::Attention { .. } if precision == Precision::Bf16 => Vec::new(),
            Work::Attention { .. } | Work::Vae { .. } | Work::Optimizer { .. } => {
                of(&["eager"], precision)
            }
            Work::Network { .. } => {
                let mut names = vec!["eager", "channels_last"];
                let mut half = vec!["channels_last"];
                if self.installed.compiler {
                    names.push("compile");
                    half.push("compile");
                }
                if case.pass == Pass::Forward && self.has("openvino") {
                    names.push("openvino");
                    half.push("openvino");
                }
                if case.pass == Pass::Forward && self.has("onnxruntime onnx") {
                    names.push("onnxruntime");
                }
                if precision == Precision::Bf16 {
                    return of(&half, precision);
                }
                [of(&names, precision), of(&half, Precision::Bf16)].concat()
            }
            // The other side computes kernels in f32 only.
            _ if precision == Precision::Bf16 => Vec::new(),
            _ => of(&["eager", "channels_last"], precision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::cases;

    fn peer(installed: &str) -> Peer {
        Peer {
            python: "python3".into(),
            script: "peer.py".into(),
            installed: serde_json::from_str(installed).unwrap(),
        }
    }

    #[test]
    fn what_is_missing_is_named_and_not_run() {
        let all = peer(
            r#"{"torch": "2.1", "compiler": true, "openvino": "3.1", "onnxruntime": "4.1", "onnx": "5.1"}"#,
        );
        let few = peer(
            r#"{"torch": "2.1", "compiler": false, "openvino": null, "onnxruntime": "4.1", "onnx": null}"#,
        );
        assert_eq!(
            all.describe(),
            "compared with PyTorch 2.1, OpenVINO 3.1, ONNX Runtime 4.1"
        );
        assert_eq!(
            few.describe(),
            "compared with PyTorch 2.1; skipped: torch.compile (needs a C++ compiler), OpenVINO (pip install openvino), ONNX Runtime (pip install onnxruntime onnx)"
        );
        let of_pass = |pass| {
            let all = cases().into_iter();
            let mut networks = all.filter(|case| matches!(case.work, Work::Network { .. }));
            networks.find(|case| case.pass == pass).unwrap()
        };
        let names = |peer: &Peer, pass, precision| -> Vec<&str> {
            let runners = peer.runners(&of_pass(pass), DeviceSpec::Cpu, Precision::F32);
            let runners = runners.into_iter();
            let same = runners.filter(|runner| runner.precision == precision);
            same.map(|runner| runner.name).collect()
        };
        assert_eq!(
            names(&all, Pass::Forward, Precision::F32),
            [
                "eager",
                "channels_last",
                "compile",
                "openvino",
                "onnxruntime"
            ]
        );
        assert_eq!(
            names(&all, Pass::Forward, Precision::Bf16),
            ["channels_last", "compile", "openvino"]
        );
        // OpenVINO and ONNX Runtime do not train.
        assert_eq!(
            names(&all, Pass::Step, Precision::F32),
            ["eager", "channels_last", "compile"]
        );
        assert_eq!(
            names(&few, Pass::Forward, Precision::F32),
            ["eager", "channels_last"]
        );
    }
}
