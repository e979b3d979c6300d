//! Reads and checks the fields of a network's `config.json`, and says what is wrong with one.
//!
//! # Example: a field with a default
//! ```
//! use sdft_fields::{COUNT, check_known, field};
//!
//! let json = serde_json::json!({ "_class_name": "UNet2DModel", "in_channels": 4.0, "layers": "two" });
//! let json = json.as_object().unwrap();
//! check_known(json, "UNet2DModel", &["in_channels", "out_channels", "layers"])?;
//! assert_eq!(field(json, "in_channels", COUNT, 3)?, 4);
//! assert_eq!(field(json, "out_channels", COUNT, 3)?, 3);
//! let error = field(json, "layers", COUNT, 2).unwrap_err();
//! assert_eq!(error.to_string(), r#"layers: expected a whole number, found "two""#);
//! # Ok::<(), sdft_fields::ConfigError>(())
//! ```
//!
//! **Invariant:** a field that is unknown, of another type or out of range is an error that names it, never a default.

pub use crate::{
    error::{ConfigError, brief, require},
    read::{CLASS, COUNT, FLAG, NUMBER, check_known, field, whole},
};

mod error;
mod read;
