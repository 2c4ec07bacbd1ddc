//! Names that Avro allows: letters, digits and underscores, with no digit first (Avro 1.12, "Names").
//!
//! Whatever else stands in a name becomes an underscore, which is what a reader of the topic would guess. A column
//! whose name is right already always keeps it. Where two columns of a table would be called the same, those whose
//! names had to change tell the characters instead, as `_2d_` for a hyphen.

use std::collections::HashSet;
use std::fmt::Write;

fn is_valid(name: &str) -> bool {
    !name.is_empty() && name.chars().enumerate().all(|(index, character)| is_allowed(index, character))
}

fn is_allowed(index: usize, character: char) -> bool {
    character == '_' || character.is_ascii_alphabetic() || (index > 0 && character.is_ascii_digit())
}

/// The name, with an underscore for each character that Avro doesn't allow.
fn plain(name: &str) -> String {
    // A digit is only wrong where it stands first: it stays, behind an underscore.
    let first =
        if name.starts_with(|character: char| character.is_ascii_digit()) || name.is_empty() { "_" } else { "" };
    let rest = name.chars().map(|character| if is_allowed(1, character) { character } else { '_' });
    first.chars().chain(rest).collect()
}

/// The name, with the code point of each character that Avro doesn't allow.
fn told(name: &str) -> String {
    let mut told = if name.is_empty() { "_".to_owned() } else { String::with_capacity(name.len() + 4) };
    for (index, character) in name.chars().enumerate() {
        if is_allowed(index, character) {
            told.push(character);
        } else {
            // Writing to a string can't fail.
            let _ = write!(told, "_{:x}_", u32::from(character));
        }
    }
    told
}

/// A namespace: the parts, each made valid, with dots between.
pub(super) fn namespace(parts: [&str; 3]) -> String {
    parts.map(plain).join(".")
}

/// The field of each column, in the same order. All are valid, and no two are the same.
pub(super) fn fields(columns: &[&str]) -> Vec<String> {
    let right = columns.iter().copied().filter(|name| is_valid(name)).collect::<HashSet<_>>();
    let plains = columns.iter().map(|name| plain(name)).collect::<Vec<_>>();
    let mut taken = right.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
    let name_of = |(column, plain): (&&str, &String)| {
        if right.contains(column) {
            return plain.clone();
        }
        let alone = !right.contains(plain.as_str()) && plains.iter().filter(|other| *other == plain).count() == 1;
        let base = if alone { plain.clone() } else { told(column) };
        // A column can even be called what another one is told as.
        let mut field = base.clone();
        let mut number = 2;
        while !taken.insert(field.clone()) {
            field = format!("{base}_{number}");
            number += 1;
        }
        field
    };
    columns.iter().zip(&plains).map(name_of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_avro_does_not_allow_becomes_an_underscore() {
        assert_eq!(
            fields(&["id", "order date", "1st", "größe", "", "a1"]),
            ["id", "order_date", "_1st", "gr__e", "_", "a1"]
        );
        assert_eq!(namespace(["my-shop", "public", "Order Items"]), "my_shop.public.Order_Items");
    }

    #[test]
    fn columns_that_would_be_called_the_same_tell_what_they_are_called() {
        assert_eq!(fields(&["a-b", "a_b", "a b"]), ["a_2d_b", "a_b", "a_20_b"]);
        assert_eq!(fields(&["a-b", "a_b", "a_2d_b"]), ["a_2d_b_2", "a_b", "a_2d_b"]);
    }

    proptest! {
        #[test]
        fn fields_are_valid_and_differ(columns in prop::collection::hash_set("[a_ 1é-]{1,4}", 0..12)) {
            let columns = columns.iter().map(String::as_str).collect::<Vec<_>>();
            let fields = fields(&columns);
            prop_assert_eq!(fields.len(), columns.len());
            prop_assert_eq!(fields.iter().collect::<HashSet<_>>().len(), columns.len());
            for (field, column) in fields.iter().zip(columns) {
                prop_assert!(is_valid(field));
                prop_assert!(!is_valid(column) || field == column);
            }
        }
    }
}
