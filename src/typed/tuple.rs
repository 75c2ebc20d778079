//! Keys of several fields, and their prefixes.
//!
//! - A tuple is the bytes of its fields, one after the other. The last field of a whole key needs
//!   no terminator.
//! - These bytes are stored in keys: never change them.

use super::key::{DecodeKey, EncodeKey, EncodePrefix};

impl EncodeKey for () {
    fn encode(&self, _bytes: &mut Vec<u8>) {}
}

impl DecodeKey for () {
    fn decode(_bytes: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

/// Each field has the name of its type in the key, that of a type that stands for it, and that of a
/// variable. The last field comes first.
macro_rules! tuple {
    ($last:ident $like_last:ident $at_last:ident $(, $field:ident $like:ident $at:ident)*) => {
        impl<$($field, $like: EncodeKey<$field>,)* $last, $like_last: EncodeKey<$last>>
            EncodeKey<($($field,)* $last,)> for ($($like,)* $like_last,)
        {
            fn encode(&self, bytes: &mut Vec<u8>) {
                let ($($at,)* $at_last,) = self;
                $($at.encode(bytes);)*
                $at_last.encode(bytes);
            }

            fn encode_last(&self, bytes: &mut Vec<u8>) {
                let ($($at,)* $at_last,) = self;
                $($at.encode(bytes);)*
                $at_last.encode_last(bytes);
            }
        }

        impl<$($field: DecodeKey,)* $last: DecodeKey> DecodeKey for ($($field,)* $last,) {
            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                Some(($($field::decode(bytes)?,)* $last::decode(bytes)?,))
            }

            fn decode_last(mut bytes: &[u8]) -> Option<Self> {
                let bytes = &mut bytes;
                Some(($($field::decode(bytes)?,)* $last::decode_last(bytes)?,))
            }
        }
    };
}

tuple!(A LikeA a);
tuple!(B LikeB b, A LikeA a);
tuple!(C LikeC c, A LikeA a, B LikeB b);
tuple!(D LikeD d, A LikeA a, B LikeB b, C LikeC c);
tuple!(E LikeE e, A LikeA a, B LikeB b, C LikeC c, D LikeD d);
tuple!(F LikeF f, A LikeA a, B LikeB b, C LikeC c, D LikeD d, E LikeE e);

/// The fields of the prefix, and the fields that follow.
macro_rules! prefix {
    ($($field:ident $like:ident $at:ident),+; $($rest:ident),+) => {
        impl<$($field, $like: EncodeKey<$field>,)+ $($rest,)+>
            EncodePrefix<($($field,)+ $($rest,)+)> for ($($like,)+)
        {
            fn encode_prefix(&self, bytes: &mut Vec<u8>) {
                let ($($at,)+) = self;
                $($at.encode(bytes);)+
            }
        }
    };
}

prefix!(A LikeA a; B);
prefix!(A LikeA a; B, C);
prefix!(A LikeA a; B, C, D);
prefix!(A LikeA a; B, C, D, E);
prefix!(A LikeA a; B, C, D, E, F);
prefix!(A LikeA a, B LikeB b; C);
prefix!(A LikeA a, B LikeB b; C, D);
prefix!(A LikeA a, B LikeB b; C, D, E);
prefix!(A LikeA a, B LikeB b; C, D, E, F);
prefix!(A LikeA a, B LikeB b, C LikeC c; D);
prefix!(A LikeA a, B LikeB b, C LikeC c; D, E);
prefix!(A LikeA a, B LikeB b, C LikeC c; D, E, F);
prefix!(A LikeA a, B LikeB b, C LikeC c, D LikeD d; E);
prefix!(A LikeA a, B LikeB b, C LikeC c, D LikeD d; E, F);
prefix!(A LikeA a, B LikeB b, C LikeC c, D LikeD d, E LikeE e; F);
