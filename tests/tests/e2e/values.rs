//! Edge values of every built-in type that a column can have, in binary and in text where a type has both.
use pgconvoy_tests::Pair;

/// A type, and expressions for values of it.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("\"char\"", &["'a'", "''", "'\\377'"]),
    ("name", &["repeat('n', 63)", "''", "'ä\"''x'"]),
    ("int2", &["-32768", "32767", "0"]),
    ("int4", &["-2147483648", "2147483647"]),
    ("int8", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", &["'0'", "'4294967295'"]),
    (
        "float4",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "'1e-45'",
            "'3.4028235e38'",
            "'0.1'",
        ],
    ),
    (
        "float8",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "'5e-324'",
            "'1.7976931348623157e308'",
            "0.1::float8 + 0.2::float8",
        ],
    ),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "1.00",
            "1.0",
            "'1e-16383'",
            "'1e131071'",
            "repeat('9', 5000)::numeric + 0.5",
        ],
    ),
    ("numeric(12,3)", &["'123456789.123'", "-0.001", "'NaN'"]),
    (
        "money",
        &["'-92233720368547758.08'", "'92233720368547758.07'", "0"],
    ),
    (
        "text",
        &[
            "''",
            "'\\N'",
            "'\\.'",
            "E'tab\\there\\nline\\r\\n\\\\back\\b\\f\\v'",
            "'NULL'",
            "U&'\\+01F600 \\00E4 a\\0308'",
            "repeat('x', 100000)",
        ],
    ),
    ("varchar(5)", &["'abcde'", "'a    '", "''"]),
    (
        "char(5)",
        &["'a'", "'     '", "'abcde'", "'ä €'", "E' \\t\\\\'"],
    ),
    ("bpchar", &["'a'", "'a    '", "'     '", "''"]),
    ("char(5)[]", &["array['a', NULL, '']::char(5)[]"]),
    ("edge.code", &["'a'", "''"]),
    (
        "bytea",
        &["''", "'\\x00ff0a095c'", "decode(string_agg_bytes(), 'hex')"],
    ),
    (
        "date",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 BC'",
            "'5874897-12-31'",
            "'0001-01-01'",
            "'0001-12-31 BC'",
        ],
    ),
    ("time", &["'00:00'", "'24:00:00'", "'23:59:59.999999'"]),
    ("time(0)", &["'12:34:56'"]),
    (
        "timetz",
        &[
            "'00:00+15:59:59'",
            "'24:00-15:59:59'",
            "'12:00:00.000001+05:45'",
        ],
    ),
    (
        "timestamp",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'2024-02-29 12:00:00.5'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-02 00:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'2024-03-31 02:30:00+02'",
        ],
    ),
    (
        "interval",
        &[
            "'-178000000 years'",
            "'178000000 years'",
            "'1 mon -1 day 00:00:00.000001'",
            "'-1 year 2 mons -3 days 04:05:06.789'",
            "'0'",
            "'2562047788 hours'",
        ],
    ),
    ("interval day to second", &["'1 day 02:03:04.5'"]),
    (
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
    ),
    (
        "inet",
        &[
            "'0.0.0.0/0'",
            "'255.255.255.255'",
            "'::ffff:1.2.3.4/96'",
            "'fe80::1/64'",
            "'10.1.2.3/8'",
        ],
    ),
    ("cidr", &["'10.0.0.0/8'", "'::/0'", "'2001:db8::/32'"]),
    ("macaddr", &["'00:00:00:00:00:00'", "'ff:ff:ff:ff:ff:ff'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("bit(3)", &["B'101'", "B'000'"]),
    ("varbit", &["B''", "B'1'", "repeat('10', 500)::varbit"]),
    ("point", &["'(NaN,Infinity)'", "'(-0,5e-324)'"]),
    ("line", &["'{1,-1,0}'", "'{0,1,0.1}'"]),
    ("lseg", &["'[(0,0),(1,1)]'"]),
    ("box", &["'(1,1),(0,0)'", "'(Infinity,1),(-Infinity,0)'"]),
    ("path", &["'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1),(2,0))'"]),
    ("polygon", &["'((0,0),(1,1),(2,0))'"]),
    ("circle", &["'<(0,0),0>'", "'<(1,2),1e300>'"]),
    (
        "json",
        &[
            "'{\"a\" :  1, \"a\":2, \"\\u00e4\": \"\\\\n\"}'",
            "'null'",
            "'[]'",
            "'1e1000'",
        ],
    ),
    (
        "jsonb",
        &[
            "'{\"a\": {\"b\": [1.50, null, \"\\\\t\"]}}'",
            "'null'",
            "'\"\"'",
            "'1e1000'",
            "'-0.0'",
        ],
    ),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'", "'strict $'"]),
    (
        "tsvector",
        &[
            "''",
            "'''it''''s'':1A,16383 b:2B,3C'",
            "to_tsvector('simple', repeat('word ', 3000))",
        ],
    ),
    ("tsquery", &["''", "'a & !b | (c <2> d:*AB)'"]),
    (
        "xml",
        &["'<a b=\"1\">&amp;</a>'", "xmlparse(CONTENT 'no root<x/>')"],
    ),
    (
        "int4range",
        &["'empty'", "'(,)'", "'[1,10)'", "'[-2147483648,2147483647)'"],
    ),
    ("int8range", &["'empty'", "'(,5)'"]),
    ("numrange", &["'(0.1,1e100]'", "'empty'", "'[NaN,NaN]'"]),
    (
        "tsrange",
        &[
            "'[-infinity,infinity]'",
            "'(,\"2024-01-01 00:00:00.000001\")'",
        ],
    ),
    ("tstzrange", &["'[2024-01-01 00:00+00,)'"]),
    ("daterange", &["'[2024-01-01,infinity)'", "'empty'"]),
    ("int4multirange", &["'{}'", "'{[1,2),[5,)}'"]),
    ("nummultirange", &["'{(,0.5],[1,1]}'"]),
    (
        "tstzmultirange",
        &["'{[2024-01-01 00:00+00,2024-01-02 00:00+00)}'"],
    ),
    ("datemultirange", &["'{(,)}'"]),
    ("pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    ("pg_snapshot", &["'10:20:10,14,15'"]),
    ("txid_snapshot", &["'10:20:10,14,15'"]),
    ("xid", &["'4294967295'"]),
    ("xid8", &["'18446744073709551615'"]),
    ("cid", &["'7'"]),
    ("tid", &["'(4294967295,65535)'", "'(0,0)'"]),
    ("int2vector", &["'1 2 3'", "''"]),
    ("oidvector", &["'1 2'", "''"]),
    ("refcursor", &["'c'"]),
    ("aclitem", &["'=r/postgres'", "'postgres=arwdDxt/postgres'"]),
    ("regclass", &["'pg_catalog.pg_class'", "'edge.mood_table'"]),
    (
        "regtype",
        &["'pg_catalog.int4'", "'edge.mood'", "'edge.mood[]'"],
    ),
    ("regproc", &["'pg_catalog.now'"]),
    ("regprocedure", &["'pg_catalog.lower(text)'"]),
    ("regoper", &["'pg_catalog.||/'"]),
    ("regoperator", &["'pg_catalog.+(int4,int4)'"]),
    ("regnamespace", &["'edge'"]),
    ("regrole", &["'postgres'"]),
    ("regconfig", &["'pg_catalog.simple'"]),
    ("regdictionary", &["'pg_catalog.simple'"]),
    ("regcollation", &["'pg_catalog.\"C\"'"]),
    (
        "int4[]",
        &[
            "'{}'",
            "'{1,NULL,3}'",
            "'[0:1][-5:-4]={{1,2},{3,4}}'",
            "'{{{1}}}'",
            // Stored with a bitmap of nulls, and without a null.
            "(array[NULL, 1, 2])[2:3]",
            "trim_array(array[1, NULL], 1)",
        ],
    ),
    (
        "text[]",
        &[
            "'{\"\",NULL,\"NULL\",\"a,b\",\"{}\",\"\\\\\\\\\",\"\\\"\"}'",
            "array[E'tab\\t', E'\\n']",
            "(array[NULL, 'a'])[2:2]",
        ],
    ),
    ("bytea[]", &["array['\\x00'::bytea, '']"]),
    (
        "timestamptz[]",
        &["array['infinity'::timestamptz, '2024-01-01 00:00+00']"],
    ),
    ("numeric[]", &["'{NaN,1.00,NULL}'"]),
    ("jsonb[]", &["array['{\"a\":\"b\"}'::jsonb, 'null', NULL]"]),
    ("edge.mood", &["'sad'", "'very, \"happy\"'"]),
    ("edge.mood[]", &["'{sad,NULL}'"]),
    (
        "edge.pair",
        &["'(,)'", "ROW(1, E'x,\"\\\\')::edge.pair", "'(1,\"\")'"],
    ),
    ("edge.pair[]", &["array[ROW(NULL, 'a')::edge.pair, NULL]"]),
    ("edge.positive", &["1", "2147483647"]),
    ("edge.positives", &["'{1,2}'"]),
    ("edge.span", &["'empty'", "'[0.5,1)'"]),
    ("edge.span_multirange", &["'{[0.5,1),(2,)}'"]),
];

const TYPES: &str = "
    CREATE SCHEMA edge;
    CREATE SCHEMA plain;
    CREATE SCHEMA worded;
    CREATE TYPE edge.mood AS ENUM ('sad', 'very, \"happy\"');
    CREATE TABLE edge.mood_table (m edge.mood);
    CREATE TYPE edge.pair AS (a int, b text);
    CREATE DOMAIN edge.positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN edge.positives AS edge.positive[];
    CREATE DOMAIN edge.code AS char(5);
    CREATE TYPE edge.span AS RANGE (subtype = float8, multirange_type_name = edge.span_multirange);";

/// Every type in two tables: one of its own (binary, where the type allows), and one whose xml column makes it text.
fn tables() -> String {
    let mut sql = TYPES.to_owned();
    for (number, (kind, values)) in VALUES.iter().enumerate() {
        let values: Vec<String> = values
            .iter()
            .map(|value| value.replace("string_agg_bytes()", "(SELECT string_agg(lpad(to_hex(b), 2, '0'), '') FROM generate_series(0, 255) b)"))
            .collect();
        sql += &format!(
            "CREATE TABLE plain.t{number} (id int PRIMARY KEY, v {kind});
             CREATE TABLE worded.t{number} (id int PRIMARY KEY, v {kind}, x xml);
             INSERT INTO plain.t{number} VALUES (0, NULL);\n"
        );
        for (id, value) in values.iter().enumerate() {
            sql += &format!(
                "INSERT INTO plain.t{number} VALUES ({}, {value});\n",
                id + 1
            );
        }
        sql += &format!("INSERT INTO worded.t{number} SELECT id, v FROM plain.t{number};\n");
    }
    sql
}

/// What shows all values, in PostgreSQL's own words.
fn show() -> String {
    let mut sql = String::new();
    for (number, (kind, _)) in VALUES.iter().enumerate() {
        for schema in ["plain", "worded"] {
            let name = format!("{schema} {kind}").replace('\'', "''");
            sql += &format!(
                "SELECT '{name}', id, v IS NULL, v::text FROM {schema}.t{number} ORDER BY id;\n"
            );
        }
    }
    sql
}

#[test]
fn every_types_edge_values_cross_in_binary_and_in_text() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(&tables()).expect("tables");
    let plan = pair
        .pgconvoy(&["plan", "--json"])
        .expect("plan runs")
        .expect(0)
        .result();
    let formats = |schema: &str, format: &str| {
        let tables = plan["tables"].as_array().expect("tables");
        tables
            .iter()
            .filter(|table| table["schema"] == schema && table["format"] == format)
            .count()
    };
    assert_eq!(formats("worded", "text"), VALUES.len());
    // reg*, tsquery, xml and user-defined types among others go as text.
    assert!(
        formats("plain", "binary") > 45 && formats("plain", "text") > 15,
        "{} binary, {} text",
        formats("plain", "binary"),
        formats("plain", "text")
    );
    pair.migrate(&[]);
    let source = pair.at_source(&show()).expect("values");
    let target = pair.at_target(&show()).expect("values");
    for (ours, theirs) in source.lines().zip(target.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(source.len(), target.len());
}

#[test]
fn padding_is_stored_as_it_was_but_does_not_travel() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TYPE mood AS ENUM ('sad');
         CREATE TABLE \"binary\" (code char(40) PRIMARY KEY, n int, filler char(300) NOT NULL, \"full\" char(3), free bpchar,
             twice char(20) GENERATED ALWAYS AS (code || code) STORED);
         CREATE TABLE worded (code char(40) PRIMARY KEY, filler char(300), m mood, last char(9));
         INSERT INTO \"binary\" SELECT 'kö ' || n, n, CASE n % 10 WHEN 0 THEN E'\\t' WHEN 1 THEN repeat('ä', 300) ELSE '' END,
             CASE WHEN n % 2 = 0 THEN 'abc' END, 'a  ' FROM generate_series(1, 5000) n;
         INSERT INTO worded SELECT 'k ' || n, CASE WHEN n % 2 = 0 THEN E'\\\\' END, 'sad', 'x' FROM generate_series(1, 5000) n;",
    )
    .expect("tables");
    pair.migrate(&["--compression", "off"]);
    let stored = "SELECT count(*), sum(hashtextextended(encode(bpcharsend(code) || bpcharsend(filler) || bpcharsend(\"full\") || bpcharsend(free)
             || bpcharsend(twice), 'hex'), 0)), min(octet_length(filler)), min(octet_length(free)) FROM \"binary\";
         SELECT count(*), sum(hashtextextended(encode(bpcharsend(code) || bpcharsend(filler) || bpcharsend(last), 'hex'), 0)),
             min(octet_length(filler)) FROM worded";
    let source = pair.at_source(stored).expect("bytes");
    assert!(source.contains("|300|3\n"), "{source}");
    assert_eq!(pair.at_target(stored).expect("bytes"), source);
    let sent = pair
        .at_target("SELECT string_agg((wire_bytes * 2 < bytes)::text, ',') FROM pgconvoy.parts")
        .expect("ledger");
    assert_eq!(sent, "true,true");
    pair.at_source("UPDATE worded SET last = 'y' WHERE code = 'k 7'; DELETE FROM \"binary\" WHERE code = 'kö 8'")
        .expect("changes");
    pair.pgconvoy(&["sync"]).expect("sync runs").expect(0);
    let source = pair.at_source(stored).expect("bytes");
    assert_eq!(pair.at_target(stored).expect("bytes"), source);
}
