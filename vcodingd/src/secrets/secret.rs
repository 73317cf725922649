//! A value that does not show itself.

use std::fmt;

/// A key or another value that nobody may read by mistake: no `Display`, no `Serialize`, a
/// `Debug` that is always the same, and its bytes are overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The bytes. Whoever calls this answers for where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // As good as it gets without unsafe code: the compiler has to believe that it is read.
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}
