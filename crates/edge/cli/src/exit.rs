//! Exit codes, which are part of the interface: scripts branch on them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | anything else: the server cannot be reached, storage failed, a bug |
//! | 2 | the command or its arguments are wrong |
//! | 3 | denied, or not identified |
//! | 4 | it waits for an approval |
//! | 5 | it contradicts what is there |
//! | 6 | there is no such thing |
//! | 7 | the evidence does not verify |

use client::ClientError;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The server said no, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The act waits for people.
    #[error("it waits for approval {0}")]
    Waiting(String),
    /// The evidence does not verify.
    #[error("{0}")]
    Evidence(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Waiting(_) => 4,
            Failure::Evidence(_) => 7,
            Failure::Other(_) => 1,
            Failure::Client(ClientError::Setup(_)) => 2,
            Failure::Client(ClientError::Problem(problem)) => match problem.status {
                400 | 405 | 413 | 415 | 422 => 2,
                401 | 403 => 3,
                404 => 6,
                409 | 412 => 5,
                _ => 1,
            },
            Failure::Client(ClientError::Transport { .. } | ClientError::Reply) => 1,
        }
    }

    /// What to try next, where there is something.
    pub fn advice(&self) -> Option<String> {
        match self {
            Failure::Client(ClientError::Transport { url, .. }) => {
                Some(format!("Is it running? Start one with `writ serve`, or name another with --url or WRIT_URL (now {url})."))
            }
            Failure::Client(ClientError::Problem(problem)) if problem.status == 401 => {
                Some("Give a key with WRIT_KEY or --key-file; `writ serve` writes the first one to admin.key in its folder.".into())
            }
            // A tenant's own policy has codes of its own, and no pages here.
            Failure::Client(ClientError::Problem(problem)) if problem.body["class"] == "denied" => Some(format!(
                "See docs/errors/{}.md; a code without a page is one of the tenant's own policy.",
                problem.code
            )),
            Failure::Client(ClientError::Problem(problem)) => Some(format!("See docs/errors/{}.md.", problem.code)),
            Failure::Waiting(approval) => Some(format!("Somebody else decides: writ approval show {approval}")),
            Failure::Usage(_) | Failure::Evidence(_) | Failure::Other(_) | Failure::Client(_) => None,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Problem;

    #[test]
    fn statuses_become_codes() {
        for (status, code) in
            [(400, 2), (422, 2), (401, 3), (403, 3), (404, 6), (409, 5), (429, 1), (500, 1), (503, 1)]
        {
            let problem =
                Problem { status, code: "x".into(), detail: String::new(), body: serde_json::Value::Null };
            assert_eq!(Failure::Client(ClientError::Problem(Box::new(problem))).code(), code, "{status}");
        }
        assert_eq!(Failure::Waiting(String::new()).code(), 4);
        assert_eq!(Failure::Evidence(String::new()).code(), 7);
    }
}
