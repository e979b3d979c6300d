//! CLIP's prompt templates.

/// Templates `P of {a|the} X.`
const PICTURES: [&str; 23] = [
    "a bad photo",
    "a sculpture",
    "a low resolution photo",
    "a rendering",
    "graffiti",
    "a cropped photo",
    "a tattoo",
    "a bright photo",
    "a dark photo",
    "a drawing",
    "a photo",
    "a close-up photo",
    "a black and white photo",
    "a painting",
    "a pixelated photo",
    "a jpeg corrupted photo",
    "a blurry photo",
    "a good photo",
    "a doodle",
    "a sketch",
    "a rendition",
    "art",
    "itap",
];
/// Templates `a photo of {a|the} A X.`
const QUALITIES: [&str; 8] = [
    "hard to see",
    "clean",
    "dirty",
    "cool",
    "nice",
    "weird",
    "large",
    "small",
];
/// Templates `{a|the} A X.`
const MADE_OF: [&str; 6] = [
    "embroidered",
    "plastic",
    "origami",
    "toy",
    "plushie",
    "cartoon",
];

/// The 79 prompts over which the text direction of a subject is averaged.
///
/// Source: the ImageNet templates of CLIP as in the losses of StyleGAN-NADA, DiffusionCLIP and Asyrp. The article is "a" also before a
/// vowel.
pub fn clip_prompts(subject: &str) -> Vec<String> {
    let mut out = Vec::with_capacity(79);
    for article in ["a", "the"] {
        out.extend(PICTURES.map(|picture| format!("{picture} of {article} {subject}.")));
        out.extend(QUALITIES.map(|quality| format!("a photo of {article} {quality} {subject}.")));
        out.extend(MADE_OF.map(|made| format!("{article} {made} {subject}.")));
        out.push(format!("{article} {subject} in a video game."));
    }
    for picture in ["a photo of my", "a photo of one", "itap of my"] {
        out.push(format!("{picture} {subject}."));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_seventy_nine_different_sentences() {
        let prompts = clip_prompts("smiling face");
        let unique: std::collections::BTreeSet<&String> = prompts.iter().collect();
        assert_eq!((prompts.len(), unique.len()), (79, 79));
        assert!(
            prompts
                .iter()
                .all(|p| p.ends_with('.') && p.contains("smiling face"))
        );
        assert!(unique.contains(&"a origami smiling face.".to_owned()));
        assert!(unique.contains(&"itap of the smiling face.".to_owned()));
    }
}
