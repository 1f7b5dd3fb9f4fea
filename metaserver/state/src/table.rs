//! A large table whose copy costs next to nothing.
//!
//! A snapshot of the state is taken while commits go on: it works on a copy. Copying a million records would stop them for
//! seconds, so copies share what has not been changed since (a persistent B-tree of shared records).

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::{Index, RangeBounds};
use std::sync::Arc;

/// Records in the order of their keys. As `BTreeMap`, as far as that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<K: Ord, V>(OrdMap<K, Arc<V>>);

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(OrdMap::new())
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(Arc::as_ref)
    }

    /// Copies the record first if a copy of the table has it as well.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(Arc::make_mut)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, Arc::new(value));
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key).map(Arc::unwrap_or_clone)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value.as_ref()))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().map(Arc::as_ref)
    }

    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.range(range).map(|(key, value)| (key, value.as_ref()))
    }
}

impl<K: Ord + Clone, V: Clone, Q: Borrow<K>> Index<Q> for Table<K, V> {
    type Output = V;

    fn index(&self, key: Q) -> &V {
        self.get(key.borrow()).expect("a key that was looked up before")
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(records: I) -> Self {
        Table(records.into_iter().map(|(key, value)| (key, Arc::new(value))).collect())
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Deserialize<'de> for Table<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map: BTreeMap<K, V> = BTreeMap::deserialize(deserializer)?;
        Ok(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_what_comes_later() {
        let mut table: Table<u32, String> = (0..1000).map(|i| (i, i.to_string())).collect();
        let copy = table.clone();
        table.get_mut(&7).unwrap().push('!');
        table.remove(&8);
        table.insert(2000, "new".into());
        assert_eq!((table[7].as_str(), copy[7].as_str()), ("7!", "7"));
        assert_eq!((table.get(&8), copy[8].as_str()), (None, "8"));
        assert_eq!((table.len(), copy.len()), (1000, 1000));
    }
}
