//! `writ` as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The binary, without anything that the surroundings might say to it.
pub fn writ(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    for (name, _) in std::env::vars() {
        if name.starts_with("WRIT_") || name.starts_with("OPENAI_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code, standard output, standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("writ runs");
    let text = |bytes| String::from_utf8(bytes).expect("writ prints text");
    (status.code().expect("writ exits by itself"), text(stdout), text(stderr))
}

/// A server on a free port, ended with the test.
pub struct Server {
    child: Child,
    /// Its address.
    pub url: String,
}

impl Server {
    /// Starts one in a folder and waits until it says where it listens.
    pub fn start(folder: &Path) -> Server {
        Server::start_with(folder, &[])
    }

    /// Starts one with these variables besides.
    pub fn start_with(folder: &Path, variables: &[(&str, &str)]) -> Server {
        Server::of(writ(&["serve"]), folder, variables)
    }

    /// Starts one from a shell that did something to itself before: what it may have, or hears, it leaves to the process.
    pub fn start_after(folder: &Path, before: &str) -> Server {
        let program = writ(&[]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before}; exec \"$0\" serve")]).arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        Server::of(command, folder, &[])
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn of(mut command: Command, folder: &Path, variables: &[(&str, &str)]) -> Server {
        // Within the folder, because some tests have nothing around it that is theirs.
        command.env("WRIT_HIGH_WATER_FILE", folder.join("high-water"));
        command.env("WRIT_FOLDER", folder).env("WRIT_LISTEN", "127.0.0.1:0").env("WRIT_LOG", "warn");
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("writ starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("a first line").expect("text");
        let url = first.strip_prefix("writ serves ").expect("an address").to_owned();
        // The rest is read so that the server never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // By its own handle; it may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
