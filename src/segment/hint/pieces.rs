//! A list that grows by pieces, so that growing copies nothing and leaves little memory unused.

/// Number of items in the first piece. Each further one has as many as there are already.
const PIECE_MIN: usize = 64;
/// Maximum number of items in a piece.
const PIECE_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 128 } else { 1 << 16 };

/// A list that is only appended to.
#[derive(Debug, Clone)]
pub(super) struct Pieces<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
    /// Number of items in the full pieces.
    full_len: usize,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { full: Vec::new(), last: Vec::new(), full_len: 0 }
    }
}

impl<T> Pieces<T> {
    #[inline]
    pub(super) fn push(&mut self, item: T) {
        if self.last.len() == self.last.capacity() {
            self.add_piece();
        }
        self.last.push(item);
    }

    #[cold]
    fn add_piece(&mut self) {
        let len = self.len();
        let piece = Vec::with_capacity(len.clamp(PIECE_MIN, PIECE_MAX));
        let full = std::mem::replace(&mut self.last, piece);
        if !full.is_empty() {
            self.full.push(full);
        }
        self.full_len = len;
    }

    pub(super) fn len(&self) -> usize {
        self.full_len + self.last.len()
    }

    /// Returns the first items of the list, up to `len`, in one vector. Each piece is freed as soon
    /// as it has been copied.
    pub(super) fn into_vec(self, len: usize) -> Vec<T> {
        let mut items = Vec::with_capacity(self.len());
        for piece in self.full {
            items.extend(piece);
        }
        items.extend(self.last);
        items.truncate(len);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_across_pieces() {
        for len in [0, 1, PIECE_MIN, PIECE_MIN + 1, 10 * PIECE_MAX] {
            let mut pieces = Pieces::default();
            (0..len).for_each(|item| pieces.push(item));
            assert_eq!(pieces.len(), len);
            let unused = pieces.last.capacity() - pieces.last.len();
            assert!(unused < len.clamp(PIECE_MIN, PIECE_MAX) || len == 0);
            assert_eq!(pieces.clone().into_vec(len), (0..len).collect::<Vec<_>>());
            assert_eq!(pieces.into_vec(len / 2), (0..len / 2).collect::<Vec<_>>());
        }
    }
}
