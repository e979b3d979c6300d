//! Checks that dependencies point down, and that some crates stay free of heavy dependencies.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// Folders of crates without a tensor library.
const WITHOUT_CANDLE: [&str; 12] = [
    "crates/kernels",
    "crates/noise",
    "crates/schedule",
    "crates/imaging",
    "crates/metrics",
    "crates/npz",
    "assets",
    "crates/files",
    "crates/gallery",
    "crates/prepare",
    "crates/toolkit",
    "xtask",
];
/// Packages that open network connections.
const NETWORK: [&str; 4] = ["reqwest", "ureq", "hf-hub", "candle-datasets"];
/// The package that may use them.
const NETWORK_HOME: &str = "sdft-hub";

/// Packages that know no architecture, and packages that do. Tests may use them.
const WITHOUT_ARCHITECTURE: [&str; 1] = ["sdft-train"];
const ARCHITECTURES: [&str; 2] = ["sdft-adm", "sdft-models"];

/// A package of the workspace.
#[derive(Debug, Default)]
pub(super) struct Package {
    pub(super) name: String,
    /// Relative to the root, with `/`.
    pub(super) folder: String,
    layer: Option<u64>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    is_dev: bool,
}

/// Parses the output of `cargo metadata --no-deps`.
pub(super) fn packages(metadata: &str) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading cargo metadata")?;
    let root = metadata["workspace_root"]
        .as_str()
        .context("cargo metadata names no workspace root")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    packages
        .iter()
        .map(|package| read_package(package, Path::new(root)))
        .collect()
}

fn read_package(package: &Value, root: &Path) -> Result<Package> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&package["name"]).context("a package without a name")?;
    let manifest =
        text(&package["manifest_path"]).with_context(|| format!("{name} has no manifest"))?;
    let manifest = Path::new(&manifest);
    let folder = manifest.parent().unwrap_or(manifest);
    let dependencies = package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|dependency| {
            let name = text(&dependency["name"])?;
            let is_dev = dependency["kind"] == "dev";
            Some(Dependency { name, is_dev })
        })
        .collect();
    Ok(Package {
        folder: super::slashed(folder.strip_prefix(root).unwrap_or(folder)),
        layer: package["metadata"]["sdft"]["layer"].as_u64(),
        name,
        dependencies,
    })
}

/// One line for each package or dependency that breaks a rule.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    let find = |name: &str| packages.iter().find(|package| package.name == name);
    for package in packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let Some(layer) = package.layer else {
            problems.push(format!(
                "{manifest}: no layer; add [package.metadata.sdft] layer = N (see docs/ARCHITECTURE.md)"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            if NETWORK.contains(&dependency.name.as_str()) && package.name != NETWORK_HOME {
                problems.push(format!(
                    "{manifest}: depends on {}, which opens network connections; only {NETWORK_HOME} may, take paths of local files instead",
                    dependency.name
                ));
            }
            if WITHOUT_ARCHITECTURE.contains(&package.name.as_str())
                && ARCHITECTURES.contains(&dependency.name.as_str())
                && !dependency.is_dev
            {
                problems.push(format!(
                    "{manifest}: depends on {}; this crate knows no architecture, use the traits of sdft-diffusion",
                    dependency.name
                ));
            }
            let Some(below) = find(&dependency.name).and_then(|target| target.layer) else {
                continue;
            };
            let (points_down, rule) = if dependency.is_dev {
                (
                    below <= layer,
                    "dev-dependencies may point sideways, not up",
                )
            } else {
                (below < layer, "dependencies point down")
            };
            if !points_down {
                problems.push(format!(
                    "{manifest}: layer {layer} depends on {} of layer {below}; {rule}, move the shared code to a lower crate",
                    dependency.name
                ));
            }
        }
        if WITHOUT_CANDLE.contains(&package.folder.as_str())
            && let Some(candle) = reachable(package, packages)
                .iter()
                .find(|name| name.starts_with("candle"))
        {
            problems.push(format!(
                "{manifest}: depends on {candle}, but this crate must not depend on a tensor library; use slices"
            ));
        }
    }
    problems
}

/// The names of all dependencies of `package`, including those through other packages of the workspace, but not their dev-dependencies.
fn reachable(package: &Package, packages: &[Package]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = package
        .dependencies
        .iter()
        .map(|d| d.name.clone())
        .collect();
    let mut queue: Vec<String> = names.iter().cloned().collect();
    while let Some(name) = queue.pop() {
        let Some(target) = packages.iter().find(|package| package.name == name) else {
            continue;
        };
        for dependency in target
            .dependencies
            .iter()
            .filter(|dependency| !dependency.is_dev)
        {
            if names.insert(dependency.name.clone()) {
                queue.push(dependency.name.clone());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package in `crates/NAME`; dependencies that start with `dev:` are dev-dependencies.
    fn package(name: &str, layer: u64, dependencies: &[&str]) -> Package {
        let dependency = |text: &&str| {
            let (name, is_dev) = text
                .strip_prefix("dev:")
                .map_or((*text, false), |name| (name, true));
            Dependency {
                name: name.to_owned(),
                is_dev,
            }
        };
        Package {
            name: format!("sdft-{name}"),
            folder: format!("crates/{name}"),
            layer: Some(layer),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn dependencies_that_point_down_are_accepted() {
        let packages = [
            package("noise", 0, &["libm", "dev:sdft-schedule"]),
            package("schedule", 0, &["thiserror"]),
            package(
                "nn",
                1,
                &["candle-core", "sdft-noise", "dev:sdft-checkpoint"],
            ),
            package("checkpoint", 1, &["candle-core"]),
            package("hub", 7, &["reqwest"]),
        ];
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_upward_dependency_is_reported() {
        let packages = [
            package("losses", 4, &[]),
            package("adm", 3, &["sdft-losses"]),
        ];
        assert_eq!(
            check(&packages),
            [
                "crates/adm/Cargo.toml: layer 3 depends on sdft-losses of layer 4; dependencies point down, move the shared code to a lower crate"
            ]
        );
    }

    #[test]
    fn sideways_dependencies_are_for_tests_only() {
        let packages = [
            package("a", 2, &["sdft-b"]),
            package("b", 2, &["dev:sdft-a"]),
        ];
        assert_eq!(check(&packages).len(), 1);
        let packages = [package("a", 2, &["dev:sdft-b"]), package("b", 3, &[])];
        assert!(check(&packages)[0].contains("not up"));
    }

    #[test]
    fn a_missing_layer_is_reported() {
        let mut lost = package("lost", 0, &[]);
        lost.layer = None;
        assert!(check(&[lost])[0].starts_with("crates/lost/Cargo.toml: no layer"));
    }

    #[test]
    fn tensor_libraries_are_found_through_other_crates() {
        let packages = [
            package("imaging", 1, &["sdft-noise", "dev:serde_json"]),
            package("noise", 0, &["candle-nn"]),
        ];
        let problems = check(&packages);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("crates/imaging/Cargo.toml: depends on candle-nn"));
        assert!(check(&[package("schedule", 0, &["dev:candle-core"])])[0].contains("candle-core"));
    }

    #[test]
    fn the_trainer_knows_no_architecture() {
        let adm = package("adm", 3, &[]);
        let problems = check(&[package("train", 6, &["sdft-adm"]), adm]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("crates/train/Cargo.toml: depends on sdft-adm"));
        let adm = package("adm", 3, &[]);
        let fine = [
            package("train", 6, &["dev:sdft-adm"]),
            package("jobs", 8, &["sdft-adm", "sdft-train"]),
            adm,
        ];
        assert_eq!(check(&fine), Vec::<String>::new());
    }

    #[test]
    fn only_one_crate_may_open_connections() {
        let problems = check(&[
            package("train", 6, &["reqwest"]),
            package("hub", 7, &["reqwest"]),
        ]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("crates/train/Cargo.toml: depends on reqwest"));
    }

    #[test]
    fn metadata_is_read_as_cargo_writes_it() {
        let metadata = r#"{"workspace_root": "/r", "packages": [{
            "name": "sdft-a", "manifest_path": "/r/crates/a/Cargo.toml", "metadata": {"sdft": {"layer": 3}},
            "dependencies": [{"name": "x", "kind": null}, {"name": "y", "kind": "dev"}, {"name": "z", "kind": "build"}]
        }, {"name": "b", "manifest_path": "/r/b/Cargo.toml", "metadata": null, "dependencies": []}]}"#;
        let packages = packages(metadata).unwrap();
        assert_eq!(
            (packages[0].folder.as_str(), packages[0].layer),
            ("crates/a", Some(3))
        );
        let dev: Vec<bool> = packages[0].dependencies.iter().map(|d| d.is_dev).collect();
        assert_eq!(dev, [false, true, false]);
        assert_eq!(
            (packages[1].folder.as_str(), packages[1].layer),
            ("b", None)
        );
    }
}
