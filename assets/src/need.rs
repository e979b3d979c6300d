//! What a command needs by name and cannot find, and the command that brings it.

use crate::cache::fetch_command;
use crate::images::ImageSet;
use crate::manifest::{Asset, Place};
use sdft_files::human_size;
use serde::{Deserialize, Serialize};

/// Something that a command needs by name, that is missing, and that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The name.
    pub name: String,
    /// What it is and how large, in one line.
    pub what: String,
    /// How to bring it without a network, in one line.
    pub otherwise: String,
    /// The call that brings it: `["fetch", NAME]`, or `["prepare", NAME, ..]`.
    pub command: Vec<String>,
}

/// What a program answers when it is asked what one of its commands needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Whether the network may not be used.
    pub offline: bool,
    /// What is missing.
    pub needs: Vec<Need>,
}

impl Need {
    /// The files of an asset.
    pub fn asset(asset: &Asset) -> Self {
        Self {
            name: asset.name.clone(),
            what: describe(asset),
            otherwise: otherwise(asset),
            command: vec!["fetch".to_owned(), asset.name.clone()],
        }
    }

    /// A file of the Hub, as `hf:OWNER/NAME/PATH`.
    pub fn file(text: &str) -> Self {
        Self {
            name: text.to_owned(),
            what: "its size is known to the Hub".to_owned(),
            otherwise: "the path of a file in its place".to_owned(),
            command: vec!["fetch".to_owned(), text.to_owned()],
        }
    }

    /// A data set, prepared.
    pub fn images(set: &ImageSet) -> Self {
        let mut command = vec!["prepare".to_owned(), set.asset.name.clone()];
        if !set.asset.pair {
            command.extend(["--size".to_owned(), set.size.to_string()]);
        }
        Self {
            name: set.asset.name.clone(),
            what: format!("{}; goes to {}", describe(set.asset), set.folder.display()),
            otherwise: otherwise(set.asset),
            command,
        }
    }
}

/// `374.4 MB from deepinv/diffunet: ADM ..`
fn describe(asset: &Asset) -> String {
    let size = match asset.bytes() {
        0 => String::new(),
        n => format!("{} ", human_size(n)),
    };
    format!(
        "{size}from {}: {}; licence: {}",
        asset.place.origin(),
        asset.what,
        asset.licence
    )
}

/// `hf download .. on another machine, ..`
fn otherwise(asset: &Asset) -> String {
    let command = fetch_command(asset);
    match asset.place {
        Place::Hub { .. } => format!(
            "{command} on another machine, and its cache folder copied to this one; or the path of your own {}",
            if asset.is_images() { "images" } else { "file" }
        ),
        Place::Web { .. } => format!("{command}, and the path of the file in place of the name"),
    }
}

/// What an asset is and every way to provide it, for one screen.
pub fn ways(asset: &Asset) -> String {
    let name = &asset.name;
    let files: Vec<&str> = asset.files.iter().map(|file| file.path.as_str()).collect();
    let size = match asset.bytes() {
        0 => String::new(),
        n => format!(", {}", human_size(n)),
    };
    let way = match asset.is_images() {
        true => "--data FOLDER with images of your own, or a prepared set",
        false => "the path of the file in place of the name",
    };
    let command = fetch_command(asset);
    let others = match asset.place {
        Place::Hub { .. } => format!(
            "with a mirror      HF_ENDPOINT=https://.. cargo xtask fetch {name}\n  \
             on another machine {command}\n  \
             {:<18} and bring its cache folder here; HF_HOME says where it is (~/.cache/huggingface)",
            ""
        ),
        Place::Web { .. } => format!("on any machine     {command}"),
    };
    format!(
        "{name} is {}\n  {}: {}{size}\n  licence: {}\n\nTo provide it:\n  \
         with a network     cargo xtask fetch {name}\n  \
         {others}\n  \
         or give            {way}",
        asset.what,
        asset.place,
        files.join(", "),
        asset.licence,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset;

    #[test]
    fn a_need_has_a_description_and_the_command_that_fetches_it() {
        let need = Need::asset(asset("ffhq-10m").unwrap());
        assert_eq!(need.command, ["fetch", "ffhq-10m"]);
        assert!(need.what.starts_with("374.4 MB from deepinv/diffunet: "));
        assert!(need.otherwise.starts_with("hf download deepinv/diffunet "));
        let images = |name: &str| Need::images(&ImageSet::named(name, 64).unwrap());
        let need = images("metfaces");
        assert_eq!(need.command, ["prepare", "metfaces", "--size", "64"]);
        assert!(need.what.ends_with("goes to data/metfaces-64"));
        assert_eq!(images("mnist-target").command, ["prepare", "mnist"]);
    }

    #[test]
    fn the_ways_to_an_asset_fit_a_screen() {
        for asset in crate::assets() {
            let text = ways(asset);
            assert!(text.lines().count() <= 20, "{text}");
            let is_hub = matches!(asset.place, Place::Hub { .. });
            assert!(text.contains(&asset.licence), "{text}");
            assert_eq!(text.contains("HF_ENDPOINT"), is_hub, "{text}");
            assert_eq!(text.contains("curl --fail -O https://"), !is_hub, "{text}");
        }
    }
}
