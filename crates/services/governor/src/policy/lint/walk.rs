//! The third pass: what the parsed rules refer to.
//!
//! Every reference is resolved the way the compiler will: an import, a rule of the same package, a path in
//! `data`. A name that could mean a rule is taken to mean it, even where a local variable shadows it, so the
//! graph of rules has every edge that exists and perhaps a few more. A cycle in it is refused; so is a tower of
//! rules, because the virtual machine calls itself once for each.

use super::{ALLOWED, Problem, RESERVED};
use regorus::unstable::{BUILTINS, Expr, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Most rules that wait for one another at once.
const RULE_DEPTH_MAX: usize = 24;
/// Most arguments of a call: the bytecode has room for eight and drops the rest without a word.
const ARGUMENTS_MAX: usize = 8;
/// Longest pattern or format.
const PATTERN_BYTES_MAX: usize = 256;

type Path = Vec<String>;

struct Walk<'a> {
    roots: Vec<Path>,
    /// Every rule of the bundle by its full path without `data`, with its place in `edges`.
    rules: BTreeMap<Path, usize>,
    edges: Vec<BTreeSet<usize>>,
    problems: Vec<Problem>,
    // Where the walk stands.
    file: &'a str,
    package: Path,
    imports: BTreeMap<String, Path>,
    rule: usize,
}

/// Checks all modules of a bundle against its roots.
pub(super) fn check(modules: &[(&str, Ref<Module>)], roots: &[String]) -> Vec<Problem> {
    let mut walk = Walk {
        roots: roots.iter().map(|root| root.split('/').map(str::to_owned).collect()).collect(),
        rules: BTreeMap::new(),
        edges: Vec::new(),
        problems: Vec::new(),
        file: "",
        package: Path::new(),
        imports: BTreeMap::new(),
        rule: 0,
    };
    for (file, module) in modules {
        walk.file = file;
        walk.names(module);
    }
    for (file, module) in modules {
        walk.file = file;
        walk.module(module);
    }
    if walk.problems.is_empty() {
        walk.recursion();
    }
    walk.problems
}

impl<'a> Walk<'a> {
    fn refuse(&mut self, span: &Span, message: impl Into<String>) {
        self.problems.push(Problem::new("policy.lint", self.file, Some(span.line), message));
    }

    fn owned(&self, path: &[String]) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    /// The package, and the names of the rules.
    fn names(&mut self, module: &Module) {
        let package = static_path(&module.package.refr);
        if !self.owned(&package) {
            let message = format!("package {} lies under none of the bundle's roots", package.join("."));
            self.refuse(&module.package.span, message);
        }
        for rule in &module.policy {
            let (span, name) = (rule.span(), static_path(head(rule)));
            let first = name.first().map_or("", String::as_str);
            if RESERVED.contains(&first) || BUILTINS.keys().any(|builtin| builtin.split('.').next() == Some(first)) {
                self.refuse(span, format!("a rule may not be called {first}: the name belongs to builtins"));
            }
            let next = self.rules.len();
            self.rules.entry([&package[..], &name].concat()).or_insert(next);
        }
        self.edges.resize(self.rules.len(), BTreeSet::new());
    }

    fn module(&mut self, module: &Module) {
        self.package = static_path(&module.package.refr);
        self.imports.clear();
        for import in &module.imports {
            let path = static_path(&import.refr);
            match path.first().map(String::as_str) {
                Some("rego" | "future") => continue,
                Some("data") if !self.owned(&path[1..]) => {
                    let message = format!("import {} lies under none of the bundle's roots", path.join("."));
                    self.refuse(&import.span, message);
                }
                _ => (),
            }
            let alias = import.r#as.as_ref().map(|alias| alias.text().to_owned());
            if let Some(alias) = alias.or_else(|| path.last().cloned()) {
                self.imports.insert(alias, path);
            }
        }
        for rule in &module.policy {
            let path = [&self.package[..], &static_path(head(rule))].concat();
            // Every rule was entered by `names`.
            self.rule = self.rules.get(&path).copied().unwrap_or_default();
            self.rule(rule);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        self.indices(head(rule));
        match rule {
            Rule::Default { value, span, .. } => {
                if !constant(value) {
                    self.refuse(span, "the value of a default rule is a constant");
                }
            }
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, .. } => self.assign(assign),
                    RuleHead::Set { key, .. } => key.iter().for_each(|key| self.expr(key)),
                    RuleHead::Func { args, assign, span, .. } => {
                        if args.len() > ARGUMENTS_MAX {
                            self.refuse(span, "a function has at most 8 arguments");
                        }
                        args.iter().for_each(|arg| self.expr(arg));
                        self.assign(assign);
                    }
                }
                for body in bodies {
                    if body.is_else && body.query.stmts.is_empty() {
                        let message = "an else without a condition is passed over by the machine: write `if true`";
                        self.refuse(&body.span, message);
                    }
                    self.assign(&body.assign);
                    self.query(&body.query);
                }
            }
        }
    }

    fn assign(&mut self, assign: &Option<RuleAssign>) {
        if let Some(assign) = assign {
            self.expr(&assign.value);
        }
    }

    fn query(&mut self, query: &Query) {
        for stmt in &query.stmts {
            if let Some(with) = stmt.with_mods.first() {
                self.refuse(&with.span, "`with` is not allowed: a rule may not change what others see");
            }
            match &stmt.literal {
                Literal::SomeVars { .. } => (),
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().for_each(|key| self.expr(key));
                    self.expr(value);
                    self.expr(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
        }
    }

    /// Recursion here is as deep as the tree, which the token pass has bounded.
    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => (),
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.expr(item)),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expr(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expr(key);
                self.expr(value);
                self.query(query);
            }
            Expr::Call { span, fcn, params, .. } => {
                self.call(span, fcn, params);
                params.iter().for_each(|param| self.expr(param));
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs);
                self.expr(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().for_each(|key| self.expr(key));
                self.expr(value);
                self.expr(collection);
            }
        }
    }

    /// The expressions inside the brackets of a reference.
    fn indices(&mut self, mut expr: &Expr) {
        loop {
            match expr {
                Expr::RefDot { refr, .. } => expr = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.expr(index);
                    expr = refr;
                }
                _ => return,
            }
        }
    }

    fn reference(&mut self, expr: &Expr) {
        self.indices(expr);
        let Some(path) = self.resolve(expr) else {
            // The root is an expression of its own, such as a call.
            let mut root = expr;
            while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root {
                root = refr;
            }
            return self.expr(root);
        };
        match path.first().map(String::as_str) {
            Some("input") => (),
            Some("data") if !self.owned(&path[1..]) => {
                self.refuse(expr.span(), "data is read by a fixed path under one of the bundle's roots");
            }
            Some("data") => self.depends_on(&path[1..]),
            _ => {
                let path = [&self.package[..], &path].concat();
                self.depends_on(&path);
            }
        }
    }

    fn call(&mut self, span: &Span, fcn: &Expr, params: &[Ref<Expr>]) {
        // The result may be bound by one argument more than the function has.
        if params.len() > ARGUMENTS_MAX + 1 {
            self.refuse(span, "a call has at most 8 arguments");
        }
        let written = static_path(fcn);
        let name = written.join(".");
        let path = self.resolve(fcn).unwrap_or_default();
        let path = match path.first().map(String::as_str) {
            Some("data") => path[1..].to_vec(),
            _ => [&self.package[..], &path].concat(),
        };
        if self.rules.contains_key(&path) {
            self.depends_on(&path);
        } else if !ALLOWED.contains(&name.as_str()) {
            self.refuse(span, format!("{name} is neither a function of this bundle nor a builtin that policies may call"));
        } else if let Some(wrong) = arguments_wrong(&name, params) {
            self.refuse(span, wrong);
        }
    }

    /// The fixed beginning of a reference's path, with an import in place of its alias; `None` if it does not
    /// begin with a name.
    fn resolve(&self, expr: &Expr) -> Option<Path> {
        let path = static_path(expr);
        let root = path.first()?;
        match self.imports.get(root) {
            Some(import) => Some([&import[..], &path[1..]].concat()),
            None => Some(path),
        }
    }

    /// The current rule may need every rule at, above or below `path`.
    fn depends_on(&mut self, path: &[String]) {
        let above = (1..path.len()).filter_map(|length| self.rules.get(&path[..length]));
        let below = self.rules.range(path.to_vec()..).take_while(|(rule, _)| rule.starts_with(path)).map(|(_, at)| at);
        let found: Vec<usize> = above.chain(below).copied().collect();
        if let Some(edges) = self.edges.get_mut(self.rule) {
            edges.extend(found);
        }
    }

    fn recursion(&mut self) {
        let mut depths = vec![None; self.edges.len()];
        let deepest = (0..self.edges.len()).try_fold(0, |deepest, rule| {
            depth(&self.edges, &mut depths, rule, &mut Vec::new()).map(|depth| deepest.max(depth))
        });
        let name = |at: usize| {
            self.rules.iter().find(|(_, rule)| **rule == at).map_or_else(String::new, |(path, _)| path.join("."))
        };
        let message = match deepest {
            Ok(depth) if depth > RULE_DEPTH_MAX => format!("rules wait for one another {depth} deep; 24 is the most"),
            Ok(_) => return,
            Err(rule) => format!("the rule {} depends on itself, or shares its name with a variable it uses", name(rule)),
        };
        self.problems.push(Problem::new("policy.lint", "bundle", None, message));
    }
}

/// The length of the longest chain of rules from `rule`, or a rule on a cycle. Recursion is as deep as the number
/// of rules, which is bounded.
fn depth(
    edges: &[BTreeSet<usize>],
    depths: &mut [Option<usize>],
    rule: usize,
    path: &mut Vec<usize>,
) -> Result<usize, usize> {
    if let Some(known) = depths[rule] {
        return Ok(known);
    }
    if path.contains(&rule) {
        return Err(rule);
    }
    path.push(rule);
    let mut deepest = 0;
    for next in &edges[rule] {
        deepest = deepest.max(depth(edges, depths, *next, path)?);
    }
    path.pop();
    depths[rule] = Some(deepest + 1);
    Ok(deepest + 1)
}

fn head(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The names a reference begins with, up to the first that is not fixed; empty if it does not begin with a name.
fn static_path(expr: &Expr) -> Path {
    let mut parts: Vec<Option<String>> = Vec::new();
    let mut expr = expr;
    loop {
        match expr {
            Expr::Var { span, .. } => {
                parts.push(Some(span.text().to_owned()));
                break;
            }
            Expr::RefDot { refr, field, .. } => {
                parts.push(Some(field.0.text().to_owned()));
                expr = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                parts.push(literal(index).map(str::to_owned));
                expr = refr;
            }
            _ => return Path::new(),
        }
    }
    parts.into_iter().rev().map_while(|part| part).collect()
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => value.as_string().ok().map(|text| text.as_ref()),
        _ => None,
    }
}

fn constant(expr: &Expr) -> bool {
    match expr {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => true,
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(|item| constant(item)),
        Expr::Object { fields, .. } => fields.iter().all(|(_, key, value)| constant(key) && constant(value)),
        _ => false,
    }
}

/// Arguments that must be written out, because a computed one could make a single call unboundedly dear.
fn arguments_wrong(name: &str, params: &[Ref<Expr>]) -> Option<&'static str> {
    let written = params.first().and_then(|first| literal(first)).filter(|text| text.len() <= PATTERN_BYTES_MAX);
    match name {
        "regex.match" | "glob.match" if written.is_none() => Some("a pattern is written out, in at most 256 bytes"),
        "sprintf" if !written.is_some_and(format_ok) => Some("a format is written out, and uses %s, %d, %v and %% only"),
        _ => None,
    }
}

fn format_ok(format: &str) -> bool {
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        match after.strip_prefix(['s', 'd', 'v', '%']) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    true
}
