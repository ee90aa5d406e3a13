//! Parses requests: afterwards nothing is left to check. All violated fields are reported at once.

use std::sync::Arc;

use crate::config::ImageSettings;
use crate::face::verdict::Subject;
use crate::face::{Embedding, ImageSource, SpaceId};
use crate::pipeline::{Error, Photograph, Side, Violation};
use crate::proto::v1;
use crate::trust::Secret;

/// Longest identifier a caller may send, in characters.
const ID_CHARS_MAX: usize = 128;

/// Largest embedding a caller may send.
const EMBEDDING_VALUES_MAX: usize = 4096;

/// Longest name of an embedding space a caller may send, in bytes.
const SPACE_BYTES_MAX: usize = 256;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Echoed in the answer.
    pub request_id: String,
    /// The shop.
    pub store: Arc<str>,
    /// The embedding model the caller insists on.
    pub model: Option<String>,
}

/// A `Verify` that keeps every rule.
#[derive(Debug)]
pub struct VerifyRequest {
    /// Who asks.
    pub caller: Caller,
    /// The portrait of the document.
    pub portrait: Photograph,
    /// 1 or more live photographs.
    pub live: Vec<Photograph>,
    /// The false-match rate asked for.
    pub policy_fmr: Option<f64>,
}

/// A `Compare` that keeps every rule.
#[derive(Debug)]
pub struct CompareRequest {
    /// Who asks.
    pub caller: Caller,
    /// The first face.
    pub a: Side,
    /// The second face.
    pub b: Side,
}

/// A request about one photograph that keeps every rule.
#[derive(Debug)]
pub struct PhotoRequest {
    /// Who asks.
    pub caller: Caller,
    /// The photograph.
    pub photo: Photograph,
}

/// Parses `Verify`.
///
/// # Errors
/// Every violated field.
pub fn verify(request: v1::VerifyRequest, limits: &ImageSettings) -> Result<VerifyRequest, Error> {
    let mut fields = Fields::new(limits);
    let caller = fields.caller(request.context);
    let source = fields.source("portrait_source", request.portrait_source);
    if source == Some(ImageSource::LivePhoto) {
        fields.violated("portrait_source", "must be ID_FILE or ID_CHIP");
    }
    let portrait = fields.image("portrait", request.portrait);
    let live = fields.live_photos(request.live_photos);
    if let Some(fmr) = request.policy_fmr
        && !(fmr > 0.0 && fmr < 1.0)
    {
        fields.violated("policy_fmr", "must be between 0 and 1");
    }
    let policy_fmr = request.policy_fmr;
    fields.finish(|| {
        let portrait = photograph(Subject::Portrait, source?, portrait?);
        Some(VerifyRequest { caller: caller?, portrait, live: live?, policy_fmr })
    })
}

/// Parses `Compare`.
///
/// # Errors
/// Every violated field.
pub fn compare(
    request: v1::CompareRequest,
    limits: &ImageSettings,
) -> Result<CompareRequest, Error> {
    let mut fields = Fields::new(limits);
    let caller = fields.caller(request.context);
    let a = fields.side("a", Subject::SideA, request.a);
    let b = fields.side("b", Subject::SideB, request.b);
    fields.finish(|| Some(CompareRequest { caller: caller?, a: a?, b: b? }))
}

/// Parses `Embed` and `Detect`.
///
/// # Errors
/// Every violated field.
pub fn photo(
    context: Option<v1::RequestContext>,
    image: Option<v1::Image>,
    source: i32,
    limits: &ImageSettings,
) -> Result<PhotoRequest, Error> {
    let mut fields = Fields::new(limits);
    let caller = fields.caller(context);
    let source = fields.source("source", source);
    let image = fields.image("image", image);
    fields.finish(|| {
        let photo = photograph(Subject::Image, source?, image?);
        Some(PhotoRequest { caller: caller?, photo })
    })
}

/// Parses `CheckLiveness`.
///
/// # Errors
/// Every violated field.
pub fn liveness(
    request: v1::CheckLivenessRequest,
    limits: &ImageSettings,
) -> Result<PhotoRequest, Error> {
    let source = v1::ImageSource::LivePhoto.into();
    photo(request.context, request.image, source, limits)
}

fn photograph(subject: Subject, source: ImageSource, file: Secret<Vec<u8>>) -> Photograph {
    Photograph { subject, source, file }
}

/// Reads fields and gathers what is wrong with them.
struct Fields<'a> {
    limits: &'a ImageSettings,
    violations: Vec<Violation>,
}

impl<'a> Fields<'a> {
    fn new(limits: &'a ImageSettings) -> Self {
        Self { limits, violations: Vec::new() }
    }

    fn violated(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        self.violations.push(Violation::new(field, rule));
    }

    /// `build` gives `None` only for a field that was reported.
    fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Error> {
        if !self.violations.is_empty() {
            return Err(Error::Invalid(self.violations));
        }
        build().ok_or_else(|| Error::invalid("message", "is incomplete"))
    }

    fn caller(&mut self, context: Option<v1::RequestContext>) -> Option<Caller> {
        let Some(context) = context else {
            self.violated("context", "is required");
            return None;
        };
        self.id("context.store_id", &context.store_id);
        self.id("context.consent_reference", &context.consent_reference);
        if !context.request_id.is_empty() {
            self.id("context.request_id", &context.request_id);
        }
        if !context.model.is_empty() {
            self.id("context.model", &context.model);
        }
        Some(Caller {
            request_id: context.request_id,
            store: Arc::from(context.store_id),
            model: (!context.model.is_empty()).then_some(context.model),
        })
    }

    fn id(&mut self, field: &str, id: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        if id.is_empty() {
            self.violated(field, "is required");
        } else if id.len() > ID_CHARS_MAX || !id.chars().all(plain) {
            self.violated(field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : / -");
        }
    }

    fn source(&mut self, field: &str, source: i32) -> Option<ImageSource> {
        match v1::ImageSource::try_from(source) {
            Ok(v1::ImageSource::LivePhoto) => Some(ImageSource::LivePhoto),
            Ok(v1::ImageSource::IdFile) => Some(ImageSource::IdFile),
            Ok(v1::ImageSource::IdChip) => Some(ImageSource::IdChip),
            Ok(v1::ImageSource::Unspecified) | Err(_) => {
                self.violated(field, "must be LIVE_PHOTO, ID_FILE or ID_CHIP");
                None
            }
        }
    }

    fn image(&mut self, field: &str, image: Option<v1::Image>) -> Option<Secret<Vec<u8>>> {
        let file = Secret::new(image.map(|image| image.data).unwrap_or_default());
        let bytes = file.expose().len();
        if bytes == 0 {
            self.violated(format!("{field}.data"), "is required: a JPEG or PNG file");
            return None;
        }
        if bytes > self.limits.bytes_max {
            let rule = format!("is {bytes} bytes, more than {}", self.limits.bytes_max);
            self.violated(format!("{field}.data"), rule);
            return None;
        }
        Some(file)
    }

    fn live_photos(&mut self, images: Vec<v1::Image>) -> Option<Vec<Photograph>> {
        let most = self.limits.live_photos_max;
        if images.is_empty() || images.len() > most {
            let rule = format!("must be 1 to {most} photographs, but are {}", images.len());
            self.violated("live_photos", rule);
            return None;
        }
        let mut photos = Vec::with_capacity(images.len());
        for (index, image) in images.into_iter().enumerate() {
            let file = self.image(&format!("live_photos[{index}]"), Some(image))?;
            photos.push(photograph(Subject::LivePhoto(index), ImageSource::LivePhoto, file));
        }
        Some(photos)
    }

    fn side(
        &mut self,
        field: &str,
        subject: Subject,
        side: Option<v1::CompareSide>,
    ) -> Option<Side> {
        let v1::CompareSide { source, side } = side.unwrap_or_default();
        match side {
            Some(v1::compare_side::Side::Image(image)) => {
                let source = self.source(&format!("{field}.source"), source);
                let file = self.image(&format!("{field}.image"), Some(image));
                Some(Side::Photo(photograph(subject, source?, file?)))
            }
            Some(v1::compare_side::Side::Embedding(embedding)) => {
                self.embedding(&format!("{field}.embedding"), embedding).map(Side::Embedding)
            }
            None => {
                self.violated(field, "is required: an image or an embedding");
                None
            }
        }
    }

    fn embedding(&mut self, field: &str, embedding: v1::Embedding) -> Option<Embedding> {
        let v1::Embedding { values, space } = embedding;
        let values = Secret::new(values);
        if space.is_empty() || space.len() > SPACE_BYTES_MAX {
            self.violated(format!("{field}.space"), "must be 1 to 256 bytes");
            return None;
        }
        if values.expose().is_empty() || values.expose().len() > EMBEDDING_VALUES_MAX {
            self.violated(format!("{field}.values"), "must be 1 to 4096 numbers");
            return None;
        }
        match Embedding::from_unit(values.expose(), SpaceId::new(space)) {
            Ok(embedding) => Some(embedding),
            Err(error) => {
                self.violated(format!("{field}.values"), error.to_string());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> v1::RequestContext {
        v1::RequestContext {
            request_id: "r-1".into(),
            store_id: "shop-1".into(),
            consent_reference: "consent/1".into(),
            model: String::new(),
        }
    }

    fn image() -> v1::Image {
        v1::Image { data: vec![1, 2, 3] }
    }

    fn request() -> v1::VerifyRequest {
        v1::VerifyRequest {
            context: Some(context()),
            portrait: Some(image()),
            portrait_source: v1::ImageSource::IdFile.into(),
            live_photos: vec![image()],
            policy_fmr: None,
        }
    }

    fn violated(error: Error) -> Vec<String> {
        match error {
            Error::Invalid(violations) => violations.into_iter().map(|v| v.field).collect(),
            other => panic!("not a violation: {other}"),
        }
    }

    #[test]
    fn a_whole_request_is_parsed() {
        let parsed = verify(request(), &ImageSettings::default()).unwrap();
        assert_eq!(&*parsed.caller.store, "shop-1");
        assert_eq!(parsed.live[0].subject, Subject::LivePhoto(0));
        assert_eq!(parsed.portrait.source, ImageSource::IdFile);
    }

    #[test]
    fn every_violated_field_of_a_verify_is_named_at_once() {
        let error = verify(v1::VerifyRequest::default(), &ImageSettings::default()).unwrap_err();
        let want = ["context", "portrait_source", "portrait.data", "live_photos"];
        assert_eq!(violated(error), want);
    }

    #[test]
    fn each_rule_of_a_verify_names_its_field() {
        let limits = ImageSettings { bytes_max: 4, live_photos_max: 2, ..Default::default() };
        type Break = fn(&mut v1::VerifyRequest);
        let cases: [(&str, Break); 10] = [
            ("context.store_id", |r| r.context.as_mut().unwrap().store_id.clear()),
            ("context.store_id", |r| r.context.as_mut().unwrap().store_id = "a b".into()),
            ("context.request_id", |r| r.context.as_mut().unwrap().request_id = "x".repeat(129)),
            ("context.consent_reference", |r| {
                r.context.as_mut().unwrap().consent_reference.clear();
            }),
            ("context.model", |r| r.context.as_mut().unwrap().model = "\n".into()),
            ("portrait_source", |r| r.portrait_source = v1::ImageSource::LivePhoto.into()),
            ("portrait.data", |r| r.portrait.as_mut().unwrap().data = vec![0; 5]),
            ("live_photos", |r| r.live_photos = vec![image(), image(), image()]),
            ("live_photos[1].data", |r| r.live_photos = vec![image(), v1::Image::default()]),
            ("policy_fmr", |r| r.policy_fmr = Some(f64::NAN)),
        ];
        for (field, break_it) in cases {
            let mut request = request();
            break_it(&mut request);
            let error = verify(request, &limits).unwrap_err();
            assert_eq!(violated(error), [field]);
        }
    }

    #[test]
    fn a_side_of_a_comparison_is_an_image_or_a_unit_embedding() {
        let side = |values: Vec<f32>, space: &str| v1::CompareSide {
            source: 0,
            side: Some(v1::compare_side::Side::Embedding(v1::Embedding {
                values,
                space: space.into(),
            })),
        };
        let cases = [
            ("a", v1::CompareSide::default()),
            ("a.embedding.space", side(vec![1.0], "")),
            ("a.embedding.values", side(vec![], "s")),
            ("a.embedding.values", side(vec![f32::NAN], "s")),
            ("a.embedding.values", side(vec![0.0, 0.0], "s")),
            ("a.embedding.values", side(vec![0.0; 4097], "s")),
            (
                "a.source",
                v1::CompareSide { source: 9, side: Some(v1::compare_side::Side::Image(image())) },
            ),
        ];
        for (field, a) in cases {
            let request = v1::CompareRequest {
                context: Some(context()),
                a: Some(a),
                b: Some(side(vec![0.6, 0.8], "s")),
            };
            let error = compare(request, &ImageSettings::default()).unwrap_err();
            assert_eq!(violated(error), [field]);
        }
    }
}
