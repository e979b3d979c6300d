//! Edits along directions on the deepest features (Asyrp): applying them, and what their training needs.

mod apply;
mod goal;
mod latents;
mod plan;
mod range;

pub use apply::edit_folder;
pub use goal::{GoalNetwork, goal_networks, locate_goal, open_goal};
pub use latents::{Inversion, inversions_folder, open_inversions};
pub use plan::EditOptions;
pub use range::{
    RANGE_STEPS, RangeImages, RangeOptions, RangeReport, find_range, measure_range, range_t_boost,
    range_t_edit,
};
