//! Benchmarks of each stage of a request: `cargo bench`.
//!
//! Networks run on the executor that `serve` uses, over grey rows. The time of a batch of 8 against
//! 8 batches of 1 shows what batching gains on this machine.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use menshen::engine::Network;
use menshen::engine::cpu::{KernelChoice, ThreadTeam};
use menshen::face::{Alignment, Point};
use menshen::image::{
    DifferenceHash, ImageSettings, LumaImage, RgbImage, crop_resize, decode, letterbox,
};
use menshen::model::{InputContract, Package};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const PICTURES: [&str; 3] = ["person_a_1.jpg", "person_b_1.jpg", "astronaut.png"];

fn read_fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/faces/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("the fixture is in the repository")
}

fn decode_fixture(name: &str) -> RgbImage {
    decode(&read_fixture(name), &ImageSettings::default()).expect("the fixture is a picture")
}

#[divan::bench(args = PICTURES)]
fn decode_file(bencher: Bencher<'_, '_>, name: &str) {
    let file = read_fixture(name);
    bencher.bench(|| decode(&file, &ImageSettings::default()));
}

#[divan::bench(args = PICTURES)]
fn letterbox_640(bencher: Bencher<'_, '_>, name: &str) {
    let picture = decode_fixture(name);
    bencher.bench(|| letterbox(&picture, 640));
}

#[divan::bench(args = PICTURES)]
fn difference_hash(bencher: Bencher<'_, '_>, name: &str) {
    let picture = decode_fixture(name);
    bencher.bench(|| DifferenceHash::new(&LumaImage::new(&picture)));
}

#[divan::bench]
fn align_112(bencher: Bencher<'_, '_>) {
    let picture = decode_fixture("person_b_1.jpg");
    let points = [(288.2, 310.9), (425.3, 299.5), (369.1, 378.4), (310.0, 435.9), (435.1, 424.3)]
        .map(|(x, y)| Point { x, y });
    bencher.bench(|| {
        let fit = Alignment::Arcface112.fit(&points).expect("the points are a face");
        Alignment::Arcface112.crop(&picture, &fit)
    });
}

#[divan::bench]
fn liveness_crop_128(bencher: Bencher<'_, '_>) {
    let picture = decode_fixture("person_b_1.jpg");
    let crop = menshen::image::PixelRect { x: 0, y: 0, width: 600, height: 800 };
    bencher.bench(|| crop_resize(&picture, crop, 128, 128));
}

#[divan::bench]
fn fill_640(bencher: Bencher<'_, '_>) {
    let package = package("yunet/2023mar");
    let scaled = letterbox(&decode_fixture("person_b_1.jpg"), 640).image;
    let mut row = vec![0.0; package.manifest.input.row_len()];
    bencher.bench_local(|| package.manifest.input.fill(&scaled, &mut row));
}

const MODELS: [&str; 5] =
    ["yunet/2023mar", "sface/2021dec", "fr_liveness/0.0.1", "facemesh/3.3.6", "iris/3.3.6"];

fn package(id: &str) -> Package {
    let dir = format!("{}/models/{id}", env!("CARGO_MANIFEST_DIR"));
    Package::open(dir.as_ref()).expect("the model is in the repository")
}

/// Runs `BATCH` rows of one network; the counted items are rows.
#[divan::bench(args = MODELS, consts = [1, 8])]
fn network<const BATCH: usize>(bencher: Bencher<'_, '_>, id: &str) {
    let package = package(id);
    let graph = package.graph().expect("the network is imported");
    let cores = std::thread::available_parallelism().expect("the system counts its cores");
    let team = Arc::new(ThreadTeam::new(cores.get()).expect("the threads start"));
    let precision = package.manifest.precision;
    let network = Network::cpu(&graph, KernelChoice::Auto, precision, team);
    let network = network.expect("the network loads");
    let input = rows(&package.manifest.input, BATCH);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| network.run(&input));
}

/// Returns `count` grey rows: the time of a network does not depend on the values.
fn rows(contract: &InputContract, count: usize) -> Tensor {
    let grey = vec![128; contract.width * contract.height * 3];
    let image = RgbImage::new(contract.width, contract.height, grey).expect("sides are not 0");
    let mut row = vec![0.0; contract.row_len()];
    contract.fill(&image, &mut row).expect("the image has the contract's size");
    let shape = [&[1], contract.row_shape().as_slice()].concat();
    let row = Tensor::from_vec(row, shape, &Device::Cpu).expect("the row fills its shape");
    Tensor::cat(&vec![row; count], 0).expect("rows have one shape")
}
