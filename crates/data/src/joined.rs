//! Several image sources as one.

use std::{fmt, sync::Arc};

use sdft_imaging::ImageSpec;
use sdft_noise::Draw;

use crate::{DataError, ImageSource, Item, Place, Result};

/// Selected images of several sources of the same form and classes, one source after the other.
pub struct Joined {
    parts: Vec<(Arc<dyn ImageSource>, Vec<usize>)>,
    spec: ImageSpec,
}

impl Joined {
    /// Joins the images with the given indices of each source.
    ///
    /// # Errors
    /// Fails if there are no sources, or their forms or classes differ.
    pub fn new(parts: Vec<(Arc<dyn ImageSource>, Vec<usize>)>) -> Result<Self> {
        let mut specs = parts
            .iter()
            .map(|(source, _)| (*source.spec(), source.latent_shape()));
        let spec = specs.next();
        let Some((spec, _)) = spec.filter(|spec| specs.all(|other| other == *spec)) else {
            return Err(DataError::Option {
                option: "sources",
                expected: "one or more of the same form of images".to_owned(),
                found: format!(
                    "{:?}",
                    parts
                        .iter()
                        .map(|(s, _)| s.spec().to_string())
                        .collect::<Vec<_>>()
                ),
            });
        };
        if let Some((other, _)) = parts
            .iter()
            .find(|(s, _)| s.classes() != parts[0].0.classes())
        {
            return Err(DataError::Option {
                option: "sources",
                expected: format!("the same classes, {}", listed(parts[0].0.classes())),
                found: listed(other.classes()),
            });
        }
        Ok(Self { parts, spec })
    }

    /// The index of the source that image `index` belongs to.
    #[must_use]
    pub fn part(&self, index: usize) -> Option<usize> {
        Some(self.find(index)?.0)
    }

    /// The source of image `index`, and the image's index there.
    fn find(&self, mut index: usize) -> Option<(usize, usize)> {
        for (part, (_, chosen)) in self.parts.iter().enumerate() {
            match chosen.get(index) {
                Some(&inside) => return Some((part, inside)),
                None => index -= chosen.len(),
            }
        }
        None
    }
}

/// The names of some classes.
fn listed(classes: &[String]) -> String {
    match classes {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

impl ImageSource for Joined {
    fn len(&self) -> usize {
        self.parts.iter().map(|(_, chosen)| chosen.len()).sum()
    }

    fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        match self.find(index) {
            Some((part, inside)) => self.parts[part].0.item(inside, place),
            None => Err(DataError::Index {
                index,
                len: self.len(),
            }),
        }
    }

    fn latent_shape(&self) -> Option<[usize; 3]> {
        self.parts[0].0.latent_shape()
    }

    fn draw_latents(
        &self,
        index: usize,
        mirrored: bool,
        draw: &Draw,
        out: &mut [f32],
    ) -> Result<Option<Vec<f32>>> {
        match self.find(index) {
            Some((part, inside)) => {
                let source = &self.parts[part].0;
                source.draw_latents(inside, mirrored, draw, out)
            }
            None => Err(DataError::Index {
                index,
                len: self.len(),
            }),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        let (part, inside) = self.find(index)?;
        self.parts[part].0.label(inside)
    }

    fn classes(&self) -> &[String] {
        self.parts[0].0.classes()
    }

    fn id(&self, index: usize) -> String {
        self.find(index)
            .map_or_else(String::new, |(part, inside)| self.parts[part].0.id(inside))
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<usize> = self.parts.iter().map(|(_, chosen)| chosen.len()).collect();
        f.debug_struct("Joined")
            .field("images", &counts)
            .field("spec", &self.spec)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digits, DigitsOptions, DigitsSource, Style};

    #[test]
    fn images_come_in_the_order_of_their_sources() {
        let digits = |class| {
            let all = Digits::embedded().unwrap();
            Arc::new(DigitsSource::new(all, Style::Chalk, &[class], 4).unwrap())
                as Arc<dyn ImageSource>
        };
        let (three, eight) = (digits(3), digits(8));
        let joined =
            Joined::new(vec![(three.clone(), vec![2, 0]), (eight.clone(), vec![1])]).unwrap();
        assert_eq!(joined.len(), 3);
        let parts: Vec<_> = (0..4).map(|i| joined.part(i)).collect();
        assert_eq!(parts, [Some(0), Some(0), Some(1), None]);
        assert_eq!(joined.id(1), three.id(0));
        assert_eq!(joined.image(0).unwrap(), three.image(2).unwrap());
        assert_eq!(joined.image(2).unwrap(), eight.image(1).unwrap());
        assert!(joined.image(3).is_err() && joined.id(3).is_empty());
        assert!(Joined::new(Vec::new()).is_err());
    }

    #[test]
    fn sources_share_their_classes() {
        let digits = |digits: &[u8]| {
            let options = DigitsOptions {
                digits: digits.to_vec(),
                per_class: 2,
                labelled: true,
                ..DigitsOptions::new(Style::Chalk)
            };
            let all = Digits::embedded().unwrap();
            let source = DigitsSource::with_options(&all, &options).unwrap();
            (Arc::new(source) as Arc<dyn ImageSource>, vec![3, 0])
        };
        let joined = Joined::new(vec![digits(&[3, 8]), digits(&[8, 3])]).unwrap();
        assert_eq!(joined.classes(), ["3", "8"]);
        let labels: Vec<_> = (0..5).map(|i| joined.label(i)).collect();
        assert_eq!(labels, [Some(1), Some(0), Some(1), Some(0), None]);
        let error = Joined::new(vec![digits(&[3, 8]), digits(&[3, 4])]).unwrap_err();
        assert!(error.to_string().contains("3, 4"), "{error}");
    }
}
