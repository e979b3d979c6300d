//! One self-contained page for a folder of results.
//!
//! [`page`] reads the folder of a training run, of translated or edited images, of an evaluation or of a comparison, or several of them,
//! and returns HTML that needs no other file and no network: curves, samples over time, settings next to those of their preset, weights of
//! the loss over the noise level, inputs and outputs under a divider, tables that sort. [`write_page`] writes it, and [`watch`] serves it
//! on loopback while a run continues.
//!
//! # Example: the page of an evaluation
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let folder = dir.path().join("evaluation");
//! # std::fs::create_dir(&folder)?;
//! # std::fs::write(folder.join("plan.toml"), "features = 'inception'")?;
//! # std::fs::write(folder.join("report.json"), r#"{"measures": [{"name": "FID", "value": 12.5}]}"#)?;
//! let path = sdft_report::write_page(&[folder], None, &|_| None)?;
//! let page = std::fs::read_to_string(&path)?;
//! assert!(path.ends_with("evaluation/report.html") && page.contains("12.5"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** a page loads nothing, and changes no file but itself; a file that is not such a page is never replaced.

pub use crate::{
    error::{Error, Result},
    page::{PresetText, page},
    serve::watch,
    write::{FILE, write_page},
};

mod chart;
mod error;
mod images;
mod page;
mod picture;
mod plan;
mod run;
mod serve;
mod sessions;
mod tables;
mod write;
