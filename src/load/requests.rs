//! Requests that are encoded before the run, so that a call costs the generator next to nothing.
//!
//! In the encoding of protobuf, the concatenation of two messages of one type is their merge. A
//! request is therefore put together from encoded messages with one field each: the context of the
//! shop, a picture, another picture.

use bytes::Bytes;
use prost::Message;
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use super::calls::{CallKind, Mix};
use super::pictures::Pictures;
use crate::proto::v1;

/// The shops that a run speaks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Stores {
    /// Number of shops, at least 1.
    pub count: u32,
    /// Exponent of Zipf's law: the shop of rank k sends in proportion to 1 / k^skew. With 0 all
    /// shops send alike.
    pub skew: f64,
    /// Beginning of every shop's id; the rank follows.
    pub prefix: String,
}

/// One encoded request, in parts.
#[derive(Debug, Clone, Default)]
pub(super) struct EncodedRequest {
    /// Encoded context of the shop, and up to two pictures.
    pub(super) parts: [Bytes; 3],
}

impl EncodedRequest {
    /// Returns the length of the encoded message.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// What one arrival sends.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) kind: CallKind,
    /// Rank of the shop, from 1.
    pub(super) store: u32,
    /// The message of a unary call; empty for a session.
    pub(super) request: EncodedRequest,
}

/// Draws what the next arrival sends.
#[derive(Debug)]
pub(super) struct OrderBook {
    mix: Mix,
    random: SmallRng,
    ranks: Zipf<f64>,
    /// The encoded context of each shop, in the order of ranks. All requests have it as field 1.
    contexts: Vec<Bytes>,
    /// The encoded pictures of each kind in the mix.
    pictures: Vec<EncodedPictures>,
}

/// The pictures of one kind of call, encoded as each of its fields.
#[derive(Debug)]
struct EncodedPictures {
    kind: CallKind,
    first: Vec<Bytes>,
    /// Empty if the request has one picture only.
    second: Vec<Bytes>,
}

/// Consent reference of all requests. No person stands behind them.
pub(super) const CONSENT: &str = "menshen-load";

impl Stores {
    /// Returns the id of the shop with this rank.
    pub(super) fn id(&self, rank: u32) -> String {
        format!("{}{rank}", self.prefix)
    }
}

/// Returns the context of a shop's requests.
pub(super) fn context(store_id: String) -> v1::RequestContext {
    v1::RequestContext {
        request_id: String::new(),
        store_id,
        consent_reference: CONSENT.to_owned(),
        model: String::new(),
    }
}

impl OrderBook {
    pub(super) fn new(mix: Mix, stores: &Stores, pictures: &Pictures, random: SmallRng) -> Self {
        let encode_context = |rank| {
            let context = Some(context(stores.id(rank)));
            encode(&v1::EmbedRequest { context, ..Default::default() })
        };
        let ranks = Zipf::new(f64::from(stores.count), stores.skew);
        Self {
            contexts: (1..=stores.count).map(encode_context).collect(),
            ranks: ranks.expect("the plan holds at least one shop and a skew of at least 0"),
            pictures: mix.kinds().map(|kind| EncodedPictures::new(kind, &pictures.0)).collect(),
            mix,
            random,
        }
    }

    /// Draws the next order.
    pub(super) fn draw(&mut self) -> Order {
        let kind = self.mix.draw(&mut self.random);
        // The last rank may be exceeded by rounding.
        let store = (self.random.sample(self.ranks) as u32).clamp(1, self.contexts.len() as u32);
        let index = self.pictures.iter().position(|of| of.kind == kind);
        let pictures = &self.pictures[index.expect("each kind of the mix has its pictures")];
        let request = match kind {
            CallKind::Health | CallKind::Session => EncodedRequest::default(),
            _ => {
                let context = self.contexts[store as usize - 1].clone();
                let [first, second] = pictures.draw(&mut self.random);
                EncodedRequest { parts: [context, first, second] }
            }
        };
        Order { kind, store, request }
    }
}

impl EncodedPictures {
    fn new(kind: CallKind, pictures: &[Bytes]) -> Self {
        let all = |encode: fn(v1::Image) -> Bytes| {
            pictures.iter().map(|data| encode(v1::Image { data: data.to_vec() })).collect()
        };
        let (first, second) = match kind {
            CallKind::Verify => (all(verify_portrait), all(verify_live_photo)),
            CallKind::Compare => (all(compare_a), all(compare_b)),
            CallKind::Embed => (all(embed_image), Vec::new()),
            CallKind::Detect => (all(detect_image), Vec::new()),
            CallKind::CheckLiveness => (all(check_liveness_image), Vec::new()),
            CallKind::Health | CallKind::Session => (Vec::new(), Vec::new()),
        };
        Self { kind, first, second }
    }

    /// Draws a picture for each field. The two differ, unless there is only one.
    fn draw(&self, random: &mut SmallRng) -> [Bytes; 2] {
        let count = self.first.len();
        let first = random.random_range(0..count);
        if self.second.is_empty() {
            return [self.first[first].clone(), Bytes::new()];
        }
        let step = if count > 1 { random.random_range(1..count) } else { 0 };
        [self.first[first].clone(), self.second[(first + step) % count].clone()]
    }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

const ID_FILE: i32 = v1::ImageSource::IdFile as i32;
const LIVE_PHOTO: i32 = v1::ImageSource::LivePhoto as i32;

fn verify_portrait(image: v1::Image) -> Bytes {
    encode(&v1::VerifyRequest {
        portrait: Some(image),
        portrait_source: ID_FILE,
        ..Default::default()
    })
}

fn verify_live_photo(image: v1::Image) -> Bytes {
    encode(&v1::VerifyRequest { live_photos: vec![image], ..Default::default() })
}

fn compare_side(image: v1::Image, source: i32) -> Option<v1::CompareSide> {
    Some(v1::CompareSide { side: Some(v1::compare_side::Side::Image(image)), source })
}

fn compare_a(image: v1::Image) -> Bytes {
    encode(&v1::CompareRequest { a: compare_side(image, ID_FILE), ..Default::default() })
}

fn compare_b(image: v1::Image) -> Bytes {
    encode(&v1::CompareRequest { b: compare_side(image, LIVE_PHOTO), ..Default::default() })
}

fn embed_image(image: v1::Image) -> Bytes {
    let (image, source) = (Some(image), LIVE_PHOTO);
    encode(&v1::EmbedRequest { image, source, ..Default::default() })
}

fn detect_image(image: v1::Image) -> Bytes {
    let (image, source) = (Some(image), LIVE_PHOTO);
    encode(&v1::DetectRequest { image, source, ..Default::default() })
}

fn check_liveness_image(image: v1::Image) -> Bytes {
    encode(&v1::CheckLivenessRequest { image: Some(image), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn book(mix: &str, count: u32, skew: f64) -> OrderBook {
        let stores = Stores { count, skew, prefix: "shop-".to_owned() };
        let pictures = Pictures(["one", "two", "three"].map(Bytes::from).to_vec());
        OrderBook::new(mix.parse().unwrap(), &stores, &pictures, SmallRng::seed_from_u64(3))
    }

    fn decode<M: Message + Default>(order: &Order) -> M {
        M::decode(&*order.request.parts.concat()).unwrap()
    }

    #[test]
    fn the_parts_of_a_request_merge_to_the_whole_request() {
        let order = book("verify", 1, 0.0).draw();
        let request: v1::VerifyRequest = decode(&order);
        assert_eq!(request.context, Some(context("shop-1".to_owned())));
        assert_eq!(request.portrait_source(), v1::ImageSource::IdFile);
        assert_eq!(request.live_photos.len(), 1);
        assert_ne!(request.portrait.as_ref(), request.live_photos.first());

        let compare: v1::CompareRequest = decode(&book("compare", 1, 0.0).draw());
        assert!(compare.context.is_some() && compare.a.is_some() && compare.b.is_some());
        let embed: v1::EmbedRequest = decode(&book("embed", 1, 0.0).draw());
        assert!(embed.context.is_some() && embed.image.is_some());
        assert_eq!(embed.source(), v1::ImageSource::LivePhoto);
        let detect: v1::DetectRequest = decode(&book("detect", 1, 0.0).draw());
        assert!(detect.context.is_some() && detect.image.is_some());
        let liveness: v1::CheckLivenessRequest = decode(&book("check-liveness", 1, 0.0).draw());
        assert!(liveness.context.is_some() && liveness.image.is_some());
        assert_eq!(book("health", 1, 0.0).draw().request.bytes(), 0);
    }

    /// With an exponent of 1 and three shops, the shares are 6/11, 3/11 and 2/11.
    #[test]
    fn shops_send_by_zipfs_law() {
        for (skew, shares) in [(1.0, [6.0, 3.0, 2.0]), (0.0, [11.0 / 3.0; 3])] {
            let mut book = book("detect", 3, skew);
            let mut counts = [0.0_f64; 3];
            for _ in 0..11_000 {
                counts[book.draw().store as usize - 1] += 1.0 / 1_000.0;
            }
            for (count, share) in counts.iter().zip(shares) {
                assert!((count - share).abs() < 0.25, "{skew}: {counts:?}");
            }
        }
    }
}
