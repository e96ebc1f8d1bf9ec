//! A JSON value in which no object names a member twice and nothing is nested deeper than a limit.
//!
//! `serde_json` takes the last of two equal members without a word, and so does the gateway: a file that says two
//! things would be made to say one of them.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Errors stay short, whatever the names in a file are.
const MAX_SHOWN: usize = 200;

/// The value, nested `DEPTH` levels at most. Errors name the path of the member and never a value.
pub(super) struct Strict<const DEPTH: usize>(pub Value);

impl<'de, const DEPTH: usize> Deserialize<'de> for Strict<DEPTH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed { at: &At::Root, levels: DEPTH }.deserialize(deserializer).map(Self)
    }
}

/// Where one is in a value, kept on the stack: a path is only made when something is wrong there.
pub(super) enum At<'a> {
    Root,
    Member(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Self::Root, name) => write!(f, "{}", name.escape_debug()),
            Self::Member(parent, name) => write!(f, "{parent}.{}", name.escape_debug()),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl At<'_> {
    pub(super) fn shown(&self) -> String {
        self.to_string().chars().take(MAX_SHOWN).collect()
    }
}

struct Seed<'a> {
    at: &'a At<'a>,
    levels: usize,
}

impl Seed<'_> {
    fn inner<E: Error>(&self) -> Result<usize, E> {
        self.levels.checked_sub(1).ok_or_else(|| E::custom(format!("{}: nested too deep", self.at.shown())))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom(format!("{}: no number", self.at.shown())))?;
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let levels = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Seed { at: &At::Item(self.at, list.len()), levels })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let levels = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let at = At::Member(self.at, &name);
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("{} is given twice", at.shown())));
            }
            let value = members.next_value_seed(Seed { at: &at, levels })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
