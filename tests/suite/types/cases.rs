//! The types, and of each the values that are likely to go wrong.

/// A type of columns.
pub struct Case {
    /// The column's name.
    pub name: &'static str,
    /// The type, as SQL writes it.
    pub sql: &'static str,
    /// Values, as SQL's input has them.
    pub values: &'static [&'static str],
    /// Digits after the point, where it becomes a decimal.
    pub scale: usize,
    /// Whether it has a btree, so that it can be a key.
    pub in_key: bool,
}

const fn case(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Case {
    Case { name, sql, values, scale: 0, in_key: true }
}

const fn decimal(name: &'static str, sql: &'static str, scale: usize, values: &'static [&'static str]) -> Case {
    Case { name, sql, values, scale, in_key: true }
}

const fn no_key(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Case {
    Case { name, sql, values, scale: 0, in_key: false }
}

/// What the cases are made of.
pub const SETUP: &str = r#"
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION isn;
CREATE SCHEMA shop; CREATE TABLE shop."order" (id int); CREATE FUNCTION shop.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('sad', 'so so', '', 'naïve "🦀"'); ALTER TYPE mood ADD VALUE 'added';
CREATE DOMAIN cents AS numeric(12, 2); CREATE DOMAIN price AS cents CHECK (VALUE > -1000); CREATE DOMAIN prices AS price[];
CREATE DOMAIN moment AS timestamp(3); CREATE DOMAIN moment_of_order AS moment DEFAULT now();
CREATE DOMAIN tags AS text[]; CREATE DOMAIN shop.label AS varchar(20);
CREATE TYPE pair AS (a int, "B b" text); CREATE TYPE nested AS (p pair, l text[]);
CREATE TYPE floats AS RANGE (subtype = float8);
-- Stands for types of extensions, as PostGIS has them: text, with a delimiter of its own.
CREATE TYPE geo; CREATE FUNCTION geo_in(cstring) RETURNS geo LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION geo_out(geo) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE geo (INPUT = geo_in, OUTPUT = geo_out, INTERNALLENGTH = VARIABLE, DELIMITER = ':', STORAGE = extended);
"#;

/// 1,000 digits, of which one stands after the point.
const LONG: &str = concat!(
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    ".5"
);

/// What every reader of Avro can hold.
pub const CASES: &[Case] = &[
    case("boolean", "boolean", &["t", "f"]),
    case("int2", "int2", &["0", "32767", "-32768"]),
    case("int4", "int4", &["0", "-1", "2147483647", "-2147483648"]),
    case("int8", "int8", &["0", "9223372036854775807", "-9223372036854775808"]),
    case("oid", "oid", &["0", "4294967295"]),
    case(
        "float4",
        "float4",
        &["0", "-0", "0.1", "3.4028235e38", "-3.4028235e38", "1e-45", "1.1754942e-38", "NaN", "Infinity", "-Infinity"],
    ),
    case(
        "float8",
        "float8",
        &[
            "0",
            "-0",
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "2.2250738585072011e-308",
            "NaN",
            "Infinity",
            "-Infinity",
        ],
    ),
    case(
        "numeric",
        "numeric",
        &["0", "-0.00", "1.50", "NaN", "Infinity", "-Infinity", LONG, "1e-500", "12345678901234567890"],
    ),
    decimal("numeric_12_2", "numeric(12, 2)", 2, &["0", "-0.01", "9999999999.99", "-9999999999.99", "1.5"]),
    decimal("numeric_38_38", "numeric(38, 38)", 38, &["0", "-0.99999999999999999999999999999999999999", "1e-38"]),
    decimal("numeric_1000_1", "numeric(1000, 1)", 1, &[LONG, "-1", "0.1"]),
    decimal("numeric_3_0", "numeric(3, 0)", 0, &["-999", "0", "7"]),
    case(
        "text",
        "text",
        &["", " ", "NULL", "naïve 🦀", "a\tb\nc\\d\r", "\u{1}\u{7f}\u{85}\u{feff}\u{10ffff}", "it's \"x\"", "{1,2}"],
    ),
    case("varchar", "varchar(20)", &["", "x  ", "ä"]),
    case("character", "char(5)", &["", "ab", "ab  "]),
    case("bpchar", "bpchar", &["a  ", ""]),
    case("char", "\"char\"", &["a", ""]),
    case("name", "name", &["a \"Name\"", ""]),
    case("citext", "public.citext", &["MiXed", ""]),
    no_key("json", "json", &["{\"a\":  [1, null, \"\\u00e9\"]}", "null", "[[[[[[[[[[1]]]]]]]]]]"]),
    case("jsonb", "jsonb", &["{\"b\":1,\"a\":{\"c\":[{}, {\"d\":null}]}}", "1.50", "\"\""]),
    no_key("jsonpath", "jsonpath", &["$.a[*] ? (@.b > 1)"]),
    no_key("xml", "xml", &["<a b=\"c\">&amp;<d/></a>", ""]),
    case("uuid", "uuid", &["00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-4fff-8fff-ffffffffffff"]),
    case("bytea", "bytea", &["", "\\x00ff", "\\x5c2207"]),
    case("date", "date", &["1970-01-01", "0001-01-01", "1582-10-15", "1500-02-28", "2000-02-29", "9999-12-31"]),
    case("time", "time", &["00:00:00", "23:59:59.999999", "12:00:00.5"]),
    case("time_0", "time(0)", &["12:34:56.7"]),
    case("timetz", "timetz", &["00:00:00+00", "24:00:00-15:59:59", "12:34:56.789+05:30"]),
    case(
        "timestamp",
        "timestamp",
        &["1970-01-01 00:00:00", "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"],
    ),
    case("timestamp_3", "timestamp(3)", &["2024-02-29 12:34:56.7891"]),
    case(
        "timestamptz",
        "timestamptz",
        &[
            "1970-01-01 00:00:00+00",
            "1883-11-18 12:03:57+00",
            "2024-02-29 12:34:56.000001-08",
            "9999-12-31 12:00:00+00",
        ],
    ),
    case(
        "interval",
        "interval",
        &["0", "1 year -2 mons 3 days -04:05:06.789", "178000000 years", "-178000000 years", "00:00:00.000001"],
    ),
    case("interval_day", "interval day to second(3)", &["1 day 00:00:00.1234"]),
    case("money", "money", &["0", "-92233720368547758.08", "92233720368547758.07"]),
    case("bit", "bit(3)", &["101"]),
    case("varbit", "varbit", &["", "0101010101010101010101"]),
    case("inet", "inet", &["127.0.0.1", "10.0.0.1/8", "::1", "2001:db8::/32"]),
    case("cidr", "cidr", &["10.0.0.0/8", "::/0"]),
    case("macaddr", "macaddr", &["08:00:2b:01:02:03"]),
    case("macaddr8", "macaddr8", &["08:00:2b:01:02:03:04:05"]),
    no_key("point", "point", &["(1.5,-0)", "(NaN,Infinity)"]),
    no_key("line", "line", &["{1,-1,0}"]),
    no_key("lseg", "lseg", &["[(0,0),(1,1)]"]),
    no_key("box", "box", &["(1,1),(0,0)", "(2,2),(2,2)"]),
    no_key("path", "path", &["((0,0),(1,1))", "[(0,0),(1,1)]"]),
    no_key("polygon", "polygon", &["((0,0),(1,1),(1,0))"]),
    no_key("circle", "circle", &["<(0,0),1e-300>"]),
    case("tsvector", "tsvector", &["", "'a b':1A,2 'c''d'"]),
    case("tsquery", "tsquery", &["a & !(b | c:*A)", ""]),
    case("int4range", "int4range", &["empty", "[1,5)", "(,)", "[2147483647,]"]),
    case("numrange", "numrange", &["[1.50,2.5]", "(,NaN]"]),
    case("tstzrange", "tstzrange", &["[2024-01-01 00:00:00+02,infinity)", "empty"]),
    case("daterange", "daterange", &["[0044-03-15 BC,2024-01-01)"]),
    case("tsrange", "tsrange", &["[\"2024-01-01 00:00:00\",)"]),
    case("int8range", "int8range", &["[-9223372036854775808,0)"]),
    case("floats", "public.floats", &["[0.1,Infinity)"]),
    case("int4multirange", "int4multirange", &["{}", "{[1,3),[5,9)}"]),
    case("datemultirange", "datemultirange", &["{[2024-01-01,2024-02-01)}"]),
    case("nummultirange", "nummultirange", &["{[1.50,2),(5,)}"]),
    case("tsmultirange", "tsmultirange", &["{[2024-01-01 00:00:00,2024-02-01 00:00:00)}"]),
    case("tstzmultirange", "tstzmultirange", &["{(,2024-02-01 00:00:00+05)}"]),
    case("int8multirange", "int8multirange", &["{[1,2)}"]),
    case("pg_lsn", "pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"]),
    case("xid8", "xid8", &["0", "18446744073709551615"]),
    no_key("xid", "xid", &["4294967295"]),
    no_key("cid", "cid", &["7"]),
    case("tid", "tid", &["(0,1)", "(4294967295,65535)"]),
    no_key("pg_snapshot", "pg_snapshot", &["10:20:10,14,15"]),
    no_key("txid_snapshot", "txid_snapshot", &["10:20:10,14,15"]),
    no_key("int2vector", "int2vector", &["1 2 3", ""]),
    case("oidvector", "oidvector", &["1 2 3", ""]),
    no_key("refcursor", "refcursor", &["a cursor"]),
    no_key("aclitem", "aclitem", &["postgres=arwdDxt/postgres"]),
    case("regclass", "regclass", &["shop.order", "pg_class", "0", "4000000000"]),
    case("regproc", "regproc", &["shop.f", "now"]),
    case("regprocedure", "regprocedure", &["shop.f(int)", "lower(text)"]),
    case("regoper", "regoper", &["pg_catalog.||/"]),
    case("regoperator", "regoperator", &["+(int,int)"]),
    case("regtype", "regtype", &["shop.label", "mood", "int4", "timestamptz[]"]),
    case("regrole", "regrole", &["postgres"]),
    case("regnamespace", "regnamespace", &["shop"]),
    case("regconfig", "regconfig", &["english"]),
    case("regdictionary", "regdictionary", &["simple"]),
    case("regcollation", "regcollation", &["\"C\""]),
    case("mood", "public.mood", &["sad", "so so", "", "naïve \"🦀\"", "added"]),
    decimal("cents", "public.cents", 2, &["12.5", "-9999999999.99"]),
    decimal("price", "public.price", 2, &["0.01", "-999.99"]),
    case("moment", "public.moment", &["2024-02-29 12:34:56.7891"]),
    case("label", "shop.label", &["x", ""]),
    case("pair", "public.pair", &["(1,\"a \"\"b\"\" \\\\\")", "(,)", "(1,\"\")"]),
    case("nested", "public.nested", &["(\"(1,x)\",\"{a,\"\"b c\"\",NULL}\")"]),
    case("hstore", "public.hstore", &["", "a=>1, \"b c\"=>NULL, \"q\\\"\\\\\"=>\"NULL\"", "\"\"=>\"\", \"ä\"=>\"🦀\""]),
    case("ltree", "public.ltree", &["Top.Science", ""]),
    no_key("lquery", "public.lquery", &["*.Astronomy{1,2}.*"]),
    case("cube", "public.cube", &["(1,2),(3,4)", "(0)"]),
    case("isbn", "public.isbn", &["978-0-393-04002-9"]),
    case("ean13", "public.ean13", &["0220356483481"]),
    no_key("geo", "public.geo", &["POINT(1 2)", "a:b,c"]),
];

/// What fits into Avro's logical types, but not into every reader's own types: years before 1 or after 9999, infinity,
/// 24:00:00.
pub const BEYOND: &[Case] = &[
    case("date", "date", &["infinity", "-infinity", "4714-11-24 BC", "0044-03-15 BC", "5874897-12-31", "10000-01-01"]),
    case("time", "time", &["24:00:00"]),
    case(
        "timestamp",
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "0001-12-31 23:59:59.999999 BC",
            "294247-01-10 04:00:54.775806",
            "12345-01-01 00:00:00.5",
        ],
    ),
    case(
        "timestamptz",
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "0044-03-15 12:00:00+00 BC",
            "294247-01-10 04:00:54.775806+00",
        ],
    ),
    case("moment_of_order", "public.moment_of_order", &["infinity", "294247-01-10 04:00:54.775"]),
];
