//! A value that is never printed and is wiped when it goes.

use std::fmt;
use std::hint::black_box;

/// What can be overwritten in place.
pub trait Wipe {
    /// Overwrites the value's memory, unused capacity included.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        overwrite(self);
    }
}

impl Wipe for Vec<f32> {
    fn wipe(&mut self) {
        overwrite(self);
    }
}

impl Wipe for [u8] {
    fn wipe(&mut self) {
        self.fill(0);
        black_box(self);
    }
}

impl Wipe for [f32] {
    fn wipe(&mut self) {
        self.fill(0.0);
        black_box(self);
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

/// One `memset` over the whole allocation, where volatile writes would go element by element over
/// megabytes. The buffer escapes through `black_box`, so the writes cannot be left out
/// although nobody reads them.
fn overwrite<T: Clone + Default>(buffer: &mut Vec<T>) {
    let capacity = buffer.capacity();
    buffer.clear();
    buffer.resize(capacity, T::default());
    black_box(&mut buffer[..]);
}

/// Pixels, embeddings, keys and tokens live in a `Secret`.
///
/// It has no `Clone`, no `Serialize`, a redacted `Debug`, and its memory is overwritten when it is
/// dropped. Reading it takes a visible [`Secret::expose`].
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Takes ownership of `value`; the caller keeps no copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Opens the secret for reading.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Opens the secret for writing in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Witness(Arc<AtomicBool>);

    impl Wipe for Witness {
        fn wipe(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn debug_prints_nothing_of_the_value() {
        let secret = Secret::new(vec![1_u8, 2, 3]);
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    }

    #[test]
    fn dropping_a_secret_wipes_it() {
        let wiped = Arc::new(AtomicBool::new(false));
        drop(Secret::new(Witness(Arc::clone(&wiped))));
        assert!(wiped.load(Ordering::SeqCst));
    }

    #[test]
    fn wiping_overwrites_the_whole_allocation_in_place() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[7_u8; 10]);
        let (place, capacity) = (bytes.as_ptr(), bytes.capacity());
        bytes.wipe();
        assert_eq!((bytes.as_ptr(), bytes.capacity()), (place, capacity));
        assert_eq!(bytes, vec![0; capacity]);
    }
}
