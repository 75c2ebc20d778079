//! Reading typed collections.

use serde::de::DeserializeOwned;

use super::Typed;
use super::bounds::TypedBounds;
use super::key::{DecodeKey, EncodeKey, EncodePrefix};
use super::range::{TypedKeys, TypedRange};
use super::target::TypedSource;
use super::target::sealed::ReadPairs;
use super::value::ValueCodec;
use crate::error::Result;

/// The pairs of a range in a source.
type PairsOf<'a, K, V, C, S> = TypedRange<K, V, C, <S as ReadPairs>::Pairs<'a>>;
/// The keys of a range in a source.
type KeysOf<'a, K, S> = TypedKeys<K, <S as ReadPairs>::Keys<'a>>;

impl<K, V, C: ValueCodec> Typed<K, V, C> {
    /// Returns the value of a key, or `None` if the key is absent or expired. Decodes the value
    /// where it lies in the store, without a copy of its bytes.
    ///
    /// # Errors
    ///
    /// [`Undecodable`](crate::Error::Undecodable) if the value is none of this type, and the errors
    /// of [`Reader::get`](crate::Reader::get).
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const VISITS: Typed<String, u64> = Typed::new("visits/");
    /// VISITS.put(&db, "ann", &3)?;
    /// let snapshot = db.snapshot();
    /// VISITS.put(&db, "ann", &4)?;
    /// assert_eq!(VISITS.get(&db, "ann")?, Some(4));
    /// assert_eq!(VISITS.get(&snapshot, "ann")?, Some(3));
    /// assert_eq!(VISITS.get(&db, "bob")?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn get<Q>(&self, source: &impl TypedSource, key: &Q) -> Result<Option<V>>
    where
        Q: EncodeKey<K> + ?Sized,
        V: DeserializeOwned,
    {
        let key = self.encode_key(key);
        source.read(&key, |value| self.decode_value(&key, value))?.transpose()
    }

    /// Returns whether a key exists and has not expired, whatever its value is.
    ///
    /// # Errors
    ///
    /// As [`Reader::contains_key`](crate::Reader::contains_key).
    pub fn contains_key<Q>(&self, source: &impl TypedSource, key: &Q) -> Result<bool>
    where
        Q: EncodeKey<K> + ?Sized,
    {
        source.has(&self.encode_key(key))
    }

    /// Returns the values of several keys, in the order of the keys. From a store or a snapshot,
    /// this is faster than one by one, and shows all of them as of one moment only from a snapshot
    /// or a transaction; see [`Reader::get_many`](crate::Reader::get_many).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the first key in the list that fails.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const COLORS: Typed<u8, String> = Typed::new("color/");
    /// COLORS.put(&db, &1, &"red".to_owned())?;
    /// assert_eq!(COLORS.get_many(&db, &[1, 2])?, [Some("red".to_owned()), None]);
    /// # db.close()
    /// # }
    /// ```
    pub fn get_many<Q>(&self, source: &impl TypedSource, keys: &[Q]) -> Result<Vec<Option<V>>>
    where
        Q: EncodeKey<K>,
        V: DeserializeOwned,
    {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| self.encode_key(key)).collect();
        let mut values: Vec<Option<Result<V>>> = keys.iter().map(|_| None).collect();
        source.read_many(&keys, |at, value| {
            if let (Some(key), Some(place)) = (keys.get(at), values.get_mut(at)) {
                *place = Some(self.decode_value(key, value));
            }
        })?;
        values.into_iter().map(Option::transpose).collect()
    }

    /// Returns an iterator over the pairs in a range of keys, in the order of the keys' type. It
    /// can be read from both ends. [`Reader::range`](crate::Reader::range) has its cost.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const LEVELS: Typed<(i64, u8), bool> = Typed::new("level/");
    /// for day in [-1, 0, 1, 1000] {
    ///     LEVELS.put(&db, &(day, 0), &true)?;
    /// }
    /// let days = LEVELS.range(&db, (-1, 0)..=(1, 0)).rev().map(|pair| Ok(pair?.0.0));
    /// assert_eq!(days.collect::<bitcask::Result<Vec<_>>>()?, [1, 0, -1]);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "scan")]
    pub fn range<'a, S: TypedSource>(
        &self,
        source: &'a S,
        bounds: impl TypedBounds<K>,
    ) -> PairsOf<'a, K, V, C, S>
    where
        K: DecodeKey,
        V: DeserializeOwned,
    {
        TypedRange::new(*self, source.pairs(self.bounds(&bounds)))
    }

    /// Returns an iterator over the pairs whose keys begin with some fields, in order. It can be
    /// read from both ends.
    ///
    /// The fields are a tuple, also if there is only one. For a collection of `String` keys, a
    /// string stands for all keys that begin with it.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const MAILS: Typed<(String, bool, u32), String> = Typed::new("mail/");
    /// MAILS.put(&db, &("ann", true, 1), &"Hello".to_owned())?;
    /// MAILS.put(&db, &("ann", false, 2), &"Hello again".to_owned())?;
    /// MAILS.put(&db, &("anna", true, 1), &"Hi".to_owned())?;
    /// assert_eq!(MAILS.prefix(&db, &("ann",)).count(), 2);
    /// assert_eq!(MAILS.prefix(&db, &("ann", true)).count(), 1);
    /// # db.close()
    /// # }
    /// ```
    pub fn prefix<'a, S: TypedSource, P: EncodePrefix<K> + ?Sized>(
        &self,
        source: &'a S,
        fields: &P,
    ) -> PairsOf<'a, K, V, C, S>
    where
        K: DecodeKey,
        V: DeserializeOwned,
    {
        TypedRange::new(*self, source.pairs(self.bounds_of(fields)))
    }

    /// Returns an iterator over all pairs of the collection, in order. It can be read from both
    /// ends. The same as [`range(source, ..)`](Self::range).
    pub fn iter<'a, S: TypedSource>(&self, source: &'a S) -> PairsOf<'a, K, V, C, S>
    where
        K: DecodeKey,
        V: DeserializeOwned,
    {
        self.range(source, ..)
    }

    /// Returns the lowest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self, source: &impl TypedSource) -> Result<Option<(K, V)>>
    where
        K: DecodeKey,
        V: DeserializeOwned,
    {
        self.iter(source).next().transpose()
    }

    /// Returns the highest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self, source: &impl TypedSource) -> Result<Option<(K, V)>>
    where
        K: DecodeKey,
        V: DeserializeOwned,
    {
        self.iter(source).next_back().transpose()
    }

    /// Returns an iterator over all keys of the collection, in order, that can be read from both
    /// ends. Except from a transaction, it reads no values.
    pub fn keys<'a, S: TypedSource>(&self, source: &'a S) -> KeysOf<'a, K, S>
    where
        K: DecodeKey,
    {
        self.range_keys(source, ..)
    }

    /// Returns an iterator over the keys in a range, in order, that can be read from both ends.
    /// Except from a transaction, it reads no values.
    pub fn range_keys<'a, S: TypedSource>(
        &self,
        source: &'a S,
        bounds: impl TypedBounds<K>,
    ) -> KeysOf<'a, K, S>
    where
        K: DecodeKey,
    {
        TypedKeys::new(self.prefix, source.keys_of(self.bounds(&bounds)))
    }
}
