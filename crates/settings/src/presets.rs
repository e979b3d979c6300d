//! Named settings that a program carries with it.

/// Names and TOML texts of presets. The first line of a text is a comment that describes it.
#[derive(Clone, Copy, Debug)]
pub struct Presets(pub &'static [(&'static str, &'static str)]);

impl Presets {
    /// The text of a preset.
    pub fn get(&self, name: &str) -> Option<&'static str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| *text)
    }

    /// The names of all presets.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// The description of a preset: its first line without the comment sign. Empty for an unknown name.
    pub fn about(&self, name: &str) -> &'static str {
        let line = self.get(name).and_then(|text| text.lines().next());
        line.unwrap_or("").trim_start_matches("# ")
    }
}
