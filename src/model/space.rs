//! Embedding spaces: only embeddings of one space may be compared.

use super::input::{ColourOrder, CropRule, Layout};
use super::manifest::Manifest;
use super::values::Sha256Hex;
use crate::engine::Precision;

/// Hexadecimal digits of the hash in an identifier. These are 48 bits, far more than the models of
/// any operator need.
const DIGITS: usize = 12;

/// Returns the identifier of the embedding space of `manifest` at `precision`, for example
/// `sface-2021dec-f32-0123456789ab`.
///
/// The digits are a hash of everything in the manifest that changes an embedding (weights, crop,
/// input) and of the precision. Two models that differ only in the mean have different spaces.
pub fn space_id(manifest: &Manifest, precision: Precision) -> String {
    let input = &manifest.input;
    let layout = match input.layout {
        Layout::Nchw => "nchw",
        Layout::Nhwc => "nhwc",
    };
    let colour = match input.colour {
        ColourOrder::Rgb => "rgb",
        ColourOrder::Bgr => "bgr",
    };
    // Every calibration file names a space. A change of this text makes all of them invalid.
    let facts = format!(
        "weights={};crop={};size={}x{};layout={layout};colour={colour};mean={:?};scale={:?};\
         precision={}",
        manifest.sha256,
        crop(&input.crop),
        input.width,
        input.height,
        input.mean.map(f32::to_bits),
        input.scale.map(f32::to_bits),
        precision.name(),
    );
    let hash = Sha256Hex::of(facts.as_bytes());
    let digits = &hash.as_str()[..DIGITS];
    format!("{}-{}-{}-{digits}", manifest.name, manifest.version, precision.name())
}

fn crop(rule: &CropRule) -> String {
    match rule {
        CropRule::Letterbox {} => "letterbox".to_owned(),
        CropRule::Align { template } => format!("align:{}", template.id()),
        CropRule::Box { scale } => format!("box:{scale}"),
        CropRule::EyesLevelSquare { scale } => format!("eyes-level-square:{scale}"),
        CropRule::Eye { scale } => format!("eye:{scale}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SFACE: &str = include_str!("../../models/sface/2021dec/model.toml");

    #[test]
    fn the_default_space_keeps_its_identifier() {
        // printf of the text in `space_id`, piped into sha256sum.
        let id = space_id(&Manifest::parse(SFACE).unwrap(), Precision::F32);
        assert_eq!(id, "sface-2021dec-f32-216b37a40080");
    }

    #[test]
    fn whatever_moves_an_embedding_makes_another_space() {
        let space = |text: &str| space_id(&Manifest::parse(text).unwrap(), Precision::F32);
        let original = space(SFACE);
        let edits = [
            ("sha256 = \"fb143", "sha256 = \"fb144"),
            ("colour = \"rgb\"", "colour = \"bgr\""),
            ("layout = \"nchw\"", "layout = \"nhwc\""),
            ("mean = [0.0,", "mean = [1.0,"),
            ("scale = [1.0,", "scale = [0.5,"),
        ];
        for (from, to) in edits {
            assert_ne!(space(&SFACE.replacen(from, to, 1)), original, "{to}");
        }
        assert_eq!(space(&SFACE.replacen("buckets = [1,", "buckets = [", 1)), original);
    }

    #[test]
    fn every_precision_has_a_space_of_its_own_that_names_it() {
        let manifest = Manifest::parse(SFACE).unwrap();
        let all = [Precision::F32, Precision::Tf32, Precision::F16, Precision::Bf16];
        let mut hashes: Vec<String> = Vec::new();
        for precision in all {
            let id = space_id(&manifest, precision);
            let hash = id.strip_prefix(&format!("sface-2021dec-{precision}-")).unwrap();
            assert!(!hashes.iter().any(|other| other == hash), "{id}");
            hashes.push(hash.to_owned());
        }
    }
}
