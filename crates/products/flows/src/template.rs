//! Templates: how a workflow says "the category that the model gave" without being able to say anything else.
//!
//! The language is Jinja's, cut down until it is total: expressions in `{{ }}` and `{% if %}`, no loops, no assignments,
//! no macros, no includes. Each instruction runs at most once, so a template ends after as many steps as it has, and
//! fuel only guards against our own mistakes. What could still grow is data, so multiplication is refused, a tag may
//! add few texts together, and filters that build text stop at [`OUTPUT_BYTES_MAX`].
//!
//! ```text
//! "{{ steps.classify.category }}"              a whole expression keeps its type: text, number, list, object
//! "Routed to {{ steps.classify.group }}."      anything else is text
//! ```
//!
//! Undefined is an error, never an empty text: a misspelt name must not turn into a ticket without a group. The same
//! templates run inside `if` conditions, tool parameters, prompts and transforms; none of them reaches a clock, a file,
//! the network or another tenant, because none of that is in scope. Ticket text is data here: a value is never compiled.
//!
//! To add a filter: a pure function whose output is bounded by its input or by [`OUTPUT_BYTES_MAX`].

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, value};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io;
use std::sync::OnceLock;

/// Longest template, in bytes.
pub const SOURCE_BYTES_MAX: usize = 8 * 1024;
/// Most tags of one template.
pub const TAGS_MAX: usize = 128;
/// Most additions (`+`, `~`) within one tag.
pub const ADDITIONS_MAX: usize = 8;
/// Largest text or value that a template makes, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Instructions that one evaluation may take.
const FUEL: u64 = 20_000;
/// Deepest tree of templates in parameters and transforms.
const TREE_DEPTH_MAX: usize = 12;
/// Words that may follow `{%`.
const STATEMENTS: [&str; 4] = ["if", "elif", "else", "endif"];

/// Why a template cannot be used, or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not in the language; found when the workflow is published.
    #[error("the template is refused: {0}")]
    Refused(String),
    /// It failed on this data; the same data fails again.
    #[error("the template failed: {0}")]
    Failed(String),
}

/// The data that templates see, converted once per step.
#[derive(Clone)]
pub struct Scope(value::Value);

impl Scope {
    /// A scope over these names.
    pub fn new(names: &Map<String, Value>) -> Scope {
        Scope(value::Value::from(value::Serde(names)))
    }
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Environment::empty();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(64);
        env.set_formatter(|out, _, value| match value.kind() {
            ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
            ValueKind::None => Ok(()),
            ValueKind::String => out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from),
            ValueKind::Bool | ValueKind::Number => write!(out, "{value}").map_err(Error::from),
            _ => out.write_str(&json_text(value)?).map_err(Error::from),
        });
        env.add_filter("default", minijinja::filters::default);
        env.add_filter("length", minijinja::filters::length);
        env.add_filter("lower", minijinja::filters::lower);
        env.add_filter("upper", minijinja::filters::upper);
        env.add_filter("trim", minijinja::filters::trim);
        env.add_filter("first", minijinja::filters::first);
        env.add_filter("last", minijinja::filters::last);
        env.add_filter("int", minijinja::filters::int);
        env.add_filter("string", minijinja::filters::string);
        env.add_filter("tojson", |value: &value::Value| json_text(value));
        env.add_filter("join", join);
        env.add_filter("replace", replace);
        env.add_filter("truncate", truncate);
        env.add_filter("pluck", pluck);
        env.add_filter("lookup", lookup);
        env.add_filter("milli", milli);
        env.add_test("defined", minijinja::tests::is_defined);
        env.add_test("undefined", minijinja::tests::is_undefined);
        env.add_test("none", minijinja::tests::is_none);
        env.add_test("string", minijinja::tests::is_string);
        env.add_test("number", minijinja::tests::is_number);
        env.add_test("sequence", minijinja::tests::is_sequence);
        env.add_test("mapping", minijinja::tests::is_mapping);
        env
    })
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("more than {OUTPUT_BYTES_MAX} bytes"))
}

fn json_text(value: &value::Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::new(ErrorKind::BadSerialization, "not a plain value"))
}

fn join(list: &value::Value, separator: Option<&str>) -> Result<String, Error> {
    let mut out = String::new();
    for (n, item) in list.try_iter()?.enumerate() {
        if n > 0 {
            out.push_str(separator.unwrap_or_default());
        }
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&item.to_string()),
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(out)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let hits = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    if text.len() + hits.saturating_mul(to.len()) > OUTPUT_BYTES_MAX * 2 {
        return Err(too_large());
    }
    Ok(text.replace(from, to))
}

/// The first `chars` characters.
fn truncate(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// One field of every item of a list.
fn pluck(list: &value::Value, field: &str) -> Result<value::Value, Error> {
    let missing = || Error::new(ErrorKind::UndefinedError, format!("an item of the list has no {field}"));
    list.try_iter()?
        .map(|item| {
            item.get_attr(field)
                .and_then(|found| if found.is_undefined() { Err(missing()) } else { Ok(found) })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(value::Value::from)
}

/// The field `wanted` of the first item whose field `key` equals `equal`. No such item is an error.
fn lookup(list: &value::Value, key: &str, equal: &value::Value, wanted: &str) -> Result<value::Value, Error> {
    for item in list.try_iter()? {
        if item.get_attr(key)? == *equal {
            let found = item.get_attr(wanted)?;
            if !found.is_undefined() {
                return Ok(found);
            }
        }
    }
    Err(Error::new(ErrorKind::UndefinedError, format!("no item of the list has that {key}")))
}

/// A fraction between 0 and 1 in thousandths, rounded down; whole numbers and texts of fractions are accepted.
fn milli(value: &value::Value) -> Result<i64, Error> {
    let number = match value.as_str() {
        Some(text) => text.trim().parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    match number {
        Some(number) if (0.0..=1.0).contains(&number) => Ok((number * 1000.0 + 1e-9).floor() as i64),
        _ => Err(Error::new(ErrorKind::InvalidOperation, "not a fraction between 0 and 1")),
    }
}

/// What a template is, found without running it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// Names it refers to, with as many attributes as can be told: `steps.fetch.sys_id`.
    pub names: BTreeSet<String>,
}

struct Tags {
    count: usize,
    /// The one expression that is the whole template.
    whole: Option<(usize, usize)>,
}

/// Finds the tags of a template and refuses what the language does not have.
fn scan(source: &str) -> Result<Tags, TemplateError> {
    let refused = |why: &str| Err(TemplateError::Refused(why.to_owned()));
    if source.len() > SOURCE_BYTES_MAX {
        return refused("it is longer than 8 KiB");
    }
    // Wherever they stand, inside a text or not: a statement always begins with these two characters.
    for (at, _) in source.match_indices("{%") {
        let rest = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        if !STATEMENTS.contains(&word) {
            return refused("of statements only `if`, `elif`, `else` and `endif` exist");
        }
    }
    let bytes = source.as_bytes();
    let (mut at, mut tags) = (0, Tags { count: 0, whole: None });
    while let Some(found) = source[at..].find('{').map(|offset| at + offset) {
        let close: &[u8] = match bytes.get(found + 1) {
            Some(b'{') => b"}}",
            Some(b'%') => b"%}",
            Some(b'#') => {
                let Some(end) = source[found + 2..].find("#}") else {
                    return refused("a comment does not end");
                };
                at = found + 2 + end + 2;
                continue;
            }
            _ => {
                at = found + 1;
                continue;
            }
        };
        let (mut end, mut quote, mut additions) = (found + 2, None, 0);
        loop {
            match (bytes.get(end), quote) {
                (None, _) => return refused("a tag does not end"),
                (Some(b'\\'), Some(_)) => end += 1,
                (Some(byte), Some(open)) if *byte == open => quote = None,
                (Some(_), Some(_)) => {}
                (Some(byte @ (b'"' | b'\'')), None) => quote = Some(*byte),
                (Some(b'*'), None) => return refused("there is no multiplication"),
                (Some(b'+' | b'~'), None) => additions += 1,
                (Some(_), None) if bytes[end..].starts_with(close) => break,
                (Some(_), None) => {}
            }
            end += 1;
        }
        if additions > ADDITIONS_MAX {
            return refused("a tag adds more than 8 times");
        }
        tags.count += 1;
        if tags.count > TAGS_MAX {
            return refused("it has more than 128 tags");
        }
        at = end + 2;
        if close == b"}}" && source[..found].trim().is_empty() && source[at..].trim().is_empty() {
            tags.whole = Some((found + 2, end));
        }
    }
    Ok(tags)
}

/// The expression without the marks of white space, one on each side: in `{{--n}}` the second dash is the sign of `n`.
fn whole(source: &str, tags: &Tags) -> Option<String> {
    let (from, to) = tags.whole?;
    let inner = &source[from..to];
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(inner.strip_suffix(['-', '+']).unwrap_or(inner).trim().to_owned())
}

fn refusal(error: &Error) -> TemplateError {
    TemplateError::Refused(error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

fn failure(error: &Error) -> TemplateError {
    // Only the kind and our own filters' words: an engine's detail may quote a value.
    let detail = match error.kind() {
        ErrorKind::UndefinedError => error.detail().unwrap_or("a name in it is undefined").to_owned(),
        kind => kind.to_string(),
    };
    TemplateError::Failed(detail)
}

/// Compiles a template and says what it refers to.
pub fn shape(source: &str) -> Result<Shape, TemplateError> {
    let tags = scan(source)?;
    if tags.count == 0 {
        return Ok(Shape::default());
    }
    if let Some(expression) = whole(source, &tags) {
        return condition_shape(&expression);
    }
    let template = environment().template_from_str(source).map_err(|error| refusal(&error))?;
    Ok(Shape { names: template.undeclared_variables(true).into_iter().collect() })
}

/// Compiles a bare expression, as in `when`, and says what it refers to.
pub fn condition_shape(expression: &str) -> Result<Shape, TemplateError> {
    scan(&format!("{{{{ {expression} }}}}"))?;
    let compiled = environment().compile_expression(expression).map_err(|error| refusal(&error))?;
    Ok(Shape { names: compiled.undeclared_variables(true).into_iter().collect() })
}

/// The shapes of every template in a tree of values, put together.
pub fn tree_shape(tree: &Value) -> Result<Shape, TemplateError> {
    fn walk(tree: &Value, depth: usize, names: &mut BTreeSet<String>) -> Result<(), TemplateError> {
        if depth > TREE_DEPTH_MAX {
            return Err(TemplateError::Refused("it is nested deeper than 12 levels".into()));
        }
        match tree {
            Value::String(text) => names.extend(shape(text)?.names),
            Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1, names))?,
            Value::Object(members) => members.values().try_for_each(|item| walk(item, depth + 1, names))?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }
    let mut names = BTreeSet::new();
    walk(tree, 0, &mut names)?;
    Ok(Shape { names })
}

/// Whether a text has a tag in it: its value is known only when it runs.
pub fn is_dynamic(source: &str) -> bool {
    scan(source).is_ok_and(|tags| tags.count > 0)
}

/// Makes a text.
pub fn text(source: &str, scope: &Scope) -> Result<String, TemplateError> {
    if !source.contains('{') {
        return Ok(source.to_owned());
    }
    scan(source)?;
    let template = environment().template_from_str(source).map_err(|error| refusal(&error))?;
    let mut out = Capped(Vec::new());
    template.render_captured_to(scope.0.clone(), &mut out).map_err(|error| failure(&error))?;
    String::from_utf8(out.0).map_err(|_| TemplateError::Failed("it made no text".into()))
}

/// Evaluates a condition; anything but true or false is an error.
pub fn condition(expression: &str, scope: &Scope) -> Result<bool, TemplateError> {
    let result = evaluate(expression, scope)?;
    match result.kind() {
        ValueKind::Bool => Ok(result.is_true()),
        _ => Err(TemplateError::Failed("a condition is neither true nor false".into())),
    }
}

fn evaluate(expression: &str, scope: &Scope) -> Result<value::Value, TemplateError> {
    scan(&format!("{{{{ {expression} }}}}"))?;
    let compiled = environment().compile_expression(expression).map_err(|error| refusal(&error))?;
    compiled.eval(scope.0.clone()).map_err(|error| failure(&error))
}

/// Makes a value of a template: its own type for a whole expression, text otherwise.
pub fn value(source: &str, scope: &Scope) -> Result<Value, TemplateError> {
    if !source.contains('{') {
        return Ok(Value::from(source));
    }
    let tags = scan(source)?;
    let Some(expression) = whole(source, &tags) else { return text(source, scope).map(Value::from) };
    let result = evaluate(&expression, scope)?;
    if result.is_undefined() {
        return Err(TemplateError::Failed("a name in it is undefined".into()));
    }
    let text = json_text(&result).map_err(|error| failure(&error))?;
    if text.len() > OUTPUT_BYTES_MAX {
        return Err(TemplateError::Failed(format!("more than {OUTPUT_BYTES_MAX} bytes")));
    }
    serde_json::from_str(&text)
        .map(whole_numbers)
        .map_err(|_| TemplateError::Failed("not a plain value".into()))
}

/// Makes a tree of values of a tree of templates. A member whose template says `{{ none }}` stays, as null.
pub fn tree(tree_of_templates: &Value, scope: &Scope) -> Result<Value, TemplateError> {
    fn walk(tree: &Value, scope: &Scope, depth: usize) -> Result<Value, TemplateError> {
        if depth > TREE_DEPTH_MAX {
            return Err(TemplateError::Failed("nested deeper than 12 levels".into()));
        }
        Ok(match tree {
            Value::String(source) => value(source, scope)?,
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| walk(item, scope, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), walk(item, scope, depth + 1)?)))
                    .collect::<Result<_, TemplateError>>()?,
            ),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain.clone(),
        })
    }
    walk(tree_of_templates, scope, 0)
}

/// Writes numbers with a fraction, and whole numbers beyond 2⁵³, as text: digests know no others.
pub fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.abs() < 1 << 53 => Value::from(whole),
            _ => Value::from(number.to_string()),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(whole_numbers).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(key, item)| (key, whole_numbers(item))).collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::String(_)) => plain,
    }
}

/// A writer that ends at [`OUTPUT_BYTES_MAX`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("more than the largest output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let names = json!({
            "event": {"number": "INC1", "text": "{{ event.number }} {% for x in y %}"},
            "steps": {
                "classify": {"group": "Network", "confidence": "0.8671", "sure": true, "n": 7},
                "groups": {"items": [{"name": "Network", "sys_id": "a1"}, {"name": "Mail", "sys_id": "b2"}]},
            },
            "big": "x".repeat(60_000),
        });
        let Value::Object(names) = names else { unreachable!() };
        Scope::new(&names)
    }

    #[test]
    fn a_whole_expression_keeps_its_type_and_the_rest_is_text() {
        for (source, expected) in [
            ("{{ steps.classify.n }}", json!(7)),
            (" {{- steps.classify.sure -}} ", json!(true)),
            ("{{--steps.classify.n-}}", json!(-7)),
            ("{{+steps.classify.n+}}", json!(7)),
            ("{{ steps.groups.items | pluck('name') }}", json!(["Network", "Mail"])),
            ("{{ steps.groups.items | lookup('name', steps.classify.group, 'sys_id') }}", json!("a1")),
            ("{{ steps.classify.confidence | milli }}", json!(867)),
            ("n={{ steps.classify.n }}", json!("n=7")),
            ("{% if steps.classify.n > 5 %}high{% else %}low{% endif %}", json!("high")),
            ("{{ steps.classify.missing | default('none') }}", json!("none")),
            ("{{ steps.groups.items | pluck('name') | join(', ') }}", json!("Network, Mail")),
            ("{{ none }}", Value::Null),
            ("{{ 1 / 2 }}", json!("0.5")),
            ("{{ {'a': [1, 'b']} }}", json!({"a": [1, "b"]})),
            ("{{ event.number[:2] | lower }}", json!("in")),
            ("plain { text } 100%", json!("plain { text } 100%")),
            // Text from a ticket is data; what it holds is never evaluated.
            ("{{ event.text }}", json!("{{ event.number }} {% for x in y %}")),
            ("> {{ event.text }}", json!("> {{ event.number }} {% for x in y %}")),
        ] {
            assert_eq!(value(source, &scope()), Ok(expected), "{source}");
        }
    }

    #[test]
    fn c08_what_is_not_in_the_language_is_refused() {
        let many = "{{ a }}".repeat(TAGS_MAX + 1);
        let long = "x".repeat(SOURCE_BYTES_MAX + 1);
        for source in [
            "{% for x in [1] %}{{ x }}{% endfor %}",
            "{%- set a = 1 %}",
            "{% with a = 1 %}{% endwith %}",
            "{% macro m() %}{% endmacro %}",
            "{% include 'x' %}",
            "{% import 'x' as y %}",
            "{% raw %}{% endraw %}",
            "{% filter upper %}x{% endfilter %}",
            "{{ '{% set a = 1 %}' }}",
            "{{ 'a' * 1000000 }}",
            "{{ 2 ** 62 }}",
            "{{ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a }}",
            "{{ a",
            "{{ a }",
            "{{ 'a }}",
            "{# never ends",
            "{{ a | nosuchfilter }}",
            "{{ a is nosuchtest }}",
            "{{ 1 + }}",
            many.as_str(),
            long.as_str(),
        ] {
            let at_publish = shape(source);
            let when_run = value(source, &scope());
            assert!(at_publish.is_err() || when_run.is_err(), "{source}: {at_publish:?} {when_run:?}");
        }
    }

    #[test]
    fn nothing_outside_its_data_is_in_scope() {
        for source in [
            "{{ range(9) }}",
            "{{ debug() }}",
            "{{ self }}",
            "{{ namespace() }}",
            "{{ ''.__class__ }}",
            "{{ event.number.__class__.__mro__ }}",
            "{{ event.constructor }}",
            "{{ lipsum }}",
            "{{ env.HOME }}",
            "{{ steps.typo.category }}",
            "{{ steps.classify.typo }}",
            "n={{ steps.classify.typo }}",
            "{{ event.number() }}",
            "{{ event.number.format(1) }}",
        ] {
            assert!(value(source, &scope()).is_err(), "{source}");
        }
        assert_eq!(text("${HOME} $(id) `id`", &scope()), Ok("${HOME} $(id) `id`".into()));
    }

    #[test]
    fn output_is_bounded() {
        for source in [
            "{{ big }}{{ big }}",
            "{{ big ~ big }}",
            "{{ big | replace('x', big) }}",
            "{{ [big, big] | join }}",
            "{{ [big, big] }}",
        ] {
            assert!(value(source, &scope()).is_err(), "{source}");
        }
        assert!(value("{{ big }}", &scope()).is_ok());
    }

    #[test]
    fn conditions_are_true_or_false_and_nothing_else() {
        assert_eq!(
            condition("steps.classify.n >= 7 and 'net' in (steps.classify.group | lower)", &scope()),
            Ok(true)
        );
        assert_eq!(condition("steps.skipped is defined", &scope()), Ok(false));
        for bad in ["steps.classify.n", "''", "steps.classify.typo", "steps.skipped.x", "none"] {
            assert!(condition(bad, &scope()).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_name_what_is_referred_to() {
        let names = |source| shape(source).unwrap().names.into_iter().collect::<Vec<_>>();
        assert_eq!(
            names("{{ steps.a.b }} and {{ event.c | default(run.id) }}"),
            ["event.c", "run.id", "steps.a.b"]
        );
        assert_eq!(names("no tags"), Vec::<String>::new());
        let tree = json!({"a": ["{{ steps.x.y }}", 1, null], "b": {"c": "{{ event.d }}"}});
        assert_eq!(
            tree_shape(&tree).unwrap().names.into_iter().collect::<Vec<_>>(),
            ["event.d", "steps.x.y"]
        );
    }

    #[test]
    fn failures_do_not_quote_data() {
        let error = value("{{ event.text | int }}", &scope()).unwrap_err().to_string();
        assert!(!error.contains("event.number"), "{error}");
    }
}
