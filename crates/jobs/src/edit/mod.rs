//! Edits by directions (Asyrp) or tuned models (DiffusionCLIP): applying them, and what their training needs.

mod apply;
mod goal;
mod latents;
mod loaded;
mod plan;
mod range;

pub use apply::{edit_folder, serve_edits};
pub use goal::GoalNetwork;
pub(crate) use goal::{goal_networks, locate_goal, open_goal};
pub(crate) use latents::{Inversion, inversions_folder, open_inversions};
pub use plan::EditOptions;
pub(crate) use range::{RANGE_STEPS, RangeImages, measure_range, range_t_boost, range_t_edit};
pub use range::{RangeOptions, RangeReport, find_range};
