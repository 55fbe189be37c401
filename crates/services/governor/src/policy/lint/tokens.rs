//! The first pass: is the file shaped so that a recursive parser may look at it?
//!
//! Works on the tokens of regorus' own lexer, so that both agree on where a string or a comment ends.

use super::{LENGTHS, Problem};
use regorus::unstable::{Lexer, Source, TokenKind};

/// Deepest nesting of brackets of any kind.
const BRACKETS_MAX: usize = 16;
/// Longest chain of operators without a bracket or a separator: `a + b + c` is a tree as deep as it is long.
const CHAIN_MAX: usize = 64;
/// Most tokens in all files of a bundle.
const TOKENS_MAX: u64 = 100_000;
/// Most visits by the parser, when every level of `[` or `{` is read up to three times.
const VISITS_MAX: u64 = 4_000_000;
/// Longest number.
const NUMBER_BYTES_MAX: usize = 32;
/// Most occurrences of `set(` in a file: the lexer looks ahead, recursively, at each.
const SETS_MAX: usize = 500;

/// What is left for the files of one bundle.
#[derive(Default)]
pub(super) struct Budget {
    tokens: u64,
    visits: u64,
}

impl Budget {
    /// Counts one file, or says why it is refused.
    pub(super) fn spend(&mut self, name: &str, source: &Source) -> Result<(), Problem> {
        if source.contents().matches("set(").count() > SETS_MAX {
            let message = format!("more than {SETS_MAX} times set(");
            return Err(Problem::new("policy.lint", name, None, message));
        }
        let mut lexer = Lexer::new(source);
        lexer.set_max_col(LENGTHS.max_col);
        // One entry per open bracket: what it weighs, and the chain outside that goes on behind it.
        let mut open: Vec<(u64, usize)> = Vec::new();
        let (mut weight, mut chain, mut after_operand) = (1u64, 0usize, false);
        loop {
            let token = lexer
                .next_token()
                .map_err(|error| Problem::new("policy.syntax", name, None, error.to_string().trim()))?;
            let (text, line) = (token.1.text(), token.1.line);
            let refuse = |message: &str| Err(Problem::new("policy.lint", name, Some(line), message));
            self.tokens += 1;
            self.visits = self.visits.saturating_add(weight);
            if self.tokens > TOKENS_MAX || self.visits > VISITS_MAX {
                return refuse("the bundle's rules are too large, or large and deeply nested");
            }
            let operand = match (&token.0, text) {
                (TokenKind::Eof, _) => return Ok(()),
                (TokenKind::Number, _) if text.len() > NUMBER_BYTES_MAX || text.contains(['e', 'E']) => {
                    return refuse("numbers have at most 32 characters and no exponent");
                }
                // `a -1` is a subtraction, whatever the spaces say.
                (TokenKind::Number, _) if after_operand && text.starts_with('-') => {
                    chain += 1;
                    true
                }
                (TokenKind::Ident, "in") => {
                    chain += 1;
                    false
                }
                (TokenKind::Number | TokenKind::String | TokenKind::RawString | TokenKind::Ident, _)
                    if text != "set(" =>
                {
                    // Two operands side by side: something new has begun.
                    if after_operand {
                        chain = 0;
                    }
                    true
                }
                (_, "(" | "[" | "{" | "set(") => {
                    if open.len() == BRACKETS_MAX {
                        return refuse("brackets are nested deeper than 16");
                    }
                    open.push((weight, chain));
                    if matches!(text, "[" | "{") {
                        weight = weight.saturating_mul(3);
                    }
                    chain = 0;
                    false
                }
                (_, ")" | "]" | "}") => {
                    // An unmatched one is the parser's to name.
                    (weight, chain) = open.pop().unwrap_or((1, 0));
                    true
                }
                (_, "," | ";" | ":" | ":=") => {
                    chain = 0;
                    false
                }
                _ => {
                    chain += 1;
                    false
                }
            };
            if chain > CHAIN_MAX {
                return refuse("more than 64 operators in a row");
            }
            after_operand = operand;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(text: &str) -> Result<(), String> {
        let source = Source::from_contents("a.rego".into(), text.into()).unwrap();
        Budget::default().spend("a.rego", &source).map_err(|problem| problem.message)
    }

    #[test]
    fn what_would_exhaust_a_parser_is_refused() {
        let chain = |unit: &str, count: usize| format!("x := {}1", unit.repeat(count));
        for (what, text, ok) in [
            ("flat", "allow if {\n input.a == 1\n".to_owned() + &" input.b != 2\n".repeat(2_000) + "}", true),
            ("16 brackets", "(".repeat(16), true),
            ("17 brackets", "(".repeat(17), false),
            ("5,000 brackets", "[".repeat(500), false),
            ("deep and wide", "[".repeat(12) + &"1,\n".repeat(200) + &"]".repeat(12), false),
            (
                "brackets in strings",
                format!("\"{}\" `{}` # {}", "[".repeat(90), "{".repeat(90), "(".repeat(90)),
                true,
            ),
            ("64 operators", chain("1 +\n", 64), true),
            ("65 operators", chain("1 +\n", 65), false),
            ("operators behind brackets", chain("(1) +\n", 65), false),
            ("minus as a sign", format!("x := 1{}", " -1\n".repeat(65)), false),
            ("many minuses", chain("- ", 65), false),
            ("in", chain("1 in\n", 65), false),
            ("exponent", "x := 1e9".into(), false),
            ("long number", format!("x := {}", "1".repeat(33)), false),
            ("sets", "set(\n".repeat(501), false),
            ("many tokens", ("a ".repeat(99) + "a\n").repeat(1_001), false),
            ("column", "a".repeat(600), false),
            ("string without end", "x := \"a".into(), false),
        ] {
            assert_eq!(spend(&text).is_ok(), ok, "{what}: {:?}", spend(&text));
        }
    }

    #[test]
    fn the_budget_is_for_the_whole_bundle() {
        let source = Source::from_contents("a.rego".into(), ("a ".repeat(99) + "a\n").repeat(600)).unwrap();
        let mut budget = Budget::default();
        assert!(budget.spend("a.rego", &source).is_ok());
        assert!(budget.spend("b.rego", &source).is_err());
    }
}
