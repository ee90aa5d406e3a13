//! Mutations of genuine bytes, which a fuzzer would find too late from nothing.

/// Mutates `bytes`. Each mutation has three bytes: a big-endian index (modulo the length) and the
/// bits to flip there.
pub fn mutate(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    bytes
}
