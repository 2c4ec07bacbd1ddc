//! Two kinds of tests: bytes written by hand after the manual, one message each, and properties over any message. The
//! properties use an encoder that lives only here; the bytes by hand keep it honest.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::postgres::catalog::ReplicaIdentity;

/// Puts the parts of a message together.
fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The message that the bytes are.
fn decoded(bytes: &[u8]) -> Message<'_> {
    decode(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02X?}"))
}

/// What the error says.
fn refusal(bytes: &[u8]) -> String {
    decode(bytes).expect_err("decoded what is malformed").to_string()
}

#[test]
fn begin_announces_where_the_commit_record_starts() {
    let frame = bytes(&[b"B", &[0, 0, 0, 0x16, 0xB3, 0x74, 0xD8, 0x48], &[0, 2, 3, 4, 5, 6, 7, 8], &[0, 0, 3, 0xE8]]);
    let begin = Begin { commit_lsn: Lsn(0x16_B374_D848), commit_time: 0x0002_0304_0506_0708, xid: 1000 };
    assert_eq!(decoded(&frame), Message::Begin(begin));
}

#[test]
fn commit_has_the_start_and_the_end_of_its_record() {
    let frame = bytes(&[b"C\0", &[0, 0, 0, 0, 0, 0, 1, 0], &[0, 0, 0, 0, 0, 0, 1, 0x30], &[0xFF; 8]]);
    let commit = Commit { commit_lsn: Lsn(0x100), end_lsn: Lsn(0x130), commit_time: -1 };
    assert_eq!(decoded(&frame), Message::Commit(commit));
}

#[test]
fn origin_names_the_node() {
    let frame = bytes(&[b"O", &[0, 0, 0, 0, 0, 0, 0, 9], b"node_b\0"]);
    assert_eq!(decoded(&frame), Message::Origin { commit_lsn: Lsn(9), name: "node_b" });
}

#[test]
fn relation_lists_the_columns_with_types_and_key() {
    let frame = bytes(&[
        b"R",
        &[0, 0, 0x40, 1],
        b"public\0users\0d",
        &[0, 2],
        b"\x01id\0",
        &[0, 0, 0, 20],
        &[0xFF; 4],
        b"\0na\xC3\xAFve\0",
        &[0, 0, 4, 0x13],
        &[0, 0, 0, 0x0E],
    ]);
    let id = RelationColumn { in_replica_identity: true, name: "id", type_oid: 20, typmod: -1 };
    let name = RelationColumn { in_replica_identity: false, name: "naïve", type_oid: 1043, typmod: 14 };
    let relation = RelationMessage {
        oid: 16385,
        schema: "public",
        name: "users",
        replica_identity: ReplicaIdentity::Default,
        columns: vec![id, name],
    };
    assert_eq!(decoded(&frame), Message::Relation(relation));
}

#[test]
fn relation_in_pg_catalog_has_an_empty_schema() {
    let frame = bytes(&[b"R", &[0, 0, 4, 0xD2], b"\0t\0f", &[0, 0]]);
    let Message::Relation(relation) = decoded(&frame) else { panic!("not a relation") };
    assert_eq!((relation.schema, relation.replica_identity), ("", ReplicaIdentity::Full));
}

#[test]
fn type_is_announced_by_name() {
    let frame = bytes(&[b"Y", &[0, 0, 0x40, 2], b"public\0mood\0"]);
    assert_eq!(decoded(&frame), Message::Type { oid: 16386, schema: "public", name: "mood" });
}

#[test]
fn insert_has_the_new_row() {
    let row: &[u8] = b"\0\x04t\0\0\0\x0242nut\0\0\0\0";
    let frame = bytes(&[b"I", &[0, 0, 0x40, 1], b"N", row]);
    let Message::Insert { relation: 16385, new } = decoded(&frame) else { panic!("not that insert") };
    let cells: Vec<_> = new.cells().collect();
    assert_eq!(cells, [Cell::Text(b"42"), Cell::Null, Cell::Unchanged, Cell::Text(b"")]);
}

#[test]
fn update_has_an_old_key_an_old_row_or_neither() {
    let (start, old, new): (&[u8], &[u8], &[u8]) = (b"U\0\0\x40\x01", b"\0\x01t\0\0\0\x011", b"\0\x01t\0\0\0\x012");
    let without = bytes(&[start, b"N", new]);
    let key = bytes(&[start, b"K", old, b"N", new]);
    let full = bytes(&[start, b"O", old, b"N", new]);
    let one_cell = |tuple: &Tuple<'_>| tuple.cells().map(|cell| format!("{cell:?}")).collect::<String>();

    for (frame, expected_old) in [(without, None), (key, Some("K")), (full, Some("O"))] {
        let Message::Update { relation: 16385, old, new } = decoded(&frame) else { panic!("not that update") };
        assert_eq!(one_cell(&new), "Text([50])");
        let kind = old.as_ref().map(|old| if matches!(old, OldTuple::Key(_)) { "K" } else { "O" });
        assert_eq!(kind, expected_old);
        assert!(old.is_none_or(|old| one_cell(old.tuple()) == "Text([49])"));
    }
}

#[test]
fn delete_has_the_old_key_with_nulls_for_the_rest() {
    let frame = b"D\0\0\x40\x01K\0\x02t\0\0\0\x011n";
    let Message::Delete { relation: 16385, old: OldTuple::Key(key) } = decoded(frame) else {
        panic!("not that delete")
    };
    assert_eq!(key.cells().collect::<Vec<_>>(), [Cell::Text(b"1"), Cell::Null]);
}

#[test]
fn truncate_lists_relations_and_options() {
    let frame = b"T\0\0\0\x02\x02\0\0\x40\x01\0\0\x40\x02";
    let truncate = Message::Truncate { relations: vec![16385, 16386], cascade: false, restart_identity: true };
    assert_eq!(decoded(frame), truncate);
}

#[test]
fn logical_message_has_prefix_and_content() {
    let frame = bytes(&[b"M\x01", &[0, 0, 0, 0, 0, 0, 0, 7], b"audit\0", b"\0\0\0\x03a\0b"]);
    let logical = Message::Logical { transactional: true, lsn: Lsn(7), prefix: "audit", content: b"a\0b" };
    assert_eq!(decoded(&frame), logical);
}

#[test]
fn a_malformed_message_is_refused_with_the_place_and_what_was_expected() {
    let cases: [(&[u8], &str); 12] = [
        (b"", "(unknown): message kind at byte 0: expected 1 bytes, only 0 are left"),
        (b"S", "(unknown): message kind at byte 0: expected one of B C O R Y I U D T M, found 0x53 ('S')"),
        (b"C\x01", "(Commit): flags at byte 1: expected 0, found 0x01 ('\\x01')"),
        (b"B\0\0", "(Begin): commit LSN at byte 1: expected 8 bytes, only 2 are left"),
        (b"I\0\0\0\x01K", "(Insert): tuple kind at byte 5: expected N, found 0x4B ('K')"),
        (b"I\0\0\0\x01N\xFF\xFE", "(Insert): number of columns at byte 6: expected a number not below zero, found -2"),
        (b"I\0\0\0\x01N\0\x01x", "(Insert): cell kind at byte 8: expected one of n u t b, found 0x78 ('x')"),
        (
            b"I\0\0\0\x01N\0\x01t\xFF\xFF\xFF\xFF",
            "(Insert): cell length at byte 9: expected a number not below zero, found -1",
        ),
        (b"I\0\0\0\x01N\0\x01t\0\0\0\x05ab", "(Insert): cell value at byte 13: expected 5 bytes, only 2 are left"),
        (b"I\0\0\0\x01N\0\0nn", "(Insert): end at byte 8: expected the message to end, found 2 more bytes"),
        (b"Y\0\0\0\x01a\xFF\0b\0", "(Type): schema at byte 5: expected a string in UTF-8, found other bytes"),
        (
            b"Y\0\0\0\x01a\0b",
            "(Type): type name at byte 7: expected a string that ends in NUL, found none to the message's end",
        ),
    ];
    for (frame, expected) in cases {
        assert_eq!(refusal(frame), format!("malformed pgoutput message {expected}"));
    }
}

#[test]
fn a_count_far_beyond_the_message_costs_no_memory() {
    assert!(refusal(b"T\x7F\xFF\xFF\xFF\0\0\0\0\x01").contains("relation ids"));
    assert!(refusal(b"R\0\0\0\x01\0t\0d\x7F\xFF").contains("column flags"));
}

/// The encoder: what Postgres would write.
fn encode(message: &Message<'_>) -> Vec<u8> {
    let string = |text: &str| [text.as_bytes(), b"\0"].concat();
    let tuple = |tuple: &Tuple<'_>| [&tuple.columns.to_be_bytes(), tuple.bytes].concat();
    let old_tuple = |old: &OldTuple<'_>| match old {
        OldTuple::Key(key) => [b"K".to_vec(), tuple(key)].concat(),
        OldTuple::Full(row) => [b"O".to_vec(), tuple(row)].concat(),
    };
    match message {
        Message::Begin(Begin { commit_lsn, commit_time, xid }) => {
            bytes(&[b"B", &commit_lsn.0.to_be_bytes(), &commit_time.to_be_bytes(), &xid.to_be_bytes()])
        }
        Message::Commit(Commit { commit_lsn, end_lsn, commit_time }) => {
            bytes(&[b"C\0", &commit_lsn.0.to_be_bytes(), &end_lsn.0.to_be_bytes(), &commit_time.to_be_bytes()])
        }
        Message::Origin { commit_lsn, name } => bytes(&[b"O", &commit_lsn.0.to_be_bytes(), &string(name)]),
        Message::Relation(relation) => encode_relation(relation),
        Message::Type { oid, schema, name } => bytes(&[b"Y", &oid.to_be_bytes(), &string(schema), &string(name)]),
        Message::Insert { relation, new } => bytes(&[b"I", &relation.to_be_bytes(), b"N", &tuple(new)]),
        Message::Update { relation, old, new } => {
            let old = old.as_ref().map(old_tuple).unwrap_or_default();
            bytes(&[b"U", &relation.to_be_bytes(), &old, b"N", &tuple(new)])
        }
        Message::Delete { relation, old } => bytes(&[b"D", &relation.to_be_bytes(), &old_tuple(old)]),
        Message::Truncate { relations, cascade, restart_identity } => {
            let options = u8::from(*cascade) | u8::from(*restart_identity) << 1;
            let ids = relations.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>();
            bytes(&[b"T", &(relations.len() as u32).to_be_bytes(), &[options], &ids])
        }
        Message::Logical { transactional, lsn, prefix, content } => {
            let length = (content.len() as u32).to_be_bytes();
            bytes(&[b"M", &[u8::from(*transactional)], &lsn.0.to_be_bytes(), &string(prefix), &length, content])
        }
    }
}

fn encode_relation(relation: &RelationMessage<'_>) -> Vec<u8> {
    let identity = match relation.replica_identity {
        ReplicaIdentity::Default => b"d",
        ReplicaIdentity::Nothing => b"n",
        ReplicaIdentity::Full => b"f",
        ReplicaIdentity::Index => b"i",
    };
    let mut frame = bytes(&[b"R", &relation.oid.to_be_bytes(), relation.schema.as_bytes(), b"\0"]);
    frame.extend(bytes(&[relation.name.as_bytes(), b"\0", identity]));
    frame.extend((relation.columns.len() as u16).to_be_bytes());
    for column in &relation.columns {
        frame.extend([&[u8::from(column.in_replica_identity)], column.name.as_bytes(), b"\0"].concat());
        frame.extend([column.type_oid.to_be_bytes(), column.typmod.to_be_bytes()].concat());
    }
    frame
}

fn encode_cell(cell: Cell<'_>) -> Vec<u8> {
    let value = |kind: &[u8], value: &[u8]| [kind, &(value.len() as u32).to_be_bytes(), value].concat();
    match cell {
        Cell::Null => b"n".to_vec(),
        Cell::Unchanged => b"u".to_vec(),
        Cell::Text(text) => value(b"t", text),
        Cell::Binary(binary) => value(b"b", binary),
    }
}

fn tuple_of(cells: &[Cell<'_>]) -> Tuple<'static> {
    let bytes: Vec<u8> = cells.iter().flat_map(|cell| encode_cell(*cell)).collect();
    Tuple { columns: cells.len() as u16, bytes: bytes.leak() }
}

// A message borrows; what these strategies generate it from is leaked, a few kilobytes in a test.

fn name() -> impl Strategy<Value = &'static str> {
    "[^\\x00]{0,12}".prop_map(|name| &*name.leak())
}

fn any_bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| &*bytes.leak())
}

fn cell() -> impl Strategy<Value = Cell<'static>> {
    prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        any_bytes().prop_map(Cell::Text),
        any_bytes().prop_map(Cell::Binary),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple<'static>> {
    vec(cell(), 0..12).prop_map(|cells| tuple_of(&cells))
}

fn old_tuple() -> impl Strategy<Value = OldTuple<'static>> {
    prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn relation() -> impl Strategy<Value = RelationMessage<'static>> {
    let identity = prop::sample::select(b"dnfi".as_slice());
    let column =
        (any::<bool>(), name(), any::<u32>(), any::<i32>()).prop_map(|(in_replica_identity, name, oid, typmod)| {
            RelationColumn { in_replica_identity, name, type_oid: oid, typmod }
        });
    (any::<u32>(), name(), name(), identity, vec(column, 0..8)).prop_map(|(oid, schema, name, identity, columns)| {
        let replica_identity = ReplicaIdentity::from_code(identity).expect("one of the four");
        RelationMessage { oid, schema, name, replica_identity, columns }
    })
}

fn message() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        (lsn(), any::<i64>(), any::<u32>()).prop_map(|(commit_lsn, commit_time, xid)| Message::Begin(Begin {
            commit_lsn,
            commit_time,
            xid
        })),
        (lsn(), lsn(), any::<i64>()).prop_map(|(commit_lsn, end_lsn, commit_time)| {
            Message::Commit(Commit { commit_lsn, end_lsn, commit_time })
        }),
        (lsn(), name()).prop_map(|(commit_lsn, name)| Message::Origin { commit_lsn, name }),
        relation().prop_map(Message::Relation),
        (any::<u32>(), name(), name()).prop_map(|(oid, schema, name)| Message::Type { oid, schema, name }),
        (any::<u32>(), tuple()).prop_map(|(relation, new)| Message::Insert { relation, new }),
        (any::<u32>(), prop::option::of(old_tuple()), tuple()).prop_map(|(relation, old, new)| Message::Update {
            relation,
            old,
            new
        }),
        (any::<u32>(), old_tuple()).prop_map(|(relation, old)| Message::Delete { relation, old }),
        (vec(any::<u32>(), 0..8), any::<bool>(), any::<bool>()).prop_map(|(relations, cascade, restart_identity)| {
            Message::Truncate { relations, cascade, restart_identity }
        }),
        (any::<bool>(), lsn(), name(), any_bytes()).prop_map(|(transactional, lsn, prefix, content)| {
            Message::Logical { transactional, lsn, prefix, content }
        }),
    ]
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(message in message()) {
        let frame = encode(&message);
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    #[test]
    fn cells_come_as_they_were_written(cells in vec(cell(), 0..20)) {
        let frame = encode(&Message::Insert { relation: 1, new: tuple_of(&cells) });
        let Ok(Message::Insert { new, .. }) = decode(&frame) else { panic!("not an insert") };
        let mut decoded = new.cells();
        for (index, cell) in cells.iter().enumerate() {
            prop_assert_eq!(decoded.len(), cells.len() - index);
            prop_assert_eq!(decoded.next(), Some(*cell));
        }
        prop_assert_eq!((decoded.len(), decoded.next()), (0, None));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(frame in vec(any::<u8>(), 0..200)) {
        let _ = decode(&frame);
    }

    #[test]
    fn a_message_with_a_byte_changed_is_a_message_or_an_error(
        message in message(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut frame = encode(&message);
        let place = place.index(frame.len());
        frame[place] = byte;
        if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = decode(&frame) {
            prop_assert_eq!(new.cells().count(), new.len());
        }
    }

    #[test]
    fn a_message_cut_short_anywhere_is_an_error_within_what_is_left(message in message()) {
        let frame = encode(&message);
        for left in 0..frame.len() {
            let error = decode(&frame[..left]).expect_err("decoded a part");
            prop_assert!(error.offset <= left);
        }
    }

    #[test]
    fn a_message_with_more_behind_it_is_an_error(message in message(), more in vec(any::<u8>(), 1..9)) {
        let frame = [encode(&message), more].concat();
        prop_assert!(decode(&frame).is_err());
    }
}
