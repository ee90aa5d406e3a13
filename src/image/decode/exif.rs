//! EXIF orientation, the only EXIF field that is used.
//!
//! Source: TIFF 6.0 (header, image file directory) and EXIF 2.32 section 4.6.4 (tag 0x0112).

use crate::image::orientation::Orientation;

const TAG_ORIENTATION: u16 = 0x0112;
const TYPE_SHORT: u16 = 3;
const ENTRY_BYTES: usize = 12;

/// Returns the orientation in a TIFF structure. An absent or malformed orientation counts as
/// upright, as in image viewers.
///
/// Reads only the first directory and follows no other offset.
pub(super) fn orientation(tiff: &[u8]) -> Orientation {
    read_orientation(tiff).and_then(Orientation::from_exif).unwrap_or(Orientation::UPRIGHT)
}

fn read_orientation(tiff: &[u8]) -> Option<u16> {
    let order = match tiff.get(..4)? {
        b"II*\0" => ByteOrder::Little,
        b"MM\0*" => ByteOrder::Big,
        _ => return None,
    };
    let directory = tiff.get(usize::try_from(order.u32(tiff, 4)?).ok()?..)?;
    let entries = usize::from(order.u16(directory, 0)?);
    let entry = directory
        .get(2..)?
        .chunks_exact(ENTRY_BYTES)
        .take(entries)
        .find(|entry| order.u16(entry, 0) == Some(TAG_ORIENTATION))?;
    let is_one_short = order.u16(entry, 2)? == TYPE_SHORT && order.u32(entry, 4)? == 1;
    if is_one_short { order.u16(entry, 8) } else { None }
}

#[derive(Clone, Copy)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(field),
            Self::Big => u16::from_be_bytes(field),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(field),
            Self::Big => u32::from_be_bytes(field),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A little-endian TIFF structure whose second entry is the orientation.
    pub(in super::super) fn tiff_with_orientation(value: u8) -> Vec<u8> {
        let mut tiff = b"II*\0\x08\0\0\0\x02\0".to_vec();
        tiff.extend([0x00, 0x01, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
        tiff.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, value, 0, 0, 0]);
        tiff.extend([0; 4]);
        tiff
    }

    #[test]
    fn orientation_is_read_in_both_byte_orders() {
        assert_eq!(read_orientation(&tiff_with_orientation(6)), Some(6));
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        assert_eq!(read_orientation(big), Some(8));
    }

    #[test]
    fn a_malformed_structure_is_upright() {
        let good = tiff_with_orientation(6);
        for end in 0..good.len() - 6 {
            assert_eq!(orientation(&good[..end]), Orientation::UPRIGHT, "cut at {end}");
        }
        for value in [0, 9, 255] {
            assert_eq!(orientation(&tiff_with_orientation(value)), Orientation::UPRIGHT);
        }
        let mut wrong_type = good.clone();
        wrong_type[24] = 4;
        assert_eq!(orientation(&wrong_type), Orientation::UPRIGHT);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_orientation(
            tail in prop::collection::vec(any::<u8>(), 0..64),
            magic in prop::sample::select(vec![&b"II*\0"[..], b"MM\0*", b""]),
        ) {
            orientation(&[magic, &tail].concat());
        }
    }
}
