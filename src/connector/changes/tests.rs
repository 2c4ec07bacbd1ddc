//! Each difference by itself, and the versions in between.

use super::*;

fn column(number: i16, name: &str, type_oid: u32) -> ShapeColumn {
    ShapeColumn { number, name: name.into(), type_oid, typmod: -1, version: "700".into(), ..ShapeColumn::default() }
}

/// `id int PRIMARY KEY, v text`.
fn shape() -> TableShape {
    TableShape {
        oid: 7,
        name: "public.t".into(),
        natts: 2,
        columns: vec![column(1, "id", 23), column(2, "v", 25)],
        key: vec!["id".into()],
        heaps: [(7, 7)].into(),
        membership: "1 2 3".into(),
        ..TableShape::default()
    }
}

/// The same after a change.
fn after(change: impl FnOnce(&mut TableShape)) -> TableShape {
    let mut shape = shape();
    change(&mut shape);
    shape
}

fn announced(columns: &[(&str, u32)]) -> Announced {
    let columns = columns.iter().map(|(name, oid)| ((*name).to_owned(), *oid, -1)).collect();
    Announced { columns, key: vec!["id".into()], ..Announced::default() }
}

fn add(shape: &mut TableShape, column: ShapeColumn) {
    shape.natts = column.number;
    shape.columns.push(column);
}

fn is_read(demand: &Demand) -> bool {
    matches!(demand, Demand::Read { .. })
}

fn is_sweep(demand: &Demand) -> bool {
    matches!(demand, Demand::Sweep(_))
}

#[test]
fn what_is_the_same_asks_for_nothing() {
    assert_eq!(compare(&shape(), &shape()), Demand::Nothing);
    let missing = after(|shape| shape.columns[1].has_missing = true);
    assert_eq!(compare(&shape(), &missing), Demand::Nothing);
}

#[test]
fn what_old_rows_have_as_null_or_no_more_is_only_noted() {
    let notes = [
        after(|shape| add(shape, column(3, "w", 25))),
        after(|shape| drop(shape.columns.pop())),
        after(|shape| shape.heaps = [(7, 8)].into()),
        after(|shape| shape.labels = [(9, "new".into())].into()),
    ];
    for now in notes {
        assert_eq!(compare(&shape(), &now), Demand::Note, "{now:?}");
    }
}

#[test]
fn what_old_rows_may_hold_without_an_event_is_read() {
    let with_default = after(|shape| add(shape, ShapeColumn { has_missing: true, ..column(3, "w", 25) }));
    let reads = [
        with_default,
        // Its default was volatile, or the table was rewritten after one that wasn't.
        after(|shape| {
            add(shape, column(3, "w", 25));
            shape.heaps = [(7, 8)].into();
        }),
        after(|shape| shape.columns[1].name = "w".into()),
        after(|shape| shape.columns[1].type_oid = 23),
        after(|shape| shape.columns[1].as_text = true),
        // Dropped, and added again by the same name.
        after(|shape| {
            shape.columns[1] = column(3, "v", 25);
            shape.natts = 3;
        }),
    ];
    for now in reads {
        assert!(is_read(&compare(&shape(), &now)), "{now:?}");
    }
    let dropped = after(|shape| drop(shape.columns.pop())).after(&shape());
    assert!(is_read(&compare(&dropped, &after(|shape| shape.columns[1].number = 3))));
    let excluded = after(|shape| drop(shape.columns.pop()));
    assert!(is_read(&compare(&excluded, &shape())));
    let labelled = |label: &str| after(|shape| shape.labels = [(9, label.into())].into());
    assert!(is_read(&compare(&labelled("a"), &labelled("b"))));
    let keyed = |label: &str| TableShape { columns: vec![column(1, "id", 20_001)], ..labelled(label) };
    assert!(is_sweep(&compare(&keyed("a"), &keyed("b"))));
    let composite = |fields: &str| after(|shape| shape.composites = [(9, fields.into())].into());
    assert!(is_read(&compare(&composite("a"), &composite("b"))));
}

#[test]
fn a_longer_varchar_is_noted_and_a_shorter_one_read() {
    let varchar = |typmod| after(|shape| shape.columns[1] = ShapeColumn { typmod, ..column(2, "v", 1043) });
    assert_eq!(compare(&varchar(14), &varchar(24)), Demand::Note);
    assert_eq!(compare(&varchar(14), &varchar(-1)), Demand::Note);
    assert!(is_read(&compare(&varchar(24), &varchar(14))));
    assert!(is_read(&compare(&varchar(-1), &varchar(14))));
}

#[test]
fn where_rows_or_keys_may_be_gone_it_is_swept() {
    let sweeps = [
        after(|shape| shape.oid = 8),
        after(|shape| shape.name = "public.u".into()),
        after(|shape| shape.membership = "1 2 4".into()),
        after(|shape| shape.row_filter = Some("(id > 5)".into())),
        after(|shape| shape.key = vec!["v".into()]),
        after(|shape| shape.columns[0].type_oid = 20),
        after(|shape| {
            shape.columns[0].name = "number".into();
            shape.key = vec!["number".into()];
        }),
    ];
    for now in sweeps {
        assert!(is_sweep(&compare(&shape(), &now)), "{now:?}");
    }
}

#[test]
fn a_new_partition_is_read_from_it_on_and_one_that_is_gone_or_rewritten_has_all_read_and_swept() {
    let partitioned = |heaps: &[(u32, u32)]| {
        after(|shape| {
            shape.partitioned = true;
            shape.heaps = heaps.iter().copied().collect();
        })
    };
    let was = partitioned(&[(10, 1), (20, 2)]);
    let added = compare(&was, &partitioned(&[(10, 1), (20, 2), (30, 3), (40, 4)]));
    assert_eq!(added, Demand::Read { from: std::cmp::Reverse(30), reason: Reason::PartitionAdded });
    assert!(is_sweep(&compare(&was, &partitioned(&[(10, 1)]))));
    assert!(is_sweep(&compare(&was, &partitioned(&[(10, 1), (20, 3)]))));
    assert!(is_sweep(&compare(&was, &partitioned(&[(10, 1), (30, 3)]))));
}

#[test]
fn a_rewrite_that_gave_a_column_other_values_is_read_and_where_it_is_of_the_key_swept() {
    let rewritten = |column: Option<usize>| {
        after(|shape| {
            shape.heaps = [(7, 8)].into();
            if let Some(column) = column {
                shape.columns[column].version = "701".into();
            }
        })
    };
    assert_eq!(compare(&shape(), &rewritten(None)), Demand::Note, "VACUUM FULL");
    assert_eq!(compare(&shape(), &after(|shape| shape.columns[1].version = "701".into())), Demand::Note);
    assert_eq!(compare(&shape(), &rewritten(Some(1))), read(Reason::ColumnRewritten("v".into())));
    assert_eq!(compare(&shape(), &rewritten(Some(0))), Demand::Sweep(Reason::ColumnRewritten("id".into())));
    let unknown = after(|shape| shape.columns[1].version = String::new());
    assert_eq!(compare(&unknown, &rewritten(Some(1))), Demand::Note, "stored by a former version");
}

#[test]
fn a_partition_that_was_attached_again_has_all_read_and_swept() {
    let linked = |links: &[(u32, &str)]| {
        after(|shape| {
            shape.partitioned = true;
            shape.heaps = [(10, 1), (20, 2)].into();
            shape.links = links.iter().map(|(oid, links)| (*oid, (*links).to_owned())).collect();
        })
    };
    let was = linked(&[(10, "700"), (20, "700 701")]);
    assert_eq!(compare(&was, &was), Demand::Nothing);
    let again = linked(&[(10, "700"), (20, "700 702")]);
    assert_eq!(compare(&was, &again), Demand::Sweep(Reason::PartitionAttachedAgain));
    assert_eq!(compare(&linked(&[]), &again), Demand::Note, "stored by a former version");
}

#[test]
fn more_than_one_difference_asks_for_the_most() {
    let was = after(|shape| shape.partitioned = true);
    let now = after(|shape| {
        shape.partitioned = true;
        shape.heaps = [(7, 7), (8, 8)].into();
        shape.columns[1].name = "w".into();
    });
    let Demand::Read { from, .. } = compare(&was, &now) else { panic!("not read") };
    assert_eq!(from.0, 0, "the rows of the other partitions have the old name too");
}

#[test]
fn rows_that_were_written_in_between_count() {
    let between = |columns: &[(&str, u32)]| {
        let mut was = shape();
        was.announce(&announced(columns));
        was
    };
    let added = after(|shape| add(shape, column(3, "w", 25)));
    assert_eq!(compare(&between(&[("id", 23), ("v", 25), ("w", 25)]), &added), Demand::Note);
    // Added under another name, and renamed before anybody looked.
    assert!(is_read(&compare(&between(&[("id", 23), ("v", 25), ("x", 25)]), &added)));
    // Added as another type.
    assert!(is_read(&compare(&between(&[("id", 23), ("v", 25), ("w", 23)]), &added)));
    // Added, dropped and added again.
    let again = after(|shape| add(shape, column(4, "w", 25)));
    assert!(is_read(&compare(&between(&[("id", 23), ("v", 25), ("w", 25)]), &again)));
    // Renamed, and renamed back.
    assert!(is_read(&compare(&between(&[("id", 23), ("x", 25)]), &shape())));
    // Dropped.
    let dropped = after(|shape| drop(shape.columns.pop()));
    assert_eq!(compare(&between(&[("id", 23)]), &dropped), Demand::Note);
    // Of before the shape.
    assert!(is_read(&compare(&between(&[("id", 23)]), &shape())));
    let mut other_key = shape();
    other_key.announce(&Announced { key: vec!["v".into()], ..announced(&[("id", 23), ("v", 25)]) });
    assert!(is_sweep(&compare(&other_key, &shape())));
}

#[test]
fn keys_of_another_schema_are_swept_be_they_of_the_same_columns() {
    let keyed = |schema| after(|shape| shape.key_schema = schema);
    assert!(is_sweep(&compare(&keyed(Some(1)), &keyed(Some(2)))));
    assert_eq!(compare(&keyed(None), &keyed(Some(2))), Demand::Note, "stored by a former version");
    let mut between = keyed(Some(1));
    between.announce(&Announced { key_schema: Some(2), ..announced(&[("id", 23), ("v", 25)]) });
    assert!(is_sweep(&compare(&between, &keyed(Some(1)))));
}

#[test]
fn of_all_reasons_missed_changes_are_told() {
    let now = after(|shape| {
        shape.membership = "1 2 4".into();
        shape.row_filter = Some("(id > 5)".into());
        shape.key = vec!["v".into()];
    });
    assert_eq!(compare(&shape(), &now), Demand::Sweep(Reason::Publication));
}

#[test]
fn records_that_were_left_out_have_the_table_read_again() {
    let mut was = shape();
    was.announce(&Announced::skipped());
    assert_eq!(compare(&was, &shape()), read(Reason::RecordsSkipped));
}
