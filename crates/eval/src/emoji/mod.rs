//! Emoji as their judge sees them.

mod attributes;
mod judged;
mod score;

pub use attributes::{
    EMOJI_ATTRIBUTES, EMOJI_OTHER, EmojiAttribute, EmojiValues, features_of_values,
};
pub(crate) use judged::CONFIDENT;
pub use judged::{EmojiJudged, judge_emoji};
pub use score::{
    EmojiEditScore, EmojiKeptScore, EmojiScore, retained_emoji, score_edited_emoji, score_emoji,
    score_kept_emoji, share_retained,
};
