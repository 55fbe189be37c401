//! Small questions about regorus' syntax tree.

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead};
use std::collections::BTreeSet;

/// A path of names.
pub(super) type Path = Vec<String>;

/// The reference that names a rule.
pub(super) fn head(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The names a reference begins with, up to the first that is not fixed; empty if it does not begin with a name.
pub(super) fn static_path(expr: &Expr) -> Path {
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

/// A text that is written out.
pub(super) fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.as_ref())
        }
        _ => None,
    }
}

/// A bare name.
pub(super) fn name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Var { span, .. } => Some(span.text()),
        _ => None,
    }
}

/// Whether the expression consists of constants and of what `also` accepts.
pub(super) fn made_of(expr: &Expr, also: &dyn Fn(&Expr) -> bool) -> bool {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. } => true,
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(|item| made_of(item, also)),
        Expr::Object { fields, .. } => {
            fields.iter().all(|(_, key, value)| made_of(key, also) && made_of(value, also))
        }
        _ => also(expr),
    }
}

/// The statement `name := …`, if it is one.
pub(super) fn binding(stmt: &LiteralStmt) -> Option<&str> {
    match &stmt.literal {
        Literal::Expr { expr, .. } => match expr.as_ref() {
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } => name(lhs),
            _ => None,
        },
        _ => None,
    }
}

/// Visits the parts of an expression: expressions, and the queries of comprehensions.
pub(super) fn parts<'e>(
    expr: &'e Expr,
    on_expr: &mut dyn FnMut(&'e Expr),
    on_query: &mut dyn FnMut(&'e Query),
) {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. } => (),
        Expr::Var { .. } => (),
        Expr::RefDot { refr, .. } => on_expr(refr),
        Expr::RefBrack { refr, index, .. } => {
            on_expr(refr);
            on_expr(index);
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| on_expr(item)),
        Expr::Object { fields, .. } => {
            for (_, key, value) in fields {
                on_expr(key);
                on_expr(value);
            }
        }
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            on_expr(term);
            on_query(query);
        }
        Expr::ObjectCompr { key, value, query, .. } => {
            on_expr(key);
            on_expr(value);
            on_query(query);
        }
        // The name of the function is not a value.
        Expr::Call { params, .. } => params.iter().for_each(|param| on_expr(param)),
        Expr::UnaryExpr { expr, .. } => on_expr(expr),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            on_expr(lhs);
            on_expr(rhs);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().for_each(|key| on_expr(key));
            on_expr(value);
            on_expr(collection);
        }
    }
}

/// Visits the expressions of a statement, and the query of an `every`.
pub(super) fn stmt_parts<'e>(
    stmt: &'e LiteralStmt,
    on_expr: &mut dyn FnMut(&'e Expr),
    on_query: &mut dyn FnMut(&'e Query),
) {
    match &stmt.literal {
        Literal::SomeVars { .. } => (),
        Literal::SomeIn { key, value, collection, .. } => {
            key.iter().for_each(|key| on_expr(key));
            on_expr(value);
            on_expr(collection);
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => on_expr(expr),
        Literal::Every { domain, query, .. } => {
            on_expr(domain);
            on_query(query);
        }
    }
}

/// The names that a query binds itself: by `some … in`, `every` and `:=`, not in what is nested inside it.
pub(super) fn bound_here(query: &Query) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for stmt in &query.stmts {
        names.extend(binding(stmt));
        match &stmt.literal {
            Literal::SomeIn { key, value, .. } => {
                names.extend(key.iter().filter_map(|key| name(key)));
                names.extend(name(value));
            }
            Literal::Every { key, value, .. } => {
                names.extend(key.iter().map(|key| key.text()));
                names.insert(value.text());
            }
            _ => (),
        }
    }
    names
}

/// Whether a query goes through a collection.
pub(super) fn iterates(query: &Query) -> bool {
    query.stmts.iter().any(|stmt| matches!(stmt.literal, Literal::SomeIn { .. }))
}

/// All queries of a rule: its bodies, and the comprehensions and `every` statements in all its depth.
pub(super) fn queries(rule: &Rule) -> Vec<&Query> {
    let (mut exprs, mut open): (Vec<&Expr>, Vec<&Query>) = (vec![head(rule)], Vec::new());
    match rule {
        Rule::Default { value, .. } => exprs.push(value),
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Compr { assign, .. } => exprs.extend(assign.iter().map(|assign| &*assign.value)),
                RuleHead::Set { key, .. } => exprs.extend(key.iter().map(|key| &**key)),
                RuleHead::Func { args, assign, .. } => {
                    exprs.extend(args.iter().map(|arg| &**arg));
                    exprs.extend(assign.iter().map(|assign| &*assign.value));
                }
            }
            for body in bodies {
                exprs.extend(body.assign.iter().map(|assign| &*assign.value));
                open.push(&body.query);
            }
        }
    }
    let mut found = Vec::new();
    loop {
        while let Some(expr) = exprs.pop() {
            parts(expr, &mut |part| exprs.push(part), &mut |query| open.push(query));
        }
        let Some(query) = open.pop() else { return found };
        found.push(query);
        for stmt in &query.stmts {
            stmt_parts(stmt, &mut |expr| exprs.push(expr), &mut |query| open.push(query));
        }
    }
}

/// Whether a statement mentions one of `names` anywhere.
pub(super) fn mentions(stmt: &LiteralStmt, names: &BTreeSet<&str>) -> bool {
    let (mut exprs, mut queries) = (Vec::new(), Vec::new());
    stmt_parts(stmt, &mut |expr| exprs.push(expr), &mut |query| queries.push(query));
    any_mentions(&exprs, &queries, names)
}

/// Whether an expression mentions one of `names` anywhere.
pub(super) fn expr_mentions(expr: &Expr, names: &BTreeSet<&str>) -> bool {
    let (mut exprs, mut queries) = (Vec::new(), Vec::new());
    parts(expr, &mut |part| exprs.push(part), &mut |query| queries.push(query));
    name(expr).is_some_and(|name| names.contains(name)) || any_mentions(&exprs, &queries, names)
}

fn any_mentions(exprs: &[&Expr], queries: &[&Query], names: &BTreeSet<&str>) -> bool {
    exprs.iter().any(|expr| expr_mentions(expr, names))
        || queries.iter().any(|query| query.stmts.iter().any(|stmt| mentions(stmt, names)))
}
