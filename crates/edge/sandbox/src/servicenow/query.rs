//! Encoded queries (`sysparm_query`): `state=1^priority<=2^ORpriority=5^ORDERBYDESCsys_updated_on`.
//!
//! A query is conditions joined by `^` (and) and `^OR` (or with the condition before it), cut into
//! alternatives by `^NQ`. An operator is not separated from its field, so a field is lower-case letters,
//! digits, `_` and `.`, and the operator is what follows.
//!
//! A condition that is not understood, or whose field does not exist, is *dropped*, and the rest of the query
//! is run: a typing error may return the whole table. That is the vendor's default and a trap worth having;
//! `glide.invalid_query.returns_no_rows` turns it off. Values are taken as they stand (`javascript:` is not
//! evaluated); text compares without regard to case, as on the vendor's databases.

use std::cmp::Ordering;

use super::schema::Kind;

/// Most conditions of one query; more are refused with 400.
pub const MAX_CONDITIONS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Like,
    NotLike,
    StartsWith,
    EndsWith,
    In,
    NotIn,
    IsEmpty,
    IsNotEmpty,
}

/// Spellings, those that are the beginning of another one last.
const OPERATORS: &[(&str, Operator)] = &[
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("DOES NOT CONTAIN", Operator::NotLike),
    ("CONTAINS", Operator::Like),
    ("NOT LIKE", Operator::NotLike),
    ("LIKE", Operator::Like),
    ("STARTSWITH", Operator::StartsWith),
    ("ENDSWITH", Operator::EndsWith),
    ("NOT IN", Operator::NotIn),
    ("ISNOTEMPTY", Operator::IsNotEmpty),
    ("ISEMPTY", Operator::IsEmpty),
    ("IN", Operator::In),
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub field: String,
    pub operator: Operator,
    /// Lower case.
    pub value: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub field: String,
    pub descending: bool,
}

/// Alternatives of clauses of conditions: any alternative, all of its clauses, any condition of a clause.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub alternatives: Vec<Vec<Vec<Condition>>>,
    pub order: Vec<Order>,
    /// Whether something was dropped.
    pub invalid: bool,
}

/// More than [`MAX_CONDITIONS`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Query {
    /// `known` says whether a field exists.
    pub fn parse(text: &str, known: impl Fn(&str) -> bool) -> Result<Query, TooLong> {
        let mut query = Query { alternatives: vec![Vec::new()], ..Query::default() };
        let mut conditions = 0;
        // Whether the condition before was dropped: an `^OR` to it then stands alone.
        let mut dangling = true;
        for token in text.split('^').filter(|token| !token.is_empty() && *token != "EQ") {
            if let Some(field) = token.strip_prefix("ORDERBYDESC") {
                query.order_by(field, true, &known);
                continue;
            }
            if let Some(field) = token.strip_prefix("ORDERBY") {
                query.order_by(field, false, &known);
                continue;
            }
            let (or, new_query, rest) = match (token.strip_prefix("OR"), token.strip_prefix("NQ")) {
                (Some(rest), _) => (true, false, rest),
                (None, Some(rest)) => (false, true, rest),
                (None, None) => (false, false, token),
            };
            if new_query {
                query.alternatives.push(Vec::new());
            }
            let Some(condition) = condition(rest).filter(|condition| known(&condition.field)) else {
                query.invalid = true;
                dangling = true;
                continue;
            };
            conditions += 1;
            if conditions > MAX_CONDITIONS {
                return Err(TooLong);
            }
            // There is always a last alternative: the list starts with one and only grows.
            let clauses = query.alternatives.last_mut().ok_or(TooLong)?;
            match clauses.last_mut() {
                Some(clause) if or && !dangling => clause.push(condition),
                _ => clauses.push(vec![condition]),
            }
            dangling = false;
        }
        Ok(query)
    }

    fn order_by(&mut self, field: &str, descending: bool, known: impl Fn(&str) -> bool) {
        if known(field) && self.order.len() < MAX_CONDITIONS {
            self.order.push(Order { field: field.to_owned(), descending });
        } else {
            self.invalid = true;
        }
    }

    /// Whether a record matches; `value` gives a field's kind and raw value.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<(Kind, &'a str)>) -> bool {
        let holds = |condition: &Condition| {
            value(&condition.field).is_some_and(|(kind, found)| condition.holds(kind, found))
        };
        self.alternatives.iter().any(|clauses| clauses.iter().all(|clause| clause.iter().any(holds)))
    }
}

fn condition(text: &str) -> Option<Condition> {
    let field_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
    let end = text.bytes().take_while(|byte| field_char(*byte)).count();
    let (field, rest) = text.split_at(end);
    let (spelling, operator) = OPERATORS.iter().find(|(spelling, _)| rest.starts_with(spelling))?;
    if field.is_empty() {
        return None;
    }
    let value = rest[spelling.len()..].trim_start_matches(|c: char| {
        // Word operators may be followed by one space, as in `name LIKE x`; symbols are not.
        c == ' ' && spelling.as_bytes()[0].is_ascii_uppercase()
    });
    Some(Condition { field: field.to_owned(), operator: *operator, value: value.to_lowercase() })
}

impl Condition {
    fn holds(&self, kind: Kind, found: &str) -> bool {
        let found = found.to_lowercase();
        let value = self.value.as_str();
        let is_in = |list: &str| list.split(',').any(|item| item.trim() == found);
        match self.operator {
            Operator::Equal => found == value,
            Operator::NotEqual => found != value,
            Operator::Greater => compare(kind, &found, value) == Ordering::Greater,
            Operator::GreaterOrEqual => compare(kind, &found, value) != Ordering::Less,
            Operator::Less => compare(kind, &found, value) == Ordering::Less,
            Operator::LessOrEqual => compare(kind, &found, value) != Ordering::Greater,
            Operator::Like => found.contains(value),
            Operator::NotLike => !found.contains(value),
            Operator::StartsWith => found.starts_with(value),
            Operator::EndsWith => found.ends_with(value),
            Operator::In => is_in(value),
            Operator::NotIn => !is_in(value),
            Operator::IsEmpty => found.is_empty(),
            Operator::IsNotEmpty => !found.is_empty(),
        }
    }
}

/// Numbers by value where both are numbers and the field is one (choices of this schema count), else text.
/// Date-times compare as text, which is their order.
pub(crate) fn compare(kind: Kind, left: &str, right: &str) -> Ordering {
    let numeric = matches!(kind, Kind::Integer | Kind::Choice(_));
    match (left.parse::<i64>(), right.parse::<i64>()) {
        (Ok(left), Ok(right)) if numeric => left.cmp(&right),
        _ => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, MAX_CONDITIONS, Query};

    const RECORD: &[(&str, Kind, &str)] = &[
        ("number", Kind::Text(40), "INC0010002"),
        ("priority", Kind::Choice(&[]), "3"),
        ("sys_mod_count", Kind::Integer, "12"),
        ("short_description", Kind::Text(160), "Printer on fire"),
        ("sys_updated_on", Kind::DateTime, "2026-11-21 03:41:12"),
        ("correlation_id", Kind::Text(100), ""),
    ];

    fn value(name: &str) -> Option<(Kind, &'static str)> {
        RECORD.iter().find(|(field, ..)| *field == name).map(|(_, kind, value)| (*kind, *value))
    }

    fn parse(text: &str) -> Query {
        Query::parse(text, |field| value(field).is_some()).expect("short enough")
    }

    #[test]
    fn operators_and_joins() {
        for (text, matches, invalid) in [
            ("", true, false),
            ("number=INC0010002", true, false),
            ("number=inc0010002", true, false),
            ("number!=INC0010002", false, false),
            ("priority<=3", true, false),
            ("sys_mod_count>9", true, false),
            ("sys_mod_count<9", false, false),
            ("sys_updated_on>=2026-11-21 03:00:00^sys_updated_on<2026-11-21 04:00:00", true, false),
            ("short_descriptionLIKEFIRE", true, false),
            ("short_descriptionCONTAINSwater", false, false),
            ("short_descriptionDOES NOT CONTAINwater", true, false),
            ("short_descriptionSTARTSWITHprint", true, false),
            ("short_descriptionENDSWITHprint", false, false),
            ("priorityIN1,3", true, false),
            ("priorityNOT IN1,3", false, false),
            ("correlation_idISEMPTY", true, false),
            ("correlation_idISNOTEMPTY", false, false),
            ("priority=1^ORpriority=3^sys_mod_count=12", true, false),
            ("priority=1^ORpriority=3^sys_mod_count=13", false, false),
            ("priority=1^NQpriority=3", true, false),
            ("priority=1^NQpriority=2", false, false),
            ("priority=3^EQ", true, false),
            // What is not understood is dropped, and the rest stands.
            ("no_such_field=1", true, true),
            ("no_such_field=1^priority=1", false, true),
            ("no_such_field=1^ORpriority=1", false, true),
            ("priority~3", true, true),
            ("=3", true, true),
            ("AAAA=BBBB^priority=3", true, true),
            ("ORDERBYno_such_field", true, true),
        ] {
            let query = parse(text);
            assert_eq!((query.matches(value), query.invalid), (matches, invalid), "{text}");
        }
    }

    #[test]
    fn order_is_kept_apart_from_conditions() {
        let query = parse("priority=3^ORDERBYnumber^ORDERBYDESCsys_updated_on");
        let order: Vec<_> = query.order.iter().map(|by| (by.field.as_str(), by.descending)).collect();
        assert_eq!(order, [("number", false), ("sys_updated_on", true)]);
    }

    #[test]
    fn conditions_are_bounded_but_dropped_ones_are_free() {
        let many = |condition: &str, times: usize| vec![condition; times].join("^");
        assert!(Query::parse(&many("priority=3", MAX_CONDITIONS), |_| true).is_ok());
        assert!(Query::parse(&many("priority=3", MAX_CONDITIONS + 1), |_| true).is_err());
        assert!(Query::parse(&many("AAAA=BBBB", 2_300), |_| true).is_ok());
    }
}
