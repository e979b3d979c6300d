//! Networks that look at images: the classifier that judges the embedded digits.
