//! The form of the images of a set: what all inputs have in common.

use sdft_files::plural;
use std::sync::{Mutex, PoisonError};

use sdft_imaging::{Depth, Image};

use crate::{PrepareError, Result};

/// Channels and depth of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) channels: usize,
    pub(crate) depth: Depth,
}

impl Form {
    pub(crate) const RGB8: Self = Self {
        channels: 3,
        depth: Depth::U8,
    };

    pub(crate) fn of(image: &Image) -> Self {
        Self {
            channels: image.channels,
            depth: image.depth(),
        }
    }

    /// The form that images of both forms can have: grey becomes RGB, and 16 bits become 8.
    fn with(self, other: Self) -> Option<Self> {
        let channels = match [self.channels, other.channels] {
            [a, b] if a == b => a,
            [1, 3] | [3, 1] => 3,
            _ => return None,
        };
        let depth = match [self.depth, other.depth] {
            [a, b] if a == b => a,
            [Depth::F32, _] | [_, Depth::F32] => return None,
            _ => Depth::U8,
        };
        Some(Self { channels, depth })
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let channels = plural(self.channels, "channel", "channels");
        let samples = match self.depth {
            Depth::F32 => "floats".to_owned(),
            depth => format!("{depth} bits"),
        };
        write!(f, "{channels} of {samples}")
    }
}

/// The form of all images met so far, from all threads. The result does not depend on their order.
pub(crate) struct Common {
    /// The form, and the first image that had it.
    form: Mutex<Option<(Form, String)>>,
    /// Whether the form was asked for.
    is_fixed: bool,
}

impl Common {
    /// A form that was asked for, or the one that the images turn out to have.
    pub(crate) fn new(asked: Option<Form>) -> Self {
        Self {
            form: Mutex::new(asked.map(|form| (form, String::new()))),
            is_fixed: asked.is_some(),
        }
    }

    /// The form so far.
    pub(crate) fn get(&self) -> Option<Form> {
        let form = self.form.lock().unwrap_or_else(PoisonError::into_inner);
        form.as_ref().map(|(form, _)| *form)
    }

    /// Adds an image, and returns the form so far, which is the one to give it.
    ///
    /// # Errors
    /// Fails if no form suits this and the other images.
    pub(crate) fn add(&self, found: Form, source: &str) -> Result<Form> {
        let mut form = self.form.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((so_far, first)) = form.as_ref() else {
            *form = Some((found, source.to_owned()));
            return Ok(found);
        };
        if self.is_fixed {
            return Ok(*so_far);
        }
        let common = so_far.with(found).ok_or_else(|| PrepareError::Forms {
            one: format!("{first} ({so_far})"),
            other: format!("{source} ({found})"),
        })?;
        if common != *so_far {
            *form = Some((common, source.to_owned()));
        }
        Ok(common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn form(channels: usize, depth: Depth) -> Form {
        Form { channels, depth }
    }

    #[test]
    fn images_of_one_form_keep_it_and_others_become_rgb_of_8_bits() {
        let common = |forms: &[Form]| {
            let common = Common::new(None);
            for form in forms {
                common.add(*form, "x").unwrap();
            }
            common.get()
        };
        let grey = form(1, Depth::U8);
        assert_eq!(common(&[]), None);
        assert_eq!(common(&[form(5, Depth::F32); 2]), Some(form(5, Depth::F32)));
        assert_eq!(common(&[grey, grey]), Some(grey));
        assert_eq!(common(&[grey, Form::RGB8, grey]), Some(Form::RGB8));
        let deep = form(1, Depth::U16);
        assert_eq!(common(&[deep, Form::RGB8]), Some(Form::RGB8));
        assert_eq!(common(&[deep, grey]), Some(grey));
        let asked = Common::new(Some(deep));
        assert_eq!(asked.add(Form::RGB8, "x").unwrap(), deep);
    }

    #[test]
    fn forms_without_a_common_one_are_named_with_their_images() {
        for other in [form(5, Depth::U8), form(3, Depth::F32)] {
            let common = Common::new(None);
            common.add(Form::RGB8, "a.png").unwrap();
            let error = common.add(other, "b.npy").unwrap_err().to_string();
            assert!(error.contains("a.png (3 channels of 8 bits)"), "{error}");
            assert!(error.contains(&format!("b.npy ({other})")), "{error}");
        }
    }
}
