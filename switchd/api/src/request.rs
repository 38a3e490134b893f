//! Bodies that a client sends, beyond the specs of [`crate::model`].

use crate::name::Name;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// Body of a creation: `{"name": "lab", …the keys of the spec}`.
///
/// Written by hand because serde's `flatten` gives up `deny_unknown_fields` and loses the place of an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct Named<T> {
    pub name: Name,
    #[serde(flatten)]
    pub spec: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named<T>, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

/// Body of `forward add`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAdd {
    /// `[HOSTIP:]PROTO/PORT[-PORT]`
    pub key: String,
    /// `IP:PORT` of a guest; of a range the first port.
    pub to: String,
}

/// Body of `floating add`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingAdd {
    /// The outside address.
    pub outside: String,
    pub port: Name,
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key `name` and the object's own keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named<T>, A::Error> {
        let mut name = None;
        let rest = TakeName { map, name: &mut name };
        let spec = T::deserialize(de::value::MapAccessDeserializer::new(rest))?;
        let name = name.ok_or_else(|| de::Error::missing_field("name"))?;
        Ok(Named { name, spec })
    }
}

/// The same map without the key `name`.
struct TakeName<'a, A> {
    map: A,
    name: &'a mut Option<Name>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for TakeName<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if key != "name" {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
            if self.name.replace(self.map.next_value()?).is_some() {
                return Err(de::Error::duplicate_field("name"));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, NetworkSpec};

    fn parse(text: &str) -> Result<Named<NetworkSpec>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_may_stand_anywhere() {
        for text in [
            r#"{"name":"lab","kind":"isolated","mtu":9000}"#,
            r#"{"kind":"isolated","mtu":9000,"name":"lab"}"#,
        ] {
            let named = parse(text).unwrap();
            assert_eq!(named.name.as_str(), "lab");
            assert_eq!((named.spec.kind, named.spec.mtu), (Kind::Isolated, Some(9000)));
            let again: Named<NetworkSpec> =
                serde_json::from_str(&serde_json::to_string(&named).unwrap()).unwrap();
            assert_eq!(again, named);
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = parse("{\"name\":\"lab\",\n \"kind\":\"isolated\", \"uplnk\":\"eth0\"}").unwrap_err();
        assert!(error.contains("unknown field `uplnk`") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn missing_and_duplicate_keys_are_errors() {
        assert!(parse(r#"{"kind":"isolated"}"#).unwrap_err().contains("missing field `name`"));
        assert!(parse(r#"{"name":"lab"}"#).unwrap_err().contains("missing field `kind`"));
        let twice = r#"{"name":"a","name":"b","kind":"isolated"}"#;
        assert!(parse(twice).unwrap_err().contains("duplicate field `name`"));
        let twice = r#"{"name":"a","kind":"bridged","kind":"isolated"}"#;
        assert!(parse(twice).unwrap_err().contains("duplicate field `kind`"));
        assert!(parse(r#"{"name":"../x","kind":"isolated"}"#).unwrap_err().contains("not a usable name"));
    }
}
