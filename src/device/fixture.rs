//! Models for tests: a manifest without files, and networks that are closures.

use std::sync::{Arc, mpsc};

use candle_core::Tensor;

use super::{DeviceError, LoadedModel};
use crate::image::RgbImage;
use crate::model::Manifest;

/// A manifest of an embedder fed 112×112 pixels as they are; its one output is one value.
const EMBEDDER: &str = r#"
name = "tiny"
version = "1"
task = "face-embedding"
file = "tiny.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
licence = "MIT"
precision = "f32"
buckets = [1]

[origin]
package = "none"
version = "1"
path = "none"
upstream = "this test"
training_data = "none"

[input]
tensor = "x"
width = 112
height = 112
layout = "nchw"
colour = "rgb"
mean = [0.0, 0.0, 0.0]
scale = [1.0, 1.0, 1.0]
crop = { rule = "align", template = "arcface112" }

[[outputs]]
tensor = "y"
shape = [1]
meaning = "embedding"

[golden]
file = "golden.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
tolerance = { kind = "cosine", limit = 0.9999 }
"#;

/// The grey value that makes [`reading`] panic.
pub(crate) const PANICS: u8 = 13;

/// The grey value that makes [`reading`] answer with an infinite value.
pub(crate) const OVERFLOWS: u8 = 14;

/// The manifest of a tiny embedder.
pub(crate) fn manifest(name: &str, version: &str, buckets: &[usize]) -> Manifest {
    let manifest = Manifest::parse(EMBEDDER).expect("the text is a manifest");
    let (name, version) = (name.to_owned(), version.to_owned());
    Manifest { name, version, buckets: buckets.to_vec(), ..manifest }
}

/// A row whose every pixel has the grey value `value`.
pub(crate) fn grey(value: u8) -> RgbImage {
    let mut image = RgbImage::black(112, 112);
    image.pixels_mut().fill(value);
    image
}

/// A model that answers each row with its grey value.
pub(crate) fn reader(name: &str, buckets: &[usize]) -> Arc<LoadedModel> {
    Arc::new(LoadedModel::new(manifest(name, "1", buckets), Box::new(reading)))
}

/// A [`reader`] that stops at a gate before each run.
pub(crate) fn gated(name: &str, buckets: &[usize]) -> (Arc<LoadedModel>, Gate) {
    let (enter, entered) = tokio::sync::mpsc::channel(64);
    let (open, opened) = mpsc::channel();
    let opened = parking_lot::Mutex::new(opened);
    let run = move |input: &Tensor| {
        let rows = grey_values(input)?;
        enter.try_send(rows).expect("the test looks at what enters");
        opened.lock().recv().expect("the test opens the gate");
        reading(input)
    };
    let model = LoadedModel::new(manifest(name, "1", buckets), Box::new(run));
    (Arc::new(model), Gate { entered, open })
}

/// What holds a [`gated`] model. A gate that is dropped makes the waiting run panic.
pub(crate) struct Gate {
    entered: tokio::sync::mpsc::Receiver<Vec<u8>>,
    open: mpsc::Sender<()>,
}

impl Gate {
    /// Waits until a batch stands at the gate; the grey values of its rows, padding as 0.
    pub(crate) async fn entered(&mut self) -> Vec<u8> {
        self.entered.recv().await.expect("the model is alive")
    }

    /// Lets one batch pass, now or when it comes.
    pub(crate) fn open(&self) {
        self.open.send(()).expect("the model is alive");
    }

    /// Whether no further batch has come to the gate.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.entered.try_recv().is_err()
    }
}

/// A network that answers each row with its grey value, but for [`PANICS`] and [`OVERFLOWS`].
pub(crate) fn reading(input: &Tensor) -> Result<Vec<Tensor>, DeviceError> {
    let values = grey_values(input)?;
    assert!(!values.contains(&PANICS), "a bug in a network");
    let answer = |value: u8| if value == OVERFLOWS { f32::INFINITY } else { f32::from(value) };
    let answers: Vec<f32> = values.into_iter().map(answer).collect();
    let count = answers.len();
    Ok(vec![Tensor::from_vec(answers, (count, 1), input.device())?])
}

fn grey_values(input: &Tensor) -> Result<Vec<u8>, DeviceError> {
    let first = input.flatten_from(1)?.narrow(1, 0, 1)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(first.into_iter().map(|value| value as u8).collect())
}
