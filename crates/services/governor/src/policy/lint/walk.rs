//! The third pass: what the parsed rules refer to, and whether the machine will mean what they say.
//!
//! Every reference is resolved the way the compiler will: an import, a rule of the same package, a path in
//! `data`. A name that could mean a rule is taken to mean it, even where a local variable shadows it, so the
//! graph of rules has every edge that exists and perhaps a few more. A cycle in it is refused; so is a tower of
//! rules, because the virtual machine calls itself once for each.
//!
//! The machine does not evaluate all of Rego as it is meant, and where it errs it errs towards success: after
//! `x := input.no.such.thing` it goes on, where Rego says that the rule has failed. The language is narrowed
//! until machine and interpreter agree; both were compared on tens of thousands of generated policies, and are in
//! every run of the tests on some.
//!
//! | what is written | what the machine makes of it | what is done |
//! |---|---|---|
//! | `x := e`, with `e` undefined | goes on | [`super::guard`] adds a check |
//! | `input` or `data` first used in a comprehension or `every`, then after it | undefined, if the inside did not run | [`super::guard`] loads both first |
//! | `else` | not tried after a body that loops, or whose value is undefined | refused |
//! | `[t \| …]` with an undefined term | an element that is undefined | the term is made of local names |
//! | a comprehension without a loop, or a condition that can run before it | may never end | refused |
//! | iteration by `x[_]`, or by a name that nothing binds | not compared | refused |
//! | a single value from a body that iterates | the last one, where OPA reports a conflict | refused |
//! | patterns on the left of `:=`, in `some` and in arguments | not compared | refused |
//! | rules that add members to an object | not compared | refused |
//! | `a < b` of different types | undefined, where OPA orders types | left as it is |

use super::tree::{self, Path, bound_here, head, literal, made_of, mentions, name, static_path};
use super::{ALLOWED, Problem, RESERVED};
use regorus::unstable::{
    AssignOp, BUILTINS, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleAssign, RuleHead, Span,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most rules that wait for one another at once.
const RULE_DEPTH_MAX: usize = 24;
/// Most arguments of a call: the bytecode has room for eight and drops the rest without a word.
const ARGUMENTS_MAX: usize = 8;
/// Longest pattern or format.
const PATTERN_BYTES_MAX: usize = 256;

struct Walk<'a> {
    roots: Vec<Path>,
    /// Every rule of the bundle by its full path without `data`: its place in `edges` and its number of arguments.
    rules: BTreeMap<Path, (usize, Option<usize>)>,
    edges: Vec<BTreeSet<usize>>,
    problems: Vec<Problem>,
    // Where the walk stands.
    file: &'a str,
    package: Path,
    imports: BTreeMap<String, Path>,
    rule: usize,
    /// The names that the current rule binds somewhere.
    names: BTreeSet<&'a str>,
}

/// Checks all modules of a bundle against its roots and its data.
pub(super) fn check(
    modules: &[(&str, Ref<Module>)],
    roots: &[String],
    data: &serde_json::Value,
) -> Vec<Problem> {
    let mut walk = Walk {
        roots: roots.iter().map(|root| root.split('/').map(str::to_owned).collect()).collect(),
        rules: BTreeMap::new(),
        edges: Vec::new(),
        problems: Vec::new(),
        file: "",
        package: Path::new(),
        imports: BTreeMap::new(),
        rule: 0,
        names: BTreeSet::new(),
    };
    for (file, module) in modules {
        walk.file = file;
        walk.names(module);
    }
    for path in walk.rules.keys() {
        if path.iter().try_fold(data, |data, part| data.get(part)).is_some() {
            let message = format!("the rule {} stands where data.json has data", path.join("."));
            walk.problems.push(Problem::new("policy.lint", "bundle", None, message));
        }
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
            let (span, path) = (rule.span(), static_path(head(rule)));
            let first = path.first().map_or("", String::as_str);
            if RESERVED.contains(&first)
                || BUILTINS.keys().any(|builtin| builtin.split('.').next() == Some(first))
            {
                self.refuse(span, format!("a rule may not be called {first}: the name belongs to builtins"));
            }
            if matches!(head(rule), Expr::RefBrack { .. }) {
                self.refuse(span, "a rule does not add members to an object: build it with a comprehension");
            }
            let arguments = match &**rule {
                Rule::Default { args, .. } if !args.is_empty() => Some(args.len()),
                Rule::Spec { head: RuleHead::Func { args, .. }, .. } => Some(args.len()),
                _ => None,
            };
            let next = self.rules.len();
            self.rules.entry([&package[..], &path].concat()).or_insert((next, arguments));
        }
        self.edges.resize(self.rules.len(), BTreeSet::new());
    }

    fn module(&mut self, module: &'a Module) {
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
            self.rule = self.rules.get(&path).map(|(at, _)| *at).unwrap_or_default();
            self.names = tree::queries(rule).into_iter().flat_map(bound_here).collect();
            self.rule(rule);
        }
    }

    fn rule(&mut self, rule: &'a Rule) {
        match rule {
            Rule::Default { value, span, .. } => {
                if !made_of(value, &|_| false) {
                    self.refuse(span, "the value of a default rule is a constant");
                }
            }
            Rule::Spec { head, bodies, span } => {
                if bodies.is_empty() && !tree::queries(rule).is_empty() {
                    self.refuse(
                        span,
                        "a rule without a body collects nothing: bind the collection in a body",
                    );
                }
                match head {
                    RuleHead::Compr { assign, .. } => self.assign(assign),
                    RuleHead::Set { key, .. } => key.iter().for_each(|key| self.expr(key)),
                    RuleHead::Func { args, assign, span, .. } => {
                        if args.len() > ARGUMENTS_MAX {
                            self.refuse(span, "a function has at most 8 arguments");
                        }
                        if !args.iter().all(|arg| name(arg).is_some()) {
                            self.refuse(span, "the arguments of a function are plain names");
                        }
                        self.names.extend(args.iter().filter_map(|arg| name(arg)));
                        self.assign(assign);
                    }
                }
                if let Some(body) = bodies.iter().find(|body| body.is_else) {
                    self.refuse(
                        &body.span,
                        "`else` is not allowed: write rules whose bodies exclude one another",
                    );
                } else if let Some(body) = bodies.get(1) {
                    self.refuse(&body.span, "a rule has one body: write the rule twice");
                }
                if let RuleHead::Compr { assign: Some(assign), .. }
                | RuleHead::Func { assign: Some(assign), .. } = head
                    && bodies.iter().any(|body| {
                        tree::iterates(&body.query)
                            && tree::expr_mentions(&assign.value, &bound_here(&body.query))
                    })
                {
                    self.refuse(
                        &assign.span,
                        "a rule of one value does not iterate over values: collect them in a set",
                    );
                }
                for body in bodies {
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
                Literal::SomeVars { span, .. } => self.refuse(span, "iterate with `some … in`"),
                Literal::SomeIn { key, value, collection, .. } => {
                    if key.iter().chain([value]).any(|name| tree::name(name).is_none()) {
                        self.refuse(&stmt.span, "`some` binds plain names");
                    }
                    self.expr(collection);
                }
                Literal::Expr { expr, .. } => match expr.as_ref() {
                    Expr::AssignExpr { op, lhs, rhs, span, .. } => {
                        if *op != AssignOp::ColEq {
                            self.refuse(span, "`=` is not allowed: bind with `:=`, compare with `==`");
                        } else if name(lhs).is_none_or(|name| name == "_") {
                            self.refuse(span, "`:=` binds one plain name");
                        }
                        self.expr(rhs);
                    }
                    expr => self.expr(expr),
                },
                Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
        }
    }

    fn comprehension(&mut self, span: &Span, terms: &[&Ref<Expr>], query: &Query) {
        let bound = bound_here(query);
        let local = |expr: &Expr| name(expr).is_some_and(|name| bound.contains(name));
        if !matches!(query.stmts.first(), Some(LiteralStmt { literal: Literal::SomeIn { .. }, .. })) {
            self.refuse(span, "a comprehension begins with `some … in`");
        } else if !query.stmts.iter().all(|stmt| mentions(stmt, &bound)) {
            self.refuse(span, "every condition of a comprehension is about something that it binds");
        } else if !terms.iter().all(|term| made_of(term, &local)) {
            self.refuse(span, "a comprehension collects names that it binds: bind the value with `:=` first");
        }
        self.query(query);
    }

    /// Recursion here is as deep as the tree, which the token pass has bounded.
    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => return self.reference(expr),
            Expr::ArrayCompr { span, term, query, .. } | Expr::SetCompr { span, term, query, .. } => {
                return self.comprehension(span, &[term], query);
            }
            Expr::ObjectCompr { span, key, value, query, .. } => {
                return self.comprehension(span, &[key, value], query);
            }
            Expr::Call { span, fcn, params, .. } => self.call(span, fcn, params),
            Expr::AssignExpr { span, .. } => {
                self.refuse(span, "`:=` and `=` stand at the beginning of a statement")
            }
            _ => (),
        }
        let mut parts = Vec::new();
        tree::parts(expr, &mut |part| parts.push(part), &mut |_| ());
        parts.into_iter().for_each(|part| self.expr(part));
    }

    fn reference(&mut self, expr: &Expr) {
        // What stands in brackets, and where the reference begins if not with a name.
        let mut root = expr;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root {
            if let Expr::RefBrack { index, .. } = root {
                self.expr(index);
            }
            root = refr;
        }
        let Some(path) = self.resolve(expr) else { return self.expr(root) };
        match path.first().map(String::as_str) {
            Some("input") => (),
            Some("data") if !self.owned(&path[1..]) => {
                self.refuse(expr.span(), "data is read by a fixed path under one of the bundle's roots");
            }
            Some("data") => _ = self.depends_on(&path[1..]),
            first => {
                let local = first.is_some_and(|first| self.names.contains(first));
                let path = [&self.package[..], &path].concat();
                if !self.depends_on(&path) && !local {
                    let what = if path.last().is_some_and(|last| last == "_") {
                        "iterate with `some … in`, not with `_`".to_owned()
                    } else {
                        format!("{} is neither bound here nor a rule", root.span().text())
                    };
                    self.refuse(expr.span(), what);
                }
            }
        }
    }

    fn call(&mut self, span: &Span, fcn: &Expr, params: &[Ref<Expr>]) {
        let written = static_path(fcn).join(".");
        let path = self.resolve(fcn).unwrap_or_default();
        let path = match path.first().map(String::as_str) {
            Some("data") => path[1..].to_vec(),
            _ => [&self.package[..], &path].concat(),
        };
        let arguments = if let Some((_, arguments)) = self.rules.get(&path) {
            let arguments = *arguments;
            self.depends_on(&path);
            arguments
        } else if ALLOWED.contains(&written.as_str()) {
            if let Some(wrong) = arguments_wrong(&written, params) {
                self.refuse(span, wrong);
            }
            BUILTINS.get(written.as_str()).map(|(_, arguments)| usize::from(*arguments))
        } else {
            let message = format!(
                "{written} is neither a function of this bundle nor a builtin that policies may call"
            );
            return self.refuse(span, message);
        };
        // One argument more would bind the result, as in older Rego.
        if arguments != Some(params.len()) {
            self.refuse(span, format!("{written} is called with a wrong number of arguments"));
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

    /// Notes that the current rule may need every rule at, above or below `path`; whether there is any.
    fn depends_on(&mut self, path: &[String]) -> bool {
        let above = (1..path.len()).filter_map(|length| self.rules.get(&path[..length]));
        let below = self
            .rules
            .range(path.to_vec()..)
            .take_while(|(rule, _)| rule.starts_with(path))
            .map(|(_, at)| at);
        let found: Vec<usize> = above.chain(below).map(|(at, _)| *at).collect();
        if let Some(edges) = self.edges.get_mut(self.rule) {
            edges.extend(&found);
        }
        !found.is_empty()
    }

    fn recursion(&mut self) {
        let mut depths = vec![None; self.edges.len()];
        let deepest = (0..self.edges.len()).try_fold(0, |deepest, rule| {
            depth(&self.edges, &mut depths, rule, &mut Vec::new()).map(|depth| deepest.max(depth))
        });
        let name = |at: usize| {
            self.rules
                .iter()
                .find(|(_, (rule, _))| *rule == at)
                .map_or_else(String::new, |(path, _)| path.join("."))
        };
        let message = match deepest {
            Ok(depth) if depth > RULE_DEPTH_MAX => {
                format!("rules wait for one another {depth} deep; 24 is the most")
            }
            Ok(_) => return,
            Err(rule) => format!(
                "the rule {} depends on itself, or shares its name with a variable it uses",
                name(rule)
            ),
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

/// Arguments that must be written out, because a computed one could make a single call unboundedly dear.
fn arguments_wrong(name: &str, params: &[Ref<Expr>]) -> Option<&'static str> {
    let written =
        params.first().and_then(|first| literal(first)).filter(|text| text.len() <= PATTERN_BYTES_MAX);
    match name {
        "regex.match" | "glob.match" if written.is_none() => {
            Some("a pattern is written out, in at most 256 bytes")
        }
        "sprintf" if !written.is_some_and(format_ok) => {
            Some("a format is written out, and uses %s, %d, %v and %% only")
        }
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
