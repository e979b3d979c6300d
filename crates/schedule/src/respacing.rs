//! Which steps of a process are kept to sample with fewer.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::error::{Result, ScheduleError};

/// Which steps of a process are kept.
///
/// As text: `""` keeps all steps, `"ddim40"` takes the smallest integer stride that visits exactly 40 steps, `"250"` spreads 250 steps evenly
/// from the first to the last, and `"10,15,20"` does so in each of three equal sections.
///
/// The two kinds differ at the noisy end: of 1000 steps `"ddim40"` ends at 975 and `"40"` at 999.
///
/// Code reference: guided-diffusion `space_timesteps`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Respacing {
    /// Every step.
    #[default]
    All,
    /// `0, i, 2i, ..` with the smallest integer stride `i` that gives this many steps.
    Ddim(usize),
    /// The process is divided into one section for each count, and each section keeps that many steps.
    Sections(Vec<usize>),
}

impl Respacing {
    /// The steps kept of a process with `n` steps, ascending and distinct.
    ///
    /// # Errors
    /// Fails if no integer stride visits the requested number of steps (the error has the nearest possible numbers), a section has fewer steps
    /// than requested, or no step is kept.
    pub fn indices(&self, n: usize) -> Result<Vec<usize>> {
        let kept = match self {
            Self::All => (0..n).collect(),
            Self::Ddim(wanted) => strided(n, *wanted)?,
            Self::Sections(counts) => sectioned(n, counts)?,
        };
        if kept.is_empty() {
            let text = self.to_string();
            return Err(ScheduleError::NothingKept { text });
        }
        Ok(kept)
    }
}

impl fmt::Display for Respacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Ddim(n) => write!(f, "ddim{n}"),
            Self::Sections(counts) => {
                for (i, count) in counts.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "," };
                    write!(f, "{separator}{count}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Respacing {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            // Like Python, allow blanks around a number.
            part.trim()
                .parse()
                .map_err(|_| ScheduleError::BadRespacing {
                    text: text.to_owned(),
                    part: part.to_owned(),
                })
        };
        if text.is_empty() {
            Ok(Self::All)
        } else if let Some(count) = text.strip_prefix("ddim") {
            Ok(Self::Ddim(number(count)?))
        } else {
            let counts: Result<_> = text.split(',').map(number).collect();
            Ok(Self::Sections(counts?))
        }
    }
}

fn strided(n: usize, wanted: usize) -> Result<Vec<usize>> {
    let visited = |stride: usize| n.div_ceil(stride);
    match (1..n).find(|&stride| visited(stride) == wanted) {
        Some(stride) => Ok((0..n).step_by(stride).collect()),
        None => {
            let below = (1..n).map(visited).filter(|&k| k < wanted).max();
            let above = (1..n).map(visited).filter(|&k| k > wanted).min();
            Err(ScheduleError::NoStride {
                wanted,
                n_steps: n,
                nearest: below.into_iter().chain(above).collect(),
            })
        }
    }
}

fn sectioned(n: usize, counts: &[usize]) -> Result<Vec<usize>> {
    let Some(size_per) = n.checked_div(counts.len()) else {
        return Ok(Vec::new());
    };
    let extra = n % counts.len();
    let mut kept = BTreeSet::new();
    let mut start = 0;
    for (section, &wanted) in counts.iter().enumerate() {
        let size = size_per + usize::from(section < extra);
        if wanted > size {
            return Err(ScheduleError::SectionTooShort {
                section,
                size,
                wanted,
            });
        }
        let stride = if wanted <= 1 {
            1.0
        } else {
            (size - 1) as f64 / (wanted - 1) as f64
        };
        // The position is accumulated and rounded half to even like in the reference, because this decides ties.
        let mut position = 0.0_f64;
        for _ in 0..wanted {
            kept.insert(start + position.round_ties_even() as usize);
            position += stride;
        }
        start += size;
    }
    Ok(kept.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(text: &str, n: usize) -> Result<Vec<usize>> {
        text.parse::<Respacing>()?.indices(n)
    }

    #[test]
    fn every_count_an_integer_stride_reaches_exists_and_no_other() {
        let exist: Vec<usize> = (0..=1001)
            .filter(|k| indices(&format!("ddim{k}"), 1000).is_ok())
            .collect();
        let expected: Vec<usize> = (2..=36)
            .chain([
                38, 39, 40, 42, 44, 46, 48, 50, 53, 56, 59, 63, 67, 72, 77, 84, 91, 100, 112, 125,
            ])
            .chain([143, 167, 200, 250, 334, 500, 1000])
            .collect();
        assert_eq!(exist, expected);
    }

    #[test]
    fn ddim_takes_the_smallest_stride() {
        let kept = indices("ddim40", 1000).unwrap();
        assert!(kept.iter().copied().eq((0..1000).step_by(25)));
        assert_eq!(indices("ddim25", 1000).unwrap().last(), Some(&960));
        // Strides from 500 to 999 all visit two steps.
        assert_eq!(indices("ddim2", 1000), Ok(vec![0, 500]));
    }

    #[test]
    fn ties_round_half_to_even() {
        let expected = [
            0, 26, 51, 77, 102, 128, 154, 179, 205, 231, 256, 282, 307, 333, 359, 384, 410, 435,
            461, 487, 512, 538, 564, 589, 615, 640, 666, 692, 717, 743, 768, 794, 820, 845, 871,
            897, 922, 948, 973, 999,
        ];
        assert_eq!(indices("40", 1000).unwrap(), expected);
        // Stride 2.5: positions 0, 2.5, 5.
        assert_eq!(indices("3", 6).unwrap(), [0, 2, 5]);
        // Stride 3.5: positions 0, 3.5, 7.
        assert_eq!(indices("3", 8).unwrap(), [0, 4, 7]);
    }

    #[test]
    fn sections_split_the_process_evenly() {
        let kept = indices("10,15,20", 300).unwrap();
        assert_eq!(kept.len(), 45);
        assert_eq!(kept[9..12], [99, 100, 107]);
        assert_eq!(kept[24..26], [199, 200]);
        // The first n mod sections sections have one more step; a count of one takes the first step of its section.
        assert_eq!(indices("1,1,1", 8).unwrap(), [0, 3, 6]);
        assert_eq!(indices("2,0,1", 8).unwrap(), [0, 2, 6]);
        assert_eq!(indices("", 5).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(indices("5", 5).unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_impossible_stride_names_the_nearest_possible_ones() {
        let error = indices("ddim41", 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no integer stride visits exactly 41 of 1000 steps (ddim41); the nearest possible numbers: 40, 42"
        );
        let error = indices("ddim2000", 1000).unwrap_err();
        assert!(
            error.to_string().ends_with("possible numbers: 1000"),
            "{error}"
        );
        for (text, n) in [("ddim0", 1000), ("ddim1", 1000), ("ddim1", 1)] {
            assert!(
                matches!(indices(text, n), Err(ScheduleError::NoStride { .. })),
                "{text} {n}"
            );
        }
    }

    #[test]
    fn more_steps_than_a_section_has_is_an_error() {
        assert_eq!(
            indices("10,15,101", 300),
            Err(ScheduleError::SectionTooShort {
                section: 2,
                size: 100,
                wanted: 101
            })
        );
        assert!(indices("1001", 1000).is_err());
        assert!(indices("1,1,1", 2).is_err());
    }

    #[test]
    fn keeping_nothing_is_an_error() {
        for text in ["0", "0,0"] {
            let error = indices(text, 100).unwrap_err();
            assert_eq!(
                error,
                ScheduleError::NothingKept {
                    text: text.to_owned()
                }
            );
        }
        assert!(Respacing::All.indices(0).is_err());
        assert!(Respacing::Sections(Vec::new()).indices(10).is_err());
    }

    #[test]
    fn invalid_text_is_quoted_in_the_error() {
        for (text, part) in [
            ("ddim", ""),
            ("ddimforty", "forty"),
            ("10,,20", ""),
            ("10,x", "x"),
            ("-5", "-5"),
            ("2.5", "2.5"),
            ("fast27", "fast27"),
            (" ", " "),
            ("99999999999999999999999", "99999999999999999999999"),
        ] {
            assert_eq!(
                text.parse::<Respacing>(),
                Err(ScheduleError::BadRespacing {
                    text: text.to_owned(),
                    part: part.to_owned()
                })
            );
        }
    }

    #[test]
    fn text_round_trips() {
        for text in ["", "ddim40", "250", "10,15,20"] {
            assert_eq!(text.parse::<Respacing>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10, 15".parse::<Respacing>().unwrap(),
            Respacing::Sections(vec![10, 15])
        );
    }
}
