//! Parses the requests of `FaceService`. A parsed request needs no further checks; all violated
//! fields are reported at once.

use super::fields::{Caller, FieldReader, photograph};
use crate::face::decision::Subject;
use crate::image::ImageSettings;
use crate::pipeline::{Error, Photograph, Side};
use crate::proto::v1;

/// A valid `Verify`.
#[derive(Debug)]
pub struct ParsedVerify {
    pub caller: Caller,
    /// The portrait of the document.
    pub portrait: Photograph,
    /// 1 or more live photographs.
    pub live: Vec<Photograph>,
    /// The requested false-match rate.
    pub policy_fmr: Option<f64>,
}

/// A valid `Compare`.
#[derive(Debug)]
pub struct ParsedCompare {
    pub caller: Caller,
    pub a: Side,
    pub b: Side,
}

/// A valid request about one photograph.
#[derive(Debug)]
pub struct ParsedPhoto {
    pub caller: Caller,
    pub photo: Photograph,
}

/// Parses `Verify`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_verify(
    request: v1::VerifyRequest,
    limits: &ImageSettings,
) -> Result<ParsedVerify, Error> {
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(request.context);
    let source = fields.portrait_source(request.portrait_source);
    let portrait = fields.image("portrait", request.portrait);
    let live = fields.live_photos(request.live_photos);
    fields.check_policy_fmr(request.policy_fmr);
    let policy_fmr = request.policy_fmr;
    fields.finish(|| {
        let portrait = photograph(Subject::Portrait, source?, portrait?);
        Some(ParsedVerify { caller: caller?, portrait, live: live?, policy_fmr })
    })
}

/// Parses `Compare`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_compare(
    request: v1::CompareRequest,
    limits: &ImageSettings,
) -> Result<ParsedCompare, Error> {
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(request.context);
    let a = fields.side("a", Subject::SideA, request.a);
    let b = fields.side("b", Subject::SideB, request.b);
    fields.finish(|| Some(ParsedCompare { caller: caller?, a: a?, b: b? }))
}

/// Parses `Embed` and `Detect`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_photo(
    context: Option<v1::RequestContext>,
    image: Option<v1::Image>,
    source: i32,
    limits: &ImageSettings,
) -> Result<ParsedPhoto, Error> {
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(context);
    let source = fields.source("source", source);
    let image = fields.image("image", image);
    fields.finish(|| {
        let photo = photograph(Subject::Image, source?, image?);
        Some(ParsedPhoto { caller: caller?, photo })
    })
}

/// Parses `CheckLiveness`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_check_liveness(
    request: v1::CheckLivenessRequest,
    limits: &ImageSettings,
) -> Result<ParsedPhoto, Error> {
    let source = v1::ImageSource::LivePhoto.into();
    parse_photo(request.context, request.image, source, limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::ImageSource;

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
        let parsed = parse_verify(request(), &ImageSettings::default()).unwrap();
        assert_eq!(&*parsed.caller.store, "shop-1");
        assert_eq!(parsed.live[0].subject, Subject::LivePhoto(0));
        assert_eq!(parsed.portrait.source, ImageSource::IdFile);
    }

    #[test]
    fn every_violated_field_of_a_verify_is_named_at_once() {
        let error =
            parse_verify(v1::VerifyRequest::default(), &ImageSettings::default()).unwrap_err();
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
            let error = parse_verify(request, &limits).unwrap_err();
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
            let error = parse_compare(request, &ImageSettings::default()).unwrap_err();
            assert_eq!(violated(error), [field]);
        }
    }
}
