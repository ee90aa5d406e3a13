//! One frame of a session: decode → detect → crop → mesh → eyes. Chosen frames are also judged, by
//! the function that judges photographs.

use std::sync::Arc;

use tokio::time::Instant;

use super::adapters::ModelAdapters;
use super::face_crops::FaceCrops;
use super::stages::{DetectedImage, Faces};
use super::{Error, Pipeline};
use crate::face::{DetectedFace, Eye, EyeCrop, FaceError, Mesh, brightness, sharpness};
use crate::image::{LumaImage, RgbImage, TurnedSquare};
use crate::liveness::{Detail, FaceMeasures, FrameMeasures, FrameMeta, MeshMeasures};
use crate::scheduler::Ticket;
use crate::telemetry::Stage;
use crate::trust::Secret;

/// A frame as the client sent it.
#[derive(Debug)]
pub struct CameraFrame {
    /// The metadata by which the session admits the frame. The capture time is Unix time.
    pub meta: FrameMeta,
    /// Path of the frame in the request, for error messages.
    pub field: String,
    /// The bytes of the image file.
    pub file: Secret<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct MeasuredFrame {
    /// The input of the liveness adapters.
    pub measures: FrameMeasures,
    /// Crops of the main face for the networks of [`Pipeline::judge`]. Unset if there is no face,
    /// or if the face cannot be cropped for the PAD networks.
    pub crops: Option<FaceCrops>,
}

/// A frame after its main face was located, measured and cropped.
struct LocatedFrame {
    image: RgbImage,
    measured: MeasuredFrame,
    mesh: Option<MeshCrop>,
}

struct MeshCrop {
    square: TurnedSquare,
    row: RgbImage,
}

impl Pipeline {
    /// Measures a frame in the given detail. Without a face there are no measures of the main face.
    /// If the mesh network finds no face, there are none of mesh and eyes.
    ///
    /// # Errors
    /// Invalid image bytes ([`Error::Invalid`], which names the field), the deadline, a fault.
    pub(super) async fn measure_frame(
        &self,
        frame: CameraFrame,
        detail: Detail,
        ticket: &Arc<Ticket>,
    ) -> Result<MeasuredFrame, Error> {
        let _place = self.acquire_image_place(ticket).await?;
        let CameraFrame { meta, field, file } = frame;
        let file_field = format!("{field}.image.data");
        let detected = self.detect_faces(file, meta.orientation, file_field, ticket).await?;
        let LocatedFrame { image, mut measured, mesh } =
            self.locate_face(detected, detail, ticket).await?;
        let Some((face, crop)) = measured.measures.main.as_mut().zip(mesh) else {
            return Ok(measured);
        };
        let Some(mesh) = self.infer_mesh(crop, ticket).await? else { return Ok(measured) };
        face.mesh = Some(MeshMeasures {
            points: mesh.five_points(),
            mouth_open: mesh.mouth_open(),
            yaw: mesh.yaw(),
            pitch: mesh.pitch(),
        });
        if detail >= Detail::Eyes {
            face.eyes = Some(self.measure_eyes(image, mesh, ticket).await?);
        }
        Ok(measured)
    }

    async fn locate_face(
        &self,
        frame: DetectedImage,
        detail: Detail,
        ticket: &Ticket,
    ) -> Result<LocatedFrame, Error> {
        let began = Instant::now();
        let adapters = Arc::clone(&self.adapters);
        let crop = move || crop_frame(frame, detail, &adapters);
        let located = self.compute(crop).await?.map_err(Error::internal);
        self.record_stage_time(Stage::Align, began.elapsed(), ticket);
        located
    }

    async fn infer_mesh(
        &self,
        crop: MeshCrop,
        ticket: &Arc<Ticket>,
    ) -> Result<Option<Mesh>, Error> {
        let answer = self.infer(Stage::Mesh, &self.snapshot.mesh, crop.row, ticket).await?;
        self.adapters.mesh.decode(&answer.output, &crop.square).map_err(Error::internal)
    }

    /// Measures the openness of the right and the left eye.
    async fn measure_eyes(
        &self,
        image: RgbImage,
        mesh: Mesh,
        ticket: &Arc<Ticket>,
    ) -> Result<[f64; 2], Error> {
        let adapters = Arc::clone(&self.adapters);
        let crop = move || crop_eyes(&image, &mesh, &adapters);
        let [right, left] = self.compute(crop).await?.map_err(Error::internal)?;
        let (right, left) = tokio::try_join!(
            self.infer_openness(right, ticket),
            self.infer_openness(left, ticket)
        )?;
        Ok([right, left])
    }

    async fn infer_openness(
        &self,
        (crop, row): (EyeCrop, RgbImage),
        ticket: &Arc<Ticket>,
    ) -> Result<f64, Error> {
        let answer = self.infer(Stage::Eyes, &self.snapshot.iris, row, ticket).await?;
        let lids = self.adapters.iris.lids(&answer.output, &crop).map_err(Error::internal)?;
        Ok(lids.openness())
    }
}

/// Finds the faces, then measures and crops the main one.
fn crop_frame(
    frame: DetectedImage,
    detail: Detail,
    adapters: &ModelAdapters,
) -> Result<LocatedFrame, FaceError> {
    let Faces { all: faces, main } = Faces::find(&frame, &adapters.detector)?;
    let DetectedImage { image, difference_hash, .. } = frame;
    let size = [image.width(), image.height()];
    let measures = FrameMeasures { size, difference_hash, faces, main: None };
    let mut measured = MeasuredFrame { measures, crops: None };
    let Some(main) = main else {
        return Ok(LocatedFrame { image, measured, mesh: None });
    };
    let alignment = adapters.embedder.alignment;
    let aligned = alignment.crop(&image, &alignment.fit(&main.face.points)?);
    measured.measures.main = Some(measure_aligned(&aligned));
    let liveness = adapters.liveness.crops(&main.face, &image);
    measured.crops = liveness.map(|liveness| FaceCrops { aligned: Some(aligned), liveness });
    let mesh = match detail {
        Detail::Face => None,
        Detail::Mesh | Detail::Eyes => Some(crop_mesh(&image, &main.face, adapters)?),
    };
    Ok(LocatedFrame { image, measured, mesh })
}

fn measure_aligned(aligned: &RgbImage) -> FaceMeasures {
    let luma = LumaImage::new(aligned);
    FaceMeasures {
        brightness: brightness(&luma),
        sharpness: sharpness(&luma),
        mesh: None,
        eyes: None,
    }
}

fn crop_mesh(
    image: &RgbImage,
    face: &DetectedFace,
    adapters: &ModelAdapters,
) -> Result<MeshCrop, FaceError> {
    let square = adapters.mesh.square(face)?;
    Ok(MeshCrop { square, row: square.sample(image) })
}

/// Returns the crops of the right and the left eye, with the network's input for each.
fn crop_eyes(
    image: &RgbImage,
    mesh: &Mesh,
    adapters: &ModelAdapters,
) -> Result<[(EyeCrop, RgbImage); 2], FaceError> {
    let crop_eye = |eye| {
        let crop = adapters.iris.crop(eye, mesh)?;
        Ok((crop, crop.sample(image)))
    };
    Ok([crop_eye(Eye::Right)?, crop_eye(Eye::Left)?])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::face::ImageSource;
    use crate::face::decision::Subject;
    use crate::image::{ImageSettings, Orientation, Rotation, decode};
    use crate::pipeline::fixture::shared;
    use crate::pipeline::photo::PhotoTasks;
    use crate::pipeline::{PhotoReport, Photograph};

    #[derive(Deserialize)]
    struct Golden {
        pictures: BTreeMap<String, Picture>,
    }

    #[derive(Deserialize)]
    struct Picture {
        mouth_open: f64,
        yaw: f64,
        pitch: f64,
        right_eye: f64,
        left_eye: f64,
    }

    fn portrait(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/faces/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    fn measure(
        file: Vec<u8>,
        orientation: Orientation,
        detail: Detail,
    ) -> Result<MeasuredFrame, Error> {
        let fixture = shared();
        let (sequence, captured, bytes) = (7, Duration::ZERO, file.len());
        let meta = FrameMeta { sequence, captured, bytes, orientation };
        let frame = CameraFrame { meta, field: "frames[7]".to_owned(), file: Secret::new(file) };
        fixture.runtime.block_on(fixture.pipeline.measure_frame(frame, detail, &fixture.ticket()))
    }

    fn eyes(file: Vec<u8>, orientation: Orientation) -> FrameMeasures {
        measure(file, orientation, Detail::Eyes).unwrap().measures
    }

    /// Encodes a `width × height` PNG. `source` maps each of its pixels to a pixel of `picture`.
    fn stored(
        picture: &RgbImage,
        [width, height]: [usize; 2],
        source: impl Fn(usize, usize) -> (usize, usize),
    ) -> Vec<u8> {
        let pixel =
            |(x, y): (usize, usize)| &picture.pixels()[(y * picture.width() + x) * 3..][..3];
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| pixel(source(x, y)))
            .copied()
            .collect();
        let mut file = Vec::new();
        let sides = [width, height].map(|side| u32::try_from(side).unwrap());
        let mut encoder = png::Encoder::new(&mut file, sides[0], sides[1]);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        file
    }

    /// Returns the pixel of the scene that a camera stores at `(x, y)`, if its image must be turned
    /// clockwise by `degrees` to be upright.
    fn in_scene(degrees: u32, scene: &RgbImage, x: usize, y: usize) -> (usize, usize) {
        let (right, bottom) = (scene.width() - 1, scene.height() - 1);
        match degrees {
            0 => (x, y),
            90 => (right - y, x),
            180 => (right - x, bottom - y),
            _ => (y, bottom - x),
        }
    }

    #[test]
    fn the_portraits_measure_as_with_opencv_and_onnx_runtime() {
        // Made by tests/fixtures/make_frame_goldens.py. The boxes differ by some pixels, because
        // OpenCV shrinks the detector's input with another filter.
        let text = include_str!("../../tests/fixtures/golden_frames.json");
        for (name, expected) in serde_json::from_str::<Golden>(text).unwrap().pictures {
            let main = eyes(portrait(&name), Orientation::UPRIGHT).main.unwrap();
            let (mesh, [right_eye, left_eye]) = (main.mesh.unwrap(), main.eyes.unwrap());
            for (what, found, expected, tolerance) in [
                ("mouth", mesh.mouth_open, expected.mouth_open, 0.03),
                ("yaw", mesh.yaw, expected.yaw, 2.0),
                ("pitch", mesh.pitch, expected.pitch, 2.0),
                ("right eye", right_eye, expected.right_eye, 0.03),
                ("left eye", left_eye, expected.left_eye, 0.03),
            ] {
                let error = (found - expected).abs();
                assert!(error <= tolerance, "{name}: {what} {found}, expected {expected}");
            }
            assert!((0.1..0.9).contains(&main.brightness), "{name}: {}", main.brightness);
            assert!(main.sharpness > 50.0, "{name}: {}", main.sharpness);
        }
    }

    #[test]
    fn however_the_camera_was_held_the_measures_are_those_of_the_scene() {
        // The head is turned by 11 degrees, so that swapping left and right would show.
        let scene = decode(&portrait("person_a_2.jpg"), &ImageSettings::default()).unwrap();
        let (width, height) = (scene.width(), scene.height());
        let upright = stored(&scene, [width, height], |x, y| (x, y));
        let expected = eyes(upright, Orientation::UPRIGHT);
        assert!(expected.main.unwrap().eyes.is_some());
        assert_eq!(expected.size, [width, height]);
        for (degrees, sides) in [
            (0, [width, height]),
            (90, [height, width]),
            (180, [width, height]),
            (270, [height, width]),
        ] {
            let rotation = Rotation::from_degrees(degrees).unwrap();
            let plain = stored(&scene, sides, |x, y| in_scene(degrees, &scene, x, y));
            let found = eyes(plain, Orientation::turned(rotation));
            assert_eq!(found, expected, "{degrees} degrees");
            let mirrored = stored(&scene, sides, |x, y| {
                let (x, y) = in_scene(degrees, &scene, x, y);
                (width - 1 - x, y)
            });
            let found = eyes(mirrored, Orientation::turned_and_mirrored(rotation));
            assert_eq!(found, expected, "{degrees} degrees, mirrored");
        }
    }

    #[test]
    fn a_mirror_that_is_not_undone_exchanges_left_and_right() {
        let scene = decode(&portrait("person_a_2.jpg"), &ImageSettings::default()).unwrap();
        let width = scene.width();
        let mirrored = stored(&scene, [width, scene.height()], |x, y| (width - 1 - x, y));
        let yaw = |measures: FrameMeasures| measures.main.unwrap().mesh.unwrap().yaw;
        assert!(yaw(eyes(mirrored, Orientation::UPRIGHT)) > 5.0);
        assert!(yaw(eyes(portrait("person_a_2.jpg"), Orientation::UPRIGHT)) < -5.0);
    }

    #[test]
    fn no_more_is_measured_than_was_asked_for() {
        let main = |detail| {
            let measured = measure(portrait("person_b_1.jpg"), Orientation::UPRIGHT, detail);
            measured.unwrap().measures.main.unwrap()
        };
        let [face, mesh, eyes] = [Detail::Face, Detail::Mesh, Detail::Eyes].map(main);
        assert_eq!((face.mesh, face.eyes), (None, None));
        assert_eq!((mesh.mesh, mesh.eyes), (eyes.mesh, None));
        assert!(eyes.mesh.is_some() && eyes.eyes.is_some());
    }

    #[test]
    fn a_frame_without_a_face_has_no_main_face_and_nothing_to_judge() {
        let empty = stored(&RgbImage::black(64, 48), [64, 48], |x, y| (x, y));
        let measured = measure(empty, Orientation::UPRIGHT, Detail::Eyes).unwrap();
        assert_eq!(measured.measures.size, [64, 48]);
        assert!(measured.measures.faces.is_empty());
        assert!(measured.measures.main.is_none() && measured.crops.is_none());
    }

    #[test]
    fn bytes_that_are_no_picture_are_an_error_that_names_the_frame() {
        let file = portrait("person_b_1.jpg");
        for broken in [Vec::new(), b"no picture".to_vec(), file[..file.len() / 2].to_vec()] {
            let refused = measure(broken, Orientation::UPRIGHT, Detail::Face);
            let Err(Error::Invalid(violations)) = refused else { panic!("{refused:?}") };
            assert_eq!(violations[0].field, "frames[7].image.data");
        }
    }

    #[test]
    fn a_judged_frame_says_what_a_photograph_says() {
        let fixture = shared();
        let file = portrait("person_b_1.jpg");
        let photo = Photograph {
            subject: Subject::Image,
            source: ImageSource::LivePhoto,
            file: Secret::new(file.clone()),
        };
        let ticket = fixture.ticket();
        let examined = fixture.pipeline.examine(photo, PhotoTasks::ALL, &ticket);
        let PhotoReport { embedding, embedding_norm, pad_score, .. } =
            fixture.runtime.block_on(examined).unwrap();
        let crops = measure(file, Orientation::UPRIGHT, Detail::Face).unwrap().crops.unwrap();
        let judged = fixture.pipeline.judge(crops, &ticket);
        let judged = fixture.runtime.block_on(judged).unwrap().frame_judgement().unwrap();
        let cosine = crate::face::cosine(&judged.embedding, &embedding.unwrap()).unwrap();
        assert!(cosine > 0.999_99, "{cosine}");
        assert!((judged.norm - embedding_norm.unwrap()).abs() < 1e-3);
        assert!((judged.pad_score - pad_score.unwrap()).abs() < 1e-4 && judged.pad_score > 0.9);
    }
}
