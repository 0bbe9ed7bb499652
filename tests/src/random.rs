//! Random tables and random changes of them, from a seed that a failing test prints.
use std::fmt::Write as _;

/// xorshift64*: the same numbers for the same seed, everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// A type, and an expression of it over the number `#`; unequal numbers give unequal values where it is said so.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: &'static str,
    value: &'static str,
    distinct: bool,
}

const fn of(name: &'static str, value: &'static str, distinct: bool) -> Type {
    Type {
        name,
        value,
        distinct,
    }
}

const TYPES: &[Type] = &[
    of("int", "(#)::int", true),
    of("bigint", "(#)::bigint * 4294967297", true),
    of("text", "chr(8364) || md5((#)::text) || E'\\t\\\\'", true),
    of("uuid", "md5((#)::text)::uuid", true),
    of("numeric", "(#)::numeric / 8", true),
    of(
        "timestamptz",
        "'2026-01-01'::timestamptz + (#) * interval '1 minute'",
        true,
    ),
    of("date", "'2000-01-01'::date + (#)::int", true),
    of("bytea", "decode(md5((#)::text), 'hex')", true),
    of("text[]", "ARRAY[(#)::text, NULL, 'a,\"b']", true),
    of("mood", "(enum_range(NULL::mood))[1 + (#) % 3]", false),
    of("bool", "(#) % 2 = 0", false),
    of("jsonb", "jsonb_build_object('k', (#), 'n', NULL)", false),
    of("float8", "(#)::float8 / 3", false),
    of("interval", "(#) * interval '1 day 1 second'", false),
    of("inet", "('10.0.0.0'::inet + (#))", false),
    of("int4range", "int4range((#)::int, (#)::int + 5)", false),
    of("xml", "('<a>' || (#) || '</a>')::xml", false),
    of("pair", "ROW((#)::int, 'x')::pair", false),
];

/// Before the tables.
pub const TYPES_SQL: &str =
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE pair AS (a int, b text);";

#[derive(Debug)]
pub struct Table {
    name: String,
    /// Columns k0, k1...
    key: Vec<Type>,
    /// Columns v0, v1...
    values: Vec<Type>,
    /// Column u, unique, that changes places.
    unique: bool,
    rows: u64,
}

impl Table {
    pub fn new(name: &str, random: &mut Random) -> Self {
        let distinct: Vec<Type> = TYPES.iter().copied().filter(|t| t.distinct).collect();
        let key = (0..random.below(4))
            .map(|_| *random.of(&distinct))
            .collect();
        let values = (0..1 + random.below(5))
            .map(|_| *random.of(TYPES))
            .collect();
        Self {
            name: name.to_owned(),
            key,
            values,
            unique: random.below(2) == 0,
            rows: 1 + random.below(600),
        }
    }

    /// CREATE TABLE, and its first rows.
    pub fn sql(&self) -> String {
        let mut columns = Vec::new();
        columns.extend(
            self.key
                .iter()
                .enumerate()
                .map(|(n, t)| format!("k{n} {}", t.name)),
        );
        columns.extend(
            self.values
                .iter()
                .enumerate()
                .map(|(n, t)| format!("v{n} {}", t.name)),
        );
        if self.unique {
            columns.push("u bigint UNIQUE".into());
        }
        if !self.key.is_empty() {
            let key: Vec<String> = (0..self.key.len()).map(|n| format!("k{n}")).collect();
            columns.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        let name = &self.name;
        let mut sql = format!("CREATE TABLE {name} ({});\n", columns.join(", "));
        sql += &self.insert(0, self.rows);
        sql
    }

    /// Rows of the numbers from `first` on.
    fn insert(&self, first: u64, count: u64) -> String {
        let types = self.key.iter().chain(&self.values);
        let mut values: Vec<String> = types.map(|t| t.value.replace('#', "i")).collect();
        if self.unique {
            values.push("i".into());
        }
        format!(
            "INSERT INTO {} SELECT {} FROM generate_series({first}::bigint, {}) i ON CONFLICT DO NOTHING;\n",
            self.name,
            values.join(", "),
            first + count - 1
        )
    }

    /// Some of the rows.
    fn some(&self, random: &mut Random) -> String {
        format!(
            "ctid IN (SELECT ctid FROM {} ORDER BY ctid OFFSET {} LIMIT {})",
            self.name,
            random.below(self.rows),
            1 + random.below(12)
        )
    }

    /// One change, as SQL.
    pub fn change(&self, random: &mut Random) -> String {
        let name = &self.name;
        let number = random.below(1 << 20);
        let mut sql = String::new();
        // Writing to a string cannot fail.
        let _ = match random.below(40) {
            0..8 => {
                let (first, count) = (10_000 + number, 1 + random.below(10));
                write!(sql, "{}", self.insert(first, count))
            }
            8..16 => write!(sql, "DELETE FROM {name} WHERE {};", self.some(random)),
            16..30 => {
                let at = random.below(self.values.len() as u64) as usize;
                let value = match random.below(5) {
                    0 => "NULL".to_owned(),
                    _ => self.values[at].value.replace('#', &format!("({number}::bigint)")),
                };
                write!(sql, "UPDATE {name} SET v{at} = {value} WHERE {};", self.some(random))
            }
            30..34 if !self.key.is_empty() => {
                // The key of one row becomes another one.
                let value = self.key[0].value.replace('#', &format!("({}::bigint)", 5_000_000 + number));
                let row = format!(
                    "(SELECT ctid FROM {name} ORDER BY ctid OFFSET {} LIMIT 1)",
                    random.below(self.rows)
                );
                write!(sql, "UPDATE {name} SET k0 = {value} WHERE ctid = {row};")
            }
            34..38 if self.unique => write!(
                sql,
                "UPDATE {name} SET u = -u - 1 WHERE u IN ({0}, {1}) AND u >= 0;
                 UPDATE {name} SET u = CASE u WHEN -{0} - 1 THEN {1} ELSE {0} END WHERE u IN (-{0} - 1, -{1} - 1);",
                number % self.rows,
                (number / 7) % self.rows
            ),
            38 if self.key.is_empty() && !self.unique => {
                write!(sql, "INSERT INTO {name} SELECT * FROM {name} WHERE {};", self.some(random))
            }
            39 if number.is_multiple_of(8) => write!(sql, "TRUNCATE {name};"),
            _ => write!(sql, "{}", self.insert(random.below(self.rows), 3)),
        };
        sql
    }
}
