//! Divides images into register tiles; see `tile`.

/// Heights of tiles, and the largest width of each in a tile of up to 14 pixels.
const HEIGHTS: [(usize, usize); 3] = [(1, 14), (2, 7), (4, 3)];

/// The division of an image of some width into tiles. Widths differ by at most one, so no tile is
/// much slower than the others. The wider tiles come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Tiling {
    /// Rows of a tile.
    pub(in crate::cpu) rows: usize,
    wide: TileSpan,
    narrow: TileSpan,
}

/// Adjacent tiles of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct TileSpan {
    /// First pixel of the first tile.
    pub(in crate::cpu) x: usize,
    pub(in crate::cpu) width: usize,
    pub(in crate::cpu) count: usize,
}

impl Tiling {
    /// Returns the tiling of images of `width × height` pixels. Tiles of narrow images have several
    /// rows.
    pub(in crate::cpu) fn new(width: usize, height: usize, pixels_max: usize) -> Self {
        let fits = |&&(rows, widest): &&(usize, usize)| {
            rows <= height && width <= widest && rows * width <= pixels_max
        };
        let rows = HEIGHTS.iter().rev().find(fits).map_or(1, |&(rows, _)| rows);
        let columns = width.div_ceil(pixels_max / rows);
        let (narrow, wider) = (width / columns, width % columns);
        let wide = TileSpan { x: 0, width: narrow + 1, count: wider };
        let narrow = TileSpan { x: wider * (narrow + 1), width: narrow, count: columns - wider };
        Self { rows, wide, narrow }
    }

    /// Returns the spans of tiles in a row.
    pub(in crate::cpu) fn spans(&self) -> impl Iterator<Item = TileSpan> {
        [self.wide, self.narrow].into_iter().filter(|span| span.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiling_covers_every_pixel_with_tiles_that_exist() {
        for pixels_max in [2, 6, 14] {
            for (width, height) in (1..70).flat_map(|w| (1..6).map(move |h| (w, h))) {
                let tiling = Tiling::new(width, height, pixels_max);
                let mut next = 0;
                for span in tiling.spans() {
                    assert_eq!(span.x, next);
                    assert!(span.width > 0 && span.width * tiling.rows <= pixels_max);
                    let (_, widest) =
                        *HEIGHTS.iter().find(|(rows, _)| *rows == tiling.rows).unwrap();
                    assert!(span.width <= widest && tiling.rows <= height);
                    next = span.x + span.count * span.width;
                }
                assert_eq!(next, width);
            }
        }
    }
}
