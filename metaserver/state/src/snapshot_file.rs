//! The state as a stream of lines, each a JSON document: what a snapshot of the Raft log is made of.
//!
//! The first line has the format's number and all small tables, then every disk and every volume has a line, and the last line
//! counts them, so that a stream that was cut short is known. Equal states make equal bytes. Nothing is ever held whole in
//! memory but the state itself.

use crate::state::{Index, State};
use crate::table::Table;
use crate::tables::{Disk, Tables, Volume};
use levee_proto::{DiskId, VolumeId};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};

/// Of the lines. Records gain fields with defaults; only what earlier readers would get wrong makes a new number.
const FORMAT: u32 = 1;
/// Bytes of the longest line: a volume of the largest size with all its chunks fits.
const MAX_LINE: u64 = 4 << 30;

/// The state at one moment, to be written while the state itself moves on. Making one costs next to nothing.
pub struct Frozen(Tables);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line<T, D, V> {
    Head { format: u32, tables: T },
    Disk(DiskId, D),
    Volume(VolumeId, V),
    End { disks: usize, volumes: usize },
}

type Written<'a> = Line<&'a Tables, &'a Disk, &'a Volume>;
type Read = Line<Box<Tables>, Disk, Volume>;

impl State {
    pub fn freeze(&self) -> Frozen {
        Frozen(self.tables.clone())
    }

    /// Reads what [`Frozen::save`] wrote. What is malformed, cut short, or of a later format is an error; that the records agree
    /// with each other is not looked at: whoever stores the bytes keeps a checksum.
    pub fn load(mut lines: impl BufRead) -> Result<State, String> {
        let mut line = Vec::new();
        let Line::Head { format, tables } = next(&mut lines, &mut line)? else {
            return Err("it does not begin with the tables".into());
        };
        if format != FORMAT {
            return Err(format!("it has format {format}, this version reads {FORMAT}"));
        }
        let mut tables = *tables;
        loop {
            match next(&mut lines, &mut line)? {
                Line::Disk(id, disk) => tables.disks.insert(id, disk),
                Line::Volume(id, volume) => tables.volumes.insert(id, volume),
                Line::End { disks, volumes } if (disks, volumes) == (tables.disks.len(), tables.volumes.len()) => break,
                Line::End { .. } => return Err("records are missing".into()),
                Line::Head { .. } => return Err("it begins twice".into()),
            }
        }
        Ok(State { index: Index::of(&tables), tables })
    }
}

impl Frozen {
    pub(crate) fn into_tables(self) -> Tables {
        self.0
    }

    pub fn save(&self, to: &mut impl Write) -> io::Result<()> {
        let Tables { disks, volumes, .. } = &self.0;
        let small = Tables { disks: Table::default(), volumes: Table::default(), ..self.0.clone() };
        put(to, &Line::Head { format: FORMAT, tables: &small })?;
        disks.iter().try_for_each(|(id, disk)| put(to, &Line::Disk(*id, disk)))?;
        volumes.iter().try_for_each(|(id, volume)| put(to, &Line::Volume(*id, volume)))?;
        put(to, &Line::End { disks: disks.len(), volumes: volumes.len() })
    }
}

fn put(to: &mut impl Write, line: &Written<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

fn next(lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<Read, String> {
    line.clear();
    let read = io::Read::take(&mut *lines, MAX_LINE).read_until(b'\n', line).map_err(|e| e.to_string())?;
    if read == 0 || line.last() != Some(&b'\n') {
        return Err("it ends early".into());
    }
    serde_json::from_slice(line).map_err(|e| format!("a record cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use levee_proto::api::CreateVolume;
    use uuid::Uuid;

    fn saved() -> Vec<u8> {
        let mut state = State::default();
        let found = Command::Found { cluster: Uuid::from_u128(1) };
        let node = |name: &str, uuid| {
            let disk =
                serde_json::json!({ "uuid": Uuid::from_u128(uuid), "path": "/d", "capacity": 1u64 << 40, "shards": 1 });
            let node = serde_json::json!({ "name": name, "incarnation": Uuid::from_u128(9), "admin_url": "http://h:1",
                "cores": ["h:2"], "disks": [disk] });
            Command::RegisterNode(serde_json::from_value(node).expect("a node"))
        };
        let create = Command::CreateVolume(CreateVolume {
            name: "v".into(),
            size: 1 << 30,
            copies: 2,
            min_copies: 1,
            class: None,
        });
        for command in [found, node("a", 2), node("b", 3), create] {
            state.apply(&command).expect("fine");
        }
        let mut bytes = Vec::new();
        state.freeze().save(&mut bytes).expect("memory takes it");
        assert_eq!(State::load(bytes.as_slice()), Ok(state));
        bytes
    }

    #[test]
    fn what_was_cut_short_or_spoiled_is_refused() {
        let bytes = saved();
        for length in 0..bytes.len() {
            assert!(State::load(&bytes[..length]).is_err(), "{length} bytes were taken for all");
        }
        let text = String::from_utf8(bytes).expect("JSON");
        let without =
            |word: &str| text.lines().filter(|l| !l.contains(word)).map(|l| format!("{l}\n")).collect::<String>();
        for word in ["{\"disk\"", "{\"volume\"", "{\"head\""] {
            assert!(State::load(without(word).as_bytes()).is_err(), "{word} is missing");
        }
        let later = text.replace("\"format\":1", "\"format\":7");
        assert!(State::load(later.as_bytes()).expect_err("unknown").contains("format 7"));
        assert!(State::load(format!("{text}{text}").replacen("{\"end\"", "{\"x\"", 1).as_bytes()).is_err());
    }
}
