//! Reads the fields of requests and collects their violations.

use std::sync::Arc;

use crate::face::decision::Subject;
use crate::face::{Embedding, ImageSource, SpaceId};
use crate::image::ImageSettings;
use crate::pipeline::{Error, Photograph, Side, Violation};
use crate::proto::v1;
use crate::trust::Secret;

/// Longest identifier a caller may send, in characters.
const ID_CHARS_MAX: usize = 128;

/// Largest embedding a caller may send, in components.
const EMBEDDING_VALUES_MAX: usize = 4096;

/// Longest name of an embedding space a caller may send, in bytes.
const SPACE_BYTES_MAX: usize = 256;

/// What the context of a request says about its caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identifier that the caller gave the request, or empty. Echoed in the answer.
    pub request_id: String,
    /// The shop.
    pub store: Arc<str>,
    /// Reference to the customer's consent.
    pub consent: String,
    /// The embedding model that the caller requires.
    pub model: Option<String>,
}

/// Reads the fields of one request and collects the violations.
pub(super) struct FieldReader<'a> {
    limits: &'a ImageSettings,
    violations: Vec<Violation>,
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(limits: &'a ImageSettings) -> Self {
        Self { limits, violations: Vec::new() }
    }

    pub(super) fn add_violation(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        self.violations.push(Violation::new(field, rule));
    }

    /// Returns the result of `build`, or the error of all violations, if there are any. `build` may
    /// return `None` only if a violation was added.
    pub(super) fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Error> {
        if !self.violations.is_empty() {
            return Err(Error::Invalid(self.violations));
        }
        build().ok_or_else(|| Error::invalid("message", "is incomplete"))
    }

    pub(super) fn caller(&mut self, context: Option<v1::RequestContext>) -> Option<Caller> {
        let Some(context) = context else {
            self.add_violation("context", "is required");
            return None;
        };
        self.check_id("context.store_id", &context.store_id);
        self.check_id("context.consent_reference", &context.consent_reference);
        if !context.request_id.is_empty() {
            self.check_id("context.request_id", &context.request_id);
        }
        if !context.model.is_empty() {
            self.check_id("context.model", &context.model);
        }
        Some(Caller {
            request_id: context.request_id,
            store: Arc::from(context.store_id),
            consent: context.consent_reference,
            model: (!context.model.is_empty()).then_some(context.model),
        })
    }

    pub(super) fn check_id(&mut self, field: &str, id: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        if id.is_empty() {
            self.add_violation(field, "is required");
        } else if id.len() > ID_CHARS_MAX || !id.chars().all(plain) {
            self.add_violation(field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : / -");
        }
    }

    pub(super) fn source(&mut self, field: &str, source: i32) -> Option<ImageSource> {
        match v1::ImageSource::try_from(source) {
            Ok(v1::ImageSource::LivePhoto) => Some(ImageSource::LivePhoto),
            Ok(v1::ImageSource::IdFile) => Some(ImageSource::IdFile),
            Ok(v1::ImageSource::IdChip) => Some(ImageSource::IdChip),
            Ok(v1::ImageSource::Unspecified) | Err(_) => {
                self.add_violation(field, "must be LIVE_PHOTO, ID_FILE or ID_CHIP");
                None
            }
        }
    }

    /// Reads the source of a document's portrait. A live photograph is a violation.
    pub(super) fn portrait_source(&mut self, source: i32) -> Option<ImageSource> {
        let source = self.source("portrait_source", source);
        if source == Some(ImageSource::LivePhoto) {
            self.add_violation("portrait_source", "must be ID_FILE or ID_CHIP");
        }
        source
    }

    pub(super) fn check_policy_fmr(&mut self, fmr: Option<f64>) {
        if let Some(fmr) = fmr
            && !(fmr > 0.0 && fmr < 1.0)
        {
            self.add_violation("policy_fmr", "must be between 0 and 1");
        }
    }

    pub(super) fn image(
        &mut self,
        field: &str,
        image: Option<v1::Image>,
    ) -> Option<Secret<Vec<u8>>> {
        let file = Secret::new(image.map(|image| image.data).unwrap_or_default());
        let bytes = file.expose().len();
        if bytes == 0 {
            self.add_violation(format!("{field}.data"), "is required: a JPEG or PNG file");
            return None;
        }
        if bytes > self.limits.bytes_max {
            let rule = format!("is {bytes} bytes, more than {}", self.limits.bytes_max);
            self.add_violation(format!("{field}.data"), rule);
            return None;
        }
        Some(file)
    }

    pub(super) fn live_photos(&mut self, images: Vec<v1::Image>) -> Option<Vec<Photograph>> {
        let most = self.limits.live_photos_max;
        if images.is_empty() || images.len() > most {
            let rule = format!("must be 1 to {most} photographs, but are {}", images.len());
            self.add_violation("live_photos", rule);
            return None;
        }
        let mut photos = Vec::with_capacity(images.len());
        for (index, image) in images.into_iter().enumerate() {
            let file = self.image(&format!("live_photos[{index}]"), Some(image))?;
            photos.push(photograph(Subject::LivePhoto(index), ImageSource::LivePhoto, file));
        }
        Some(photos)
    }

    pub(super) fn side(
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
                self.add_violation(field, "is required: an image or an embedding");
                None
            }
        }
    }

    pub(super) fn embedding(&mut self, field: &str, embedding: v1::Embedding) -> Option<Embedding> {
        let v1::Embedding { values, space } = embedding;
        let values = Secret::new(values);
        if space.is_empty() || space.len() > SPACE_BYTES_MAX {
            self.add_violation(format!("{field}.space"), "must be 1 to 256 bytes");
            return None;
        }
        if values.expose().is_empty() || values.expose().len() > EMBEDDING_VALUES_MAX {
            self.add_violation(format!("{field}.values"), "must be 1 to 4096 numbers");
            return None;
        }
        match Embedding::from_unit(values.expose(), SpaceId::new(space)) {
            Ok(embedding) => Some(embedding),
            Err(error) => {
                self.add_violation(format!("{field}.values"), error.to_string());
                None
            }
        }
    }
}

pub(super) fn photograph(
    subject: Subject,
    source: ImageSource,
    file: Secret<Vec<u8>>,
) -> Photograph {
    Photograph { subject, source, file }
}
