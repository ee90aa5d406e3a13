//! A value that is never printed and is wiped when it goes.

use std::fmt;

use zeroize::Zeroize;

/// Pixels, embeddings, keys and tokens live in a `Secret`.
///
/// It has no `Clone`, no `Serialize`, a redacted `Debug`, and its memory is overwritten when it is
/// dropped. Reading it takes a visible [`Secret::expose`].
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
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

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Witness(Arc<AtomicBool>);

    impl Zeroize for Witness {
        fn zeroize(&mut self) {
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
}
