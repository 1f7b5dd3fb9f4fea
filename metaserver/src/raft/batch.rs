//! What one log entry holds: commands, when they were proposed, and the level that one must know to apply them.
//!
//! The form of level 1 is the bare list of commands, which older programs write and read; from level 2 on it is a map
//! whose first field is the level. What is above this program's level is not looked into: its commands come out empty,
//! and whoever meets such a batch must check [`Batch::level`] before applying it.

use levee_meta_state::{Command, FIRST_LEVEL, LEVEL};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The commands of one log entry, applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub level: u32,
    /// The proposer's clock, milliseconds since 1970, which never goes back from one batch to the next.
    pub at_ms: u64,
    pub commands: Vec<Command>,
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.level <= FIRST_LEVEL {
            return self.commands.serialize(serializer);
        }
        let mut map = serializer.serialize_struct("Batch", 3)?;
        map.serialize_field("level", &self.level)?;
        map.serialize_field("at_ms", &self.at_ms)?;
        map.serialize_field("commands", &self.commands)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batch, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Level,
    AtMs,
    Commands,
    #[serde(other)]
    Unknown,
}

struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of commands, or a map with level, at_ms and commands")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Batch, A::Error> {
        let mut commands = Vec::new();
        while let Some(command) = list.next_element()? {
            commands.push(command);
        }
        Ok(Batch { level: FIRST_LEVEL, at_ms: 0, commands })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch, A::Error> {
        let (mut level, mut at_ms, mut commands) = (None, 0, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Level => level = Some(map.next_value()?),
                Field::AtMs => at_ms = map.next_value()?,
                Field::Commands if level.is_some_and(|level| level <= LEVEL) => commands = Some(map.next_value()?),
                Field::Commands | Field::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let level = level.ok_or_else(|| A::Error::missing_field("level"))?;
        match commands {
            None if level <= LEVEL => Err(A::Error::custom("a batch needs its level first, then its commands")),
            commands => Ok(Batch { level, at_ms, commands: commands.unwrap_or_default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Vec<Command> {
        vec![Command::DeleteVolume { name: "v".into() }, Command::Detach { name: "w".into() }]
    }

    #[test]
    fn both_forms_are_read_and_each_level_has_its_own() {
        let old = r#"[{"delete-volume":{"name":"v"}},{"detach":{"name":"w"}}]"#;
        let first = Batch { level: 1, at_ms: 0, commands: commands() };
        assert_eq!(serde_json::from_str::<Batch>(old).unwrap(), first);
        assert_eq!(serde_json::to_string(&first).unwrap(), old);
        let second = Batch { level: 2, at_ms: 77, commands: commands() };
        let new = format!(r#"{{"level":2,"at_ms":77,"commands":{old}}}"#);
        assert_eq!(serde_json::to_string(&second).unwrap(), new);
        assert_eq!(serde_json::from_str::<Batch>(&new).unwrap(), second);
    }

    #[test]
    fn what_is_above_is_told_and_not_looked_into() {
        let above = r#"{"level":4000,"new":{"a":[1]},"at_ms":5,"commands":[{"unheard-of":{"x":[{}]}}]}"#;
        let batch: Batch = serde_json::from_str(above).unwrap();
        assert_eq!((batch.level, batch.at_ms, batch.commands.len()), (4000, 5, 0));
        for wrong in [r#"{"commands":[]}"#, r#"{"level":2}"#, "7", r#"{"level":2,"commands":[{"unheard-of":{}}]}"#] {
            assert!(serde_json::from_str::<Batch>(wrong).is_err(), "{wrong}");
        }
    }
}
