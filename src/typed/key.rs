//! What a key is: something whose bytes have the order of its type.

/// A key as bytes whose order is the order of the type: what lookups and writes need.
///
/// `T: EncodeKey<K>` means that a `T` can stand for a `K`, as `str` does for `String`. Without a
/// parameter, `T: EncodeKey` means that a `T` is a key itself.
///
/// # Implementing it
///
/// This trait is open: a type of your own becomes a key when it implements `EncodeKey` and
/// [`DecodeKey`], usually by delegating to a type that is one.
///
/// ```
/// use bitcask::typed::{DecodeKey, EncodeKey, Typed};
/// # use bitcask::{Bitcask, Options};
///
/// #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
/// struct UserId(u64);
///
/// impl EncodeKey for UserId {
///     fn encode(&self, bytes: &mut Vec<u8>) {
///         self.0.encode(bytes);
///     }
/// }
///
/// impl DecodeKey for UserId {
///     fn decode(bytes: &mut &[u8]) -> Option<Self> {
///         u64::decode(bytes).map(Self)
///     }
/// }
///
/// const NAMES: Typed<(UserId, u8), String> = Typed::new("name/");
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = Bitcask::open(dir.path(), Options::default())?;
/// NAMES.put(&db, &(UserId(7), 1), &"Ann".to_owned())?;
/// assert_eq!(NAMES.prefix(&db, &(UserId(7),)).count(), 1);
/// # db.close()
/// # }
/// ```
///
/// The store relies on two rules. If a type breaks them, ranges are wrong and keys may collide, but
/// nothing else happens.
///
/// 1. If `a < b`, then the bytes of `a` are less than those of `b`, and equal keys have the same
///    bytes, whichever type stands for them.
/// 2. No result of `encode` is the beginning of that of another key of the type, so that fields can
///    follow. For `encode_last` this is not required.
pub trait EncodeKey<K: ?Sized = Self> {
    /// Appends the key's bytes, after which other fields may follow.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Appends the key's bytes, after which nothing follows: it is the whole key, or its last
    /// field. A type that ends with a string or another field without a fixed size can do without a
    /// terminator there. By default the same as [`encode`](Self::encode).
    fn encode_last(&self, bytes: &mut Vec<u8>) {
        self.encode(bytes);
    }
}

/// A key that can be read back from its bytes: what iterators need.
///
/// The inverse of [`EncodeKey`], which shows how to implement both.
pub trait DecodeKey: EncodeKey + Sized {
    /// Takes a key from the front of the bytes, and leaves what follows it. Returns `None`, never
    /// panics, if the bytes do not begin with a key.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;

    /// Returns the key that the bytes are, as [`encode_last`](EncodeKey::encode_last) has written
    /// it. By default, decodes what [`encode`](EncodeKey::encode) has written, and requires that
    /// nothing follows.
    fn decode_last(mut bytes: &[u8]) -> Option<Self> {
        let key = Self::decode(&mut bytes)?;
        bytes.is_empty().then_some(key)
    }
}

/// The beginning of a key of type `K`: some of the first fields of a tuple, as a tuple, or the
/// beginning of a string.
///
/// `("ann",)` is a prefix of `(String, u32)`, and `("ann", 7)` one of `(String, u32, u32)`. For a
/// collection of `String` keys, `"an"` stands for all keys that begin with it.
pub trait EncodePrefix<K: ?Sized> {
    /// Appends the bytes with which exactly those keys begin.
    fn encode_prefix(&self, bytes: &mut Vec<u8>);
}

impl<K: ?Sized, T: EncodeKey<K> + ?Sized> EncodeKey<K> for &T {
    fn encode(&self, bytes: &mut Vec<u8>) {
        (**self).encode(bytes);
    }

    fn encode_last(&self, bytes: &mut Vec<u8>) {
        (**self).encode_last(bytes);
    }
}

impl<K: ?Sized, T: EncodePrefix<K> + ?Sized> EncodePrefix<K> for &T {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        (**self).encode_prefix(bytes);
    }
}
