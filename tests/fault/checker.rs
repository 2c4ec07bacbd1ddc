//! Compares what a consumer has seen with the ledger.
//!
//! The records of each key must be the beginning of what the ledger has for that key: nothing is missing in between,
//! nothing comes twice, nothing is out of order, nothing is made up. Then it is known exactly which of the ledger's
//! entries are visible, and a transaction is whole if all of its entries are visible, or none.

use std::collections::{BTreeMap, HashMap};

use super::ledger::{Entry, Ledger, Place};
use super::tables::TABLES;

/// A record as a consumer has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub place: Place,
    /// The row's transaction and version; none for a tombstone.
    pub row: Option<(u64, i64)>,
}

/// Rows of a table or of a folded topic: the texts of the columns by key.
pub type Rows = BTreeMap<String, Vec<Option<String>>>;

/// How much must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Whole transactions, however many.
    SoFar,
    /// Every record of the ledger.
    All,
}

/// What is wrong, one line each; nothing if all is well.
pub fn check(ledger: &Ledger, seen: &[Seen], extent: Extent) -> Vec<String> {
    let mut complaints = Vec::new();
    let found = by_place(seen, &mut complaints);
    for (place, records) in &found {
        let expected = ledger.places().get(*place).map_or(&[][..], Vec::as_slice);
        complaints.extend(first_difference(place, expected, records));
    }
    complaints.sort();
    complaints.extend(halves(ledger, &found));
    if extent == Extent::All {
        complaints.extend(missing(ledger, &found));
    }
    complaints
}

fn by_place<'s>(seen: &'s [Seen], complaints: &mut Vec<String>) -> HashMap<&'s Place, Vec<&'s Seen>> {
    let mut found: HashMap<&Place, Vec<&Seen>> = HashMap::new();
    for record in seen {
        found.entry(&record.place).or_default().push(record);
    }
    for (place, records) in &found {
        if records.iter().any(|record| record.partition != records[0].partition) {
            complaints.push(format!("{} is in several partitions", shown(place)));
        }
    }
    found
}

fn first_difference(place: &Place, expected: &[Entry], records: &[&Seen]) -> Option<String> {
    let equal = |entry: &Entry, record: &Seen| match (entry.version, record.row) {
        (Some(version), Some(row)) => row == (entry.tx, version),
        (None, None) => true,
        _ => false,
    };
    let mut pairs = records.iter().enumerate();
    let (at, record) = pairs.find(|(at, record)| !expected.get(*at).is_some_and(|entry| equal(entry, record)))?;
    let what = match record.row {
        Some((tx, version)) => format!("version {version} of transaction {tx}"),
        None => "a tombstone".to_owned(),
    };
    let why = match expected.iter().position(|entry| record.row.is_some() && equal(entry, record)) {
        Some(earlier) if earlier < at => "it has been there before".to_owned(),
        Some(later) => format!("{} before it are missing or come later", later - at),
        None if at < expected.len() => format!("{:?} is due", expected[at]),
        None => "nothing more is due".to_owned(),
    };
    let (partition, offset) = (record.partition, record.offset);
    Some(format!("{} has {what} as record {at} (partition {partition}, offset {offset}): {why}", shown(place)))
}

fn halves(ledger: &Ledger, found: &HashMap<&Place, Vec<&Seen>>) -> Vec<String> {
    #[derive(Default)]
    struct Count {
        visible: usize,
        all: usize,
        hidden: Option<String>,
    }
    let mut counts: BTreeMap<u64, Count> = BTreeMap::new();
    for (place, entries) in ledger.places() {
        let visible = found.get(place).map_or(0, Vec::len);
        for (at, entry) in entries.iter().enumerate() {
            let count = counts.entry(entry.tx).or_default();
            count.all += 1;
            if at < visible {
                count.visible += 1;
            } else {
                count.hidden.get_or_insert_with(|| shown(place));
            }
        }
    }
    let half = counts.into_iter().filter(|(_, count)| count.visible > 0 && count.visible < count.all);
    half.map(|(tx, Count { visible, all, hidden })| {
        format!("transaction {tx} is seen in part: {visible} of {all} records, not {}", hidden.unwrap_or_default())
    })
    .collect()
}

fn missing(ledger: &Ledger, found: &HashMap<&Place, Vec<&Seen>>) -> Vec<String> {
    let short = ledger.places().iter().filter_map(|(place, entries)| {
        let visible = found.get(place).map_or(0, Vec::len);
        let first = entries.get(visible)?;
        Some(format!("{} lacks its last {} records, from {first:?} on", shown(place), entries.len() - visible))
    });
    let mut short: Vec<_> = short.collect();
    short.sort();
    short
}

/// The topic as its last records have it, against the table.
pub fn compare_rows(table: usize, rows: &Rows, folded: &Rows) -> Vec<String> {
    let name = TABLES[table].name;
    let lost = rows.iter().filter_map(|(key, row)| match folded.get(key) {
        None => Some(format!("{name} has the row {key}, its topic has not")),
        Some(other) if other != row => Some(format!("{name} {key} is {row:?}, in the topic {other:?}")),
        Some(_) => None,
    });
    let left = folded.keys().filter(|key| !rows.contains_key(*key));
    lost.chain(left.map(|key| format!("{name} has no row {key}, its topic has"))).collect()
}

fn shown(place: &Place) -> String {
    format!("{} {}", TABLES[place.table].name, place.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> Place {
        Place::new(0, key.to_owned())
    }

    /// Transaction 1 inserts a and b, 2 updates both, 3 deletes a.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let entry = |key, tx, version| (place(key), Entry { tx, version });
        ledger.committed(2, vec![entry("a", 1, Some(1)), entry("b", 1, Some(1))]);
        ledger.committed(2, vec![entry("a", 2, Some(2)), entry("b", 2, Some(2))]);
        ledger.committed(1, vec![entry("a", 3, None)]);
        ledger
    }

    /// A record in brief: its key, and the row's transaction and version.
    type Brief = (&'static str, Option<(u64, i64)>);

    fn seen(records: &[Brief]) -> Vec<Seen> {
        let record = |(offset, (key, row)): (i64, &Brief)| Seen { partition: 0, offset, place: place(key), row: *row };
        (0..).zip(records).map(record).collect()
    }

    fn complaints(records: &[Brief], extent: Extent) -> String {
        check(&ledger(), &seen(records), extent).join("\n")
    }

    const ONE: [Brief; 2] = [("a", Some((1, 1))), ("b", Some((1, 1)))];
    const TWO: [Brief; 2] = [("a", Some((2, 2))), ("b", Some((2, 2)))];

    #[test]
    fn what_the_ledger_says_is_right() {
        let all = [ONE[0], TWO[0], ONE[1], TWO[1], ("a", None)];
        assert_eq!(complaints(&all, Extent::All), "");
        assert_eq!(complaints(&[ONE, TWO].concat(), Extent::SoFar), "");
        assert_eq!(complaints(&ONE, Extent::SoFar), "");
        assert_eq!(complaints(&[], Extent::SoFar), "");
    }

    #[test]
    fn a_record_that_is_missing_at_the_end_is_reported() {
        let complaints = complaints(&[ONE, TWO].concat(), Extent::All);
        assert!(complaints.contains("items a lacks its last 1 records"), "{complaints}");
    }

    #[test]
    fn a_record_that_is_missing_in_between_is_reported() {
        let complaints = complaints(&[ONE[0], ONE[1], TWO[1], ("a", None)], Extent::SoFar);
        assert!(complaints.contains("items a has a tombstone as record 1"), "{complaints}");
        assert!(complaints.contains("Entry { tx: 2, version: Some(2) } is due"), "{complaints}");
    }

    #[test]
    fn a_record_that_comes_twice_is_reported() {
        let complaints = complaints(&[ONE[0], ONE[1], ONE[1]], Extent::SoFar);
        assert!(complaints.contains("version 1 of transaction 1 as record 1"), "{complaints}");
        assert!(complaints.contains("it has been there before"), "{complaints}");
    }

    #[test]
    fn a_tombstone_that_comes_twice_is_reported() {
        let complaints = complaints(&[ONE[0], ONE[1], TWO[0], TWO[1], ("a", None), ("a", None)], Extent::All);
        assert!(complaints.contains("a tombstone as record 3"), "{complaints}");
        assert!(complaints.contains("nothing more is due"), "{complaints}");
    }

    #[test]
    fn two_records_of_a_key_that_have_changed_places_are_reported() {
        let complaints = complaints(&[TWO[0], ONE[0], ONE[1], TWO[1]], Extent::SoFar);
        assert!(complaints.contains("1 before it are missing or come later"), "{complaints}");
    }

    #[test]
    fn half_a_transaction_is_reported() {
        let complaints = complaints(&[ONE[0], ONE[1], TWO[0]], Extent::SoFar);
        assert_eq!(complaints, "transaction 2 is seen in part: 1 of 2 records, not items b");
    }

    #[test]
    fn a_key_that_nobody_wrote_is_reported() {
        let complaints = complaints(&[("c", Some((9, 1)))], Extent::SoFar);
        assert!(complaints.contains("items c has version 1 of transaction 9 as record 0"), "{complaints}");
    }

    #[test]
    fn a_key_in_two_partitions_is_reported() {
        let mut records = seen(&[ONE, TWO].concat());
        records[2].partition = 1;
        assert_eq!(check(&ledger(), &records, Extent::SoFar), ["items a is in several partitions"]);
    }

    #[test]
    fn counters_stand_in_the_order_of_their_versions_whoever_reports_first() {
        let mut ledger = Ledger::default();
        let counter = Place::new(crate::tables::COUNTERS, "1".to_owned());
        for (tx, version) in [(8, 2), (7, 1), (9, 3)] {
            ledger.committed(1, vec![(counter.clone(), Entry { tx, version: Some(version) })]);
        }
        let versions: Vec<_> = ledger.places()[&counter].iter().map(|entry| entry.tx).collect();
        assert_eq!(versions, [7, 8, 9]);
    }

    #[test]
    fn a_row_that_differs_and_one_that_only_one_side_has_are_reported() {
        let rows = |rows: &[(&str, &str)]| -> Rows {
            rows.iter().map(|(key, text)| ((*key).to_owned(), vec![Some((*text).to_owned())])).collect()
        };
        let complaints = compare_rows(0, &rows(&[("1", "x"), ("2", "y")]), &rows(&[("1", "z"), ("3", "y")]));
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(compare_rows(0, &rows(&[("1", "x")]), &rows(&[("1", "x")])).is_empty());
    }
}
