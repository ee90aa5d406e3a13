//! Genuine bytes with changes: what a fuzzer would find too late from nothing.

/// Changes `bytes` by three bytes each: a place, and what to flip there.
pub fn mutate(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    bytes
}
