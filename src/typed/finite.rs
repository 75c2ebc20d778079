//! Whether all floats of a value are finite, for encodings that cannot express others.
//!
//! `serde_json` writes `null` for a float that is not finite, and nothing distinguishes that from
//! the `null` of a `None`. So a value is looked at a second time if its JSON has a `null`.

use std::fmt::{Display, Error};

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Returns whether all floats of a value are finite. Keys of maps do not count: `serde_json` checks
/// them itself.
pub(super) fn has_finite_floats<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(FloatCheck).is_ok()
}

/// A serializer that writes nothing, and fails at the first float that is not finite.
#[derive(Debug, Clone, Copy)]
struct FloatCheck;

type FloatsChecked = Result<(), Error>;

/// Methods for what has no float in it.
macro_rules! accept {
    ($($method:ident($($type:ty),*)),+ $(,)?) => {$(
        fn $method(self, $(_: $type),*) -> FloatsChecked {
            Ok(())
        }
    )+};
}

/// Methods for what has several parts.
macro_rules! enter {
    ($($method:ident($($type:ty),*)),+ $(,)?) => {$(
        fn $method(self, $(_: $type),*) -> Result<Self, Error> {
            Ok(self)
        }
    )+};
}

impl Serializer for FloatCheck {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    accept!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_none(),
        serialize_unit(),
        serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    );

    enter!(
        serialize_seq(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_tuple_variant(&'static str, u32, &'static str, usize),
        serialize_map(Option<usize>),
        serialize_struct(&'static str, usize),
        serialize_struct_variant(&'static str, u32, &'static str, usize),
    );

    fn serialize_f32(self, number: f32) -> FloatsChecked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> FloatsChecked {
        if number.is_finite() { Ok(()) } else { Err(Error) }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> FloatsChecked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> FloatsChecked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> FloatsChecked {
        value.serialize(self)
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> FloatsChecked {
        Ok(())
    }
}

/// The parts of something, each of which is checked by one method.
macro_rules! parts {
    ($($name:ident::$method:ident($($before:ty)?)),+ $(,)?) => {$(
        impl $name for FloatCheck {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $before,)? value: &T) -> FloatsChecked {
                value.serialize(*self)
            }

            fn end(self) -> FloatsChecked {
                Ok(())
            }
        }
    )+};
}

parts!(
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str),
);

impl SerializeMap for FloatCheck {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> FloatsChecked {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> FloatsChecked {
        value.serialize(*self)
    }

    fn end(self) -> FloatsChecked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Point,
        Circle(f64),
        Line(f32, f32),
        Box { width: f64 },
    }

    #[derive(Serialize)]
    struct Wrapped(Option<f64>);

    #[derive(Serialize)]
    struct Pair(u8, f64);

    #[derive(Serialize)]
    struct Named {
        inner: Vec<(i128, f64)>,
    }

    fn check<T: Serialize>(value: impl Fn(f64) -> T) {
        assert!(has_finite_floats(&value(-1.5e300)) && has_finite_floats(&value(0.0)));
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!has_finite_floats(&value(odd)));
        }
    }

    #[test]
    fn a_float_that_is_not_finite_is_found_wherever_it_is() {
        check(|float| float);
        check(|float| Some(vec![(1_u8, float)]));
        check(|float| BTreeMap::from([("key", [float])]));
        check(|float| Wrapped(Some(float)));
        check(|float| Pair(1, float));
        check(|float| Named { inner: vec![(-7, 0.5), (7, float)] });
        check(Shape::Circle);
        check(|width| Shape::Box { width });
        let lines = [Shape::Line(0.5, f32::NAN), Shape::Line(f32::INFINITY, 0.5)];
        assert!(lines.iter().all(|line| !has_finite_floats(line)));
        let fine = ((), Shape::Point, Shape::Line(0.5, 1.5), 'x', "NaN", [0_u8; 3], true);
        assert!(has_finite_floats(&fine));
        assert!(has_finite_floats(&format_args!("NaN")));
    }
}
