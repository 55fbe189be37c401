//! The commands, read from the contract.
//!
//! Every route of the API is a command: `POST /v1/approvals/{approval}/grant` with operation `approval_grant` is `writ
//! approval grant APPROVAL`. Path parameters are positional, query parameters and members of the body are options, and an
//! option's type is the schema's. So a route that is added to a domain's table has its command on the same day, and the
//! word for a thing is the same in the table, the API and the shell.

use crate::output::note;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command};
use http::Method;
use serde_json::{Map, Value};

/// The contract that this binary was built with.
const OPENAPI: &str = include_str!("../../../../contracts/openapi.json");

/// The switch that prints the entity tag of what is shown.
pub const ETAG: &str = "etag";
/// The option that makes an act depend on one.
pub const IF_MATCH: &str = "if-match";

/// What a member of the body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text; `@file` reads it from a file.
    Text,
    /// An integer.
    Integer,
    /// A switch.
    Boolean,
    /// A list of texts; the option is repeated.
    Texts,
    /// Anything else, written as JSON; `@file` reads it from a file.
    Json,
}

/// A parameter or member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name in the API.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// One line.
    pub help: String,
    /// The words that it may be, where there are only a few.
    pub words: Vec<String>,
}

/// A route as a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `approval`
    pub noun: String,
    /// `grant`
    pub verb: String,
    /// Method.
    pub method: Method,
    /// Path template.
    pub path: String,
    /// One line.
    pub summary: String,
    /// Path parameters.
    pub positional: Vec<Field>,
    /// Query parameters.
    pub query: Vec<Field>,
    /// Members of the body.
    pub body: Vec<Field>,
    /// Whether it reads one record, which has an entity tag.
    pub tagged: bool,
    /// Whether it is an act that can be made to depend on such a tag.
    pub conditional: bool,
}

impl Operation {
    /// The option with which a list goes on behind what was shown; `None`: that was all.
    pub fn leads_on(&self, shown: &Value) -> Option<String> {
        let place = shown["next"].as_str()?;
        let takes = |name: &&&str| self.query.iter().any(|field| field.name == **name);
        // What comes out of a server goes onto a terminal.
        ["after", "before"].iter().find(takes).map(|name| format!("--{name} {}", crate::output::clean(place)))
    }
}

/// Every operation of the contract that is a command: all but receivers of deliveries and live streams.
pub fn operations() -> Vec<Operation> {
    let contract: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    let mut operations = Vec::new();
    for (path, methods) in contract["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let (Ok(method), Some(id)) =
                (method.to_uppercase().parse::<Method>(), operation["operationId"].as_str())
            else {
                continue;
            };
            let streams = operation["responses"]["200"]["content"]["text/event-stream"].is_object();
            if !path.starts_with("/v1/") || streams || path.starts_with("/v1/hooks/") {
                continue;
            }
            let (noun, verb) = name(path, id);
            let parameters = |place: &str| -> Vec<Field> {
                operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == place)
                    .filter(|parameter| parameter["name"] != "last_event_id")
                    .map(|parameter| Field {
                        name: parameter["name"].as_str().unwrap_or_default().to_owned(),
                        kind: Kind::Text,
                        required: parameter["required"] == true,
                        help: parameter["description"].as_str().unwrap_or_default().to_owned(),
                        words: Vec::new(),
                    })
                    .collect()
            };
            let positional = parameters("path");
            let mut body =
                body(&contract, &operation["requestBody"]["content"]["application/json"]["schema"]);
            body.retain(|field| positional.iter().all(|parameter| parameter.name != field.name));
            let header = |name: &str| {
                operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|parameter| parameter["name"] == name)
            };
            operations.push(Operation {
                tagged: operation["responses"]["200"]["headers"]["ETag"].is_object(),
                conditional: header("If-Match"),
                noun,
                verb,
                method,
                path: path.clone(),
                summary: operation["summary"].as_str().unwrap_or_default().to_owned(),
                positional,
                query: parameters("query"),
                body,
            });
        }
    }
    operations
}

/// Noun and verb of an operation. The noun is the path's first word in the singular where the operation agrees.
fn name(path: &str, operation: &str) -> (String, String) {
    let first = path.trim_start_matches("/v1/").split('/').next().unwrap_or_default();
    let singular = first.strip_suffix('s').unwrap_or(first).replace('-', "_");
    let (noun, verb) = operation
        .strip_prefix(&format!("{singular}_"))
        .map(|verb| (singular.as_str(), verb))
        .or_else(|| operation.rsplit_once('_'))
        .unwrap_or((operation, "do"));
    (noun.replace('_', "-"), verb.replace('_', "-"))
}

fn body(contract: &Value, schema: &Value) -> Vec<Field> {
    let schema = resolve(contract, schema, schema);
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
    };
    schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let found = resolve(contract, schema, property);
            Field {
                name: name.clone(),
                kind: kind(found),
                required: required(name),
                help: property["description"].as_str().unwrap_or_default().replace('\n', " "),
                words: words(found),
            }
        })
        .collect()
}

/// The words of an enumeration.
fn words(schema: &Value) -> Vec<String> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let constants = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    listed.chain(constants).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Follows one reference, into the contract's components or the schema's own definitions.
fn resolve<'a>(contract: &'a Value, schema: &'a Value, value: &'a Value) -> &'a Value {
    let Some(pointer) = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) else {
        return value;
    };
    contract.pointer(pointer).or_else(|| schema.pointer(pointer)).unwrap_or(value)
}

fn kind(schema: &Value) -> Kind {
    let is = |name: &str| match &schema["type"] {
        Value::String(kind) => kind == name,
        Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    if is("string")
        || schema["enum"].is_array()
        || schema["oneOf"].as_array().is_some_and(|all| all.iter().all(|one| one["const"].is_string()))
    {
        Kind::Text
    } else if is("integer") {
        Kind::Integer
    } else if is("boolean") {
        Kind::Boolean
    } else if is("array") && schema["items"]["type"] == "string" {
        Kind::Texts
    } else {
        Kind::Json
    }
}

/// The options of an operation.
pub fn command(operation: &Operation) -> Command {
    let mut command = Command::new(operation.verb.clone()).about(operation.summary.clone());
    for field in &operation.positional {
        command = command.arg(Arg::new(field.name.clone()).required(true).help(field.help.clone()));
    }
    for field in operation.query.iter().chain(&operation.body) {
        let arg = Arg::new(field.name.clone()).long(field.name.replace('_', "-")).help(field.help.clone());
        let arg = match field.kind {
            Kind::Boolean => {
                // `--dry-run` alone says yes.
                let arg = arg.num_args(0..=1).default_missing_value("true").value_name("true|false");
                arg.action(ArgAction::Set).value_parser(clap::value_parser!(bool))
            }
            Kind::Integer => {
                arg.value_parser(clap::value_parser!(i64)).value_name("N").allow_negative_numbers(true)
            }
            Kind::Texts => arg.action(ArgAction::Append).value_name("TEXT"),
            Kind::Text if !field.words.is_empty() => {
                arg.value_parser(PossibleValuesParser::new(&field.words))
            }
            Kind::Text => arg.value_name("TEXT|@FILE"),
            Kind::Json => arg.value_name("JSON|@FILE"),
        };
        command = command.arg(arg.required(field.required));
    }
    if operation.tagged {
        command = command.arg(
            Arg::new(ETAG)
                .long(ETAG)
                .action(ArgAction::SetTrue)
                .help("Print only the entity tag of what is shown, for --if-match"),
        );
    }
    if operation.conditional {
        command = command.arg(
            Arg::new(IF_MATCH)
                .long(IF_MATCH)
                .value_name("TAG")
                .help("Act only if it is still as this entity tag says; * for: only if it is there"),
        );
    }
    command
}

/// Path, query and body of a call from the options given.
pub fn fill(
    operation: &Operation,
    matches: &clap::ArgMatches,
) -> Result<(String, Vec<(String, String)>, Option<Value>), String> {
    let mut path = operation.path.clone();
    for field in &operation.positional {
        let value = matches.get_one::<String>(&field.name).cloned().unwrap_or_default();
        if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            || value.is_empty()
        {
            return Err(format!("{:?} is no {}", value, field.name));
        }
        path = path.replace(&format!("{{{}}}", field.name), &value);
    }
    let mut query = Vec::new();
    for field in &operation.query {
        if let Some(value) = matches.get_one::<String>(&field.name) {
            query.push((field.name.clone(), value.clone()));
        }
    }
    let mut body = Map::new();
    for field in &operation.body {
        let name = &field.name;
        let value = match field.kind {
            Kind::Integer => matches.get_one::<i64>(name).map(|number| Value::from(*number)),
            Kind::Boolean => matches.get_one::<bool>(name).map(|switch| Value::from(*switch)),
            Kind::Texts => {
                matches.get_many::<String>(name).map(|texts| texts.cloned().collect::<Vec<_>>().into())
            }
            Kind::Text => {
                matches.get_one::<String>(name).map(|text| text_or_file(text)).transpose()?.map(Value::from)
            }
            Kind::Json => {
                let text = matches.get_one::<String>(name).map(|text| text_or_file(text)).transpose()?;
                let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
                parsed.map_err(|error| format!("--{} is no JSON: {error}", name.replace('_', "-")))?
            }
        };
        if let Some(value) = value {
            body.insert(name.clone(), value);
        }
    }
    let acts = operation.method != Method::GET;
    Ok((path, query, acts.then_some(Value::Object(body))))
}

fn text_or_file(text: &str) -> Result<String, String> {
    match text.strip_prefix('@') {
        None => {
            // A name is taken as it stands; who named a file by its path most likely wanted what is in it.
            if text.contains(['/', '.']) && std::path::Path::new(text).is_file() {
                note(&format!("writ: {text:?} is taken as the text itself; @{text} reads the file"));
            }
            Ok(text.to_owned())
        }
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| format!("{file} cannot be read: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, operation, noun, verb) in [
            ("/v1/approvals/{approval}/grant", "approval_grant", "approval", "grant"),
            ("/v1/model-calls", "model_call_list", "model-call", "list"),
            ("/v1/policy", "policy_publish", "policy", "publish"),
            ("/v1/policy-keys/{policy_key}/revoke", "policy_key_revoke", "policy-key", "revoke"),
            ("/v1/usage", "usage_list", "usage", "list"),
        ] {
            assert_eq!(name(path, operation), (noun.to_owned(), verb.to_owned()), "{operation}");
        }
    }

    #[test]
    fn an_enumeration_lists_its_words() {
        let operations = operations();
        let budget = operations.iter().find(|one| (&*one.noun, &*one.verb) == ("budget", "set")).unwrap();
        let mut command = command(budget);
        let help = command.render_help().to_string();
        assert!(help.contains("hour") && help.contains("total") && help.contains("workflow"), "{help}");
        let wrong = ["set", "--level", "everything", "--amount", "1", "--period", "day"];
        assert!(command.try_get_matches_from_mut(wrong).is_err());
    }

    #[test]
    fn every_operation_is_one_command() {
        let operations = operations();
        let mut names: Vec<_> =
            operations.iter().map(|operation| (&operation.noun, &operation.verb)).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "two operations share a command");
        assert!(all > 20, "the contract has {all} operations");
        let named = |name: &str| {
            operations
                .iter()
                .find(|operation| format!("{} {}", operation.noun, operation.verb) == name)
                .unwrap()
        };
        for (name, tagged, conditional) in [
            ("run show", true, false),
            ("run cancel", false, true),
            ("run list", false, false),
            ("run start", false, false),
        ] {
            assert_eq!((named(name).tagged, named(name).conditional), (tagged, conditional), "{name}");
        }
        for operation in &operations {
            command(operation).debug_assert();
        }
    }
}
