//! `writ events`: the tenant's facts as they happen, one CloudEvent a line.
//!
//! The installation may be restarted while somebody follows it, and a stream lives for an hour at most. Neither is the end
//! of the story, and neither may leave a gap without a word: the command says on standard error that the stream ended,
//! comes back with the last index that it has, and says so when it goes on. It comes back a bounded number of times in a
//! row (`--tries`); then it ends with exit code 1.

use super::local::asked_to_end;
use crate::exit::Failure;
use crate::output::{note, told};
use crate::session::Session;
use clap::{Arg, ArgMatches, Command, value_parser};
use client::{Client, ClientError, Events};
use std::time::Duration;
use tokio::time::Instant;

/// How often it comes back in a row, unless somebody says otherwise: for about a minute.
const TRIES: &str = "8";
/// First wait before it comes back; doubled each time.
const WAIT: Duration = Duration::from_secs(1);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A stream that lasted this long was a good one, even without an event: counting begins anew.
const GOOD: Duration = Duration::from_secs(60);

/// The command.
pub fn command() -> Command {
    Command::new("events")
        .about("Follow the tenant's facts as they happen, one CloudEvent a line")
        .arg(Arg::new("kind").long("kind").help("Only kinds that start with this"))
        .arg(
            Arg::new("after")
                .long("after")
                .value_parser(value_parser!(u64))
                .help("Begin after this index of the log (`logindex`)"),
        )
        .arg(
            Arg::new("tries")
                .long("tries")
                .value_parser(value_parser!(u32))
                .default_value(TRIES)
                .help("How often to come back in a row when the stream has ended"),
        )
}

/// Why a stream ended.
enum End {
    /// Nobody reads any more, or somebody asked for it.
    Wanted,
    /// It may go on.
    Off(ClientError),
}

/// Runs it.
pub async fn run(matches: &ArgMatches, session: &Session) -> Result<(), Failure> {
    let client: Client = session.client()?;
    let kind = matches.get_one::<String>("kind").map(String::as_str);
    let tries_max = matches.get_one::<u32>("tries").copied().unwrap_or_default();
    let mut last = matches.get_one::<u64>("after").copied();
    // An installation that was never there is not waited for.
    let mut events = client.events(kind, last).await?;
    let mut tries = 0;
    loop {
        let began = Instant::now();
        let before = last;
        let end = follow(&mut events, &mut last).await?;
        let End::Off(mut why) = end else { return Ok(()) };
        if last != before || began.elapsed() > GOOD {
            tries = 0;
        }
        events = loop {
            if tries >= tries_max {
                let from = last.map_or_else(String::new, |last| format!("; go on with --after {last}"));
                note(&format!("writ: the stream has ended{from}"));
                return Err(why.into());
            }
            let wait = WAIT.saturating_mul(1 << tries.min(16)).min(WAIT_MAX);
            tries += 1;
            note(&format!(
                "writ: the stream has ended; coming back in {} s ({tries} of {tries_max})",
                wait.as_secs()
            ));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                ended = asked_to_end() => return ended.map_err(Failure::from),
            }
            match client.events(kind, last).await {
                Ok(events) => {
                    let from = last.map_or_else(String::new, |last| format!(" after {last}"));
                    note(&format!("writ: back; going on{from}"));
                    break events;
                }
                Err(error) if passing(&error) => why = error,
                Err(error) => return Err(error.into()),
            }
        };
    }
}

/// Prints what comes until the stream ends; `last` is then the index to come back with.
async fn follow(events: &mut Events, last: &mut Option<u64>) -> Result<End, Failure> {
    loop {
        let next = tokio::select! {
            next = events.next() => next,
            ended = asked_to_end() => return ended.map(|()| End::Wanted).map_err(Failure::from),
        };
        *last = events.last().or(*last);
        match next {
            Ok(Some(event)) if told(&event.to_string())? => {}
            Ok(Some(_)) => return Ok(End::Wanted),
            Ok(None) => return Ok(End::Off(ClientError::Reply)),
            Err(error) if passing(&error) => return Ok(End::Off(error)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether coming back may help: the installation is not there, is starting, or has too much to do.
fn passing(error: &ClientError) -> bool {
    match error {
        ClientError::Transport { .. } | ClientError::Reply => true,
        ClientError::Problem(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
        ClientError::Setup(_) => false,
    }
}
