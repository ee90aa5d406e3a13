//! A wrapper for values that are never printed and are overwritten on drop.

use std::fmt;
use std::hint::black_box;

/// A value that can be overwritten in place.
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

/// Overwrites the whole allocation with one `memset`. Volatile writes would go element by element
/// over megabytes. The buffer escapes through `black_box`, so the compiler cannot remove the writes
/// although the program never reads the buffer again.
fn overwrite<T: Clone + Default>(buffer: &mut Vec<T>) {
    let capacity = buffer.capacity();
    buffer.clear();
    buffer.resize(capacity, T::default());
    black_box(&mut buffer[..]);
}

/// Holds pixels, embeddings, keys and tokens.
///
/// A `Secret` has no `Clone`, no `Serialize` and a redacted `Debug`. Its memory is overwritten on
/// drop. Reading a secret takes a visible call of [`Secret::expose`].
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Takes ownership of `value`. The caller must not keep a copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value for reading.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Returns the value for writing in place.
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
