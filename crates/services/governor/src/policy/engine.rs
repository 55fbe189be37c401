//! Evaluation: one program per bundle, one warm virtual machine per thread, and DENY for everything that is not
//! an answer.
//!
//! A bundle is compiled once, when it is published or loaded, to a program for regorus' register machine; the
//! program is immutable and shared. What a decision needs besides is a machine with registers, and making one
//! costs more than most decisions: so each thread keeps a few [`Warm`] ones. There is no `await` in a decision,
//! so any tokio worker can call [`decide`], which uses the machines of the thread it happens to run on.
//!
//! # What stops a policy
//!
//! regorus' machine counts instructions and can look at a clock every so many of them. The count is the rule:
//! the same input ends at the same instruction, today and in a replay. The clock is the net beneath it, for
//! instructions that are dear one by one, such as multiplying numbers of a million digits. It measures elapsed
//! time and therefore also the time in which the thread did not run; so when the clock ends an evaluation it is
//! repeated once, and only a policy that is slow twice is denied as slow. Together that is 50 ms at most.
//!
//! | what happens | the verdict's reason |
//! |---|---|
//! | the rule has no value | `policy.undefined` |
//! | the value is not a verdict, down to the last key | `policy.malformed` |
//! | too many instructions, or twice too much time | `policy.too_slow` |
//! | a builtin was given something it does not take, or another error | `policy.failed` |
//! | a panic | `policy.panicked` |
//! | the bundle is past its end at `input.now_ms` | `policy.stale` |
//! | the input is too large | `policy.input_too_large` |

use super::bundle::{Bundle, DATA};
use super::input::{PolicyInput, PreparedInput};
use super::isolate::isolated;
use super::lint::{self, Problem};
use kernel::Digest;
use kernel::verdict::{Effect, Obligations, Verdict};
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::program::Program;
use regorus::rvm::vm::{RegoVM, VmError};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most instructions of one evaluation. The default policy needs a few hundred.
pub const INSTRUCTIONS_MAX: usize = 50_000;
/// Most time of one attempt; there are at most two.
const ATTEMPT: Duration = Duration::from_millis(25);
/// Instructions between two looks at the clock. Few, because one that squares a number costs four times what the
/// one before it cost.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(4).unwrap();
/// What the compiler is asked to refuse: more than [`lint::LENGTHS`], for the checks that were added to each line.
const COMPILED_LENGTHS: PolicyLengthConfig = PolicyLengthConfig {
    max_col: NonZeroU32::new(8 << 10).unwrap(),
    max_file_bytes: NonZeroUsize::new(4 << 20).unwrap(),
    ..lint::LENGTHS
};
/// Most time of a second opinion.
const SECOND_OPINION: Duration = Duration::from_millis(500);
/// Machines that one thread keeps.
const WARM_MAX: usize = 8;
const REASONS_MAX: usize = 32;
const ROUTES_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 96;

/// A bundle that is ready to decide. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Compiled {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Tells machines apart; never given twice in one process.
    serial: u64,
    program: Arc<Program>,
    data: Value,
    digest: Digest,
    not_after_ms: i64,
}

/// Why a bundle cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy cannot be used: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PolicyError {
    /// At least one problem.
    pub problems: Vec<Problem>,
}

/// An evaluation that gave no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The reason in the verdict that stands in for it.
    pub code: &'static str,
    /// What happened, for the author of the policy. It may quote the input; it goes into no log.
    pub detail: String,
}

impl Refusal {
    fn new(code: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }
}

/// A thread's machines, each loaded with one program.
#[derive(Default)]
pub struct Warm {
    /// The most recently used is last.
    machines: Vec<(u64, Box<RegoVM>)>,
}

thread_local! {
    static WARM: RefCell<Warm> = RefCell::default();
}

/// Evaluates every bundle that speaks about an act, the platform's and the tenant's, on the calling thread, and
/// merges what they say. No bundle at all is DENY.
pub fn decide(bundles: &[&Compiled], input: &PolicyInput) -> Verdict {
    let Ok(prepared) = input.prepare() else { return Verdict::deny("policy.input_too_large") };
    WARM.with_borrow_mut(|warm| {
        bundles
            .iter()
            .map(|bundle| bundle.evaluate_prepared(&prepared, warm))
            .reduce(Verdict::merge)
            .unwrap_or_else(|| Verdict::deny("policy.undefined"))
    })
}

impl Compiled {
    /// Checks and compiles a bundle. Its first root's rule `verdict` is what will be asked.
    ///
    /// # Errors
    /// Every problem that [`lint::lint`] finds, or the first that the compiler does.
    pub fn new(bundle: &Bundle) -> Result<Compiled, PolicyError> {
        let copy = bundle.clone();
        let done = isolated(move || {
            let modules = lint::check(&copy)?;
            compile(&copy, modules).map_err(|problem| vec![problem])
        });
        match done {
            Ok(Ok(compiled)) => Ok(compiled),
            Ok(Err(problems)) => Err(PolicyError { problems }),
            Err(lost) => Err(PolicyError { problems: vec![lint::lost_problem(lost)] }),
        }
    }

    /// SHA-256 of the bundle's archive: the policy digest in facts.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// The moment from which on every verdict is DENY (milliseconds UTC).
    pub fn not_after_ms(&self) -> i64 {
        self.inner.not_after_ms
    }

    /// The bundle's data, for tables that code and policy share.
    pub fn data(&self) -> serde_json::Value {
        let text = self.inner.data.to_json_str().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The verdict on one act.
    pub fn evaluate(&self, input: &PolicyInput, warm: &mut Warm) -> Verdict {
        match input.prepare() {
            Ok(prepared) => self.evaluate_prepared(&prepared, warm),
            Err(_) => Verdict::deny("policy.input_too_large"),
        }
    }

    /// The verdict on an act whose input is already converted.
    pub fn evaluate_prepared(&self, input: &PreparedInput, warm: &mut Warm) -> Verdict {
        self.explain(input, warm).unwrap_or_else(|refusal| {
            tracing::warn!(
                policy = kernel::hex::encode(&self.inner.digest),
                code = refusal.code,
                "a policy gave no verdict, the act is denied"
            );
            Verdict::deny(refusal.code)
        })
    }

    /// The verdict, or why there is none: for probes and for those who write policies.
    pub fn explain(&self, input: &PreparedInput, warm: &mut Warm) -> Result<Verdict, Refusal> {
        if input.now_ms >= self.inner.not_after_ms {
            return Err(Refusal::new("policy.stale", "the bundle is past its end"));
        }
        let value = match self.run(input, warm) {
            Err(Stop::Clock) => self.run(input, warm),
            other => other,
        };
        match value {
            Ok(value) => verdict_read(&value),
            Err(Stop::Clock) => Err(Refusal::new("policy.too_slow", "longer than 25 ms, twice")),
            Err(Stop::Refused(refusal)) => Err(refusal),
        }
    }

    fn run(&self, input: &PreparedInput, warm: &mut Warm) -> Result<Value, Stop> {
        let mut vm = warm.take(&self.inner)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            vm.set_input(input.value.clone());
            vm.execute_entry_point_by_index(0)
        }));
        // A machine that failed is in a state that nobody has thought about: it is not used again.
        match outcome {
            Ok(Ok(value)) => {
                vm.set_input(Value::Null);
                warm.put(self.inner.serial, vm);
                Ok(value)
            }
            Ok(Err(VmError::TimeLimitExceeded { .. })) => Err(Stop::Clock),
            Ok(Err(
                error @ (VmError::InstructionLimitExceeded { .. }
                | VmError::MemoryLimitExceeded { .. }
                | VmError::MemoryBudgetExceeded { .. }
                | VmError::RegexSizeLimitExceeded { .. }),
            )) => Err(Stop::Refused(Refusal::new("policy.too_slow", error.to_string()))),
            Ok(Err(error)) => Err(Stop::Refused(Refusal::new("policy.failed", error.to_string()))),
            Err(_) => Err(Stop::Refused(Refusal::new("policy.panicked", "evaluation ended in a panic"))),
        }
    }
}

enum Stop {
    /// The clock ended it, which may be the machine's fault.
    Clock,
    Refused(Refusal),
}

impl Warm {
    /// No machines yet.
    pub fn new() -> Warm {
        Warm::default()
    }

    fn take(&mut self, program: &Inner) -> Result<Box<RegoVM>, Stop> {
        if let Some(at) = self.machines.iter().position(|(serial, _)| *serial == program.serial) {
            return Ok(self.machines.remove(at).1);
        }
        machine(&program.program, &program.data)
            .map_err(|error| Stop::Refused(Refusal::new("policy.failed", error.to_string())))
    }

    fn put(&mut self, serial: u64, vm: Box<RegoVM>) {
        if self.machines.len() == WARM_MAX {
            self.machines.remove(0);
        }
        self.machines.push((serial, vm));
    }
}

fn machine(program: &Arc<Program>, data: &Value) -> Result<Box<RegoVM>, VmError> {
    let mut vm = Box::new(RegoVM::new());
    vm.load_program(Arc::clone(program));
    vm.set_data(data.clone())?;
    vm.set_max_instructions(INSTRUCTIONS_MAX);
    vm.set_strict_builtin_errors(true);
    vm.set_execution_timer_config(Some(ExecutionTimerConfig {
        limit: ATTEMPT,
        check_interval: CLOCK_INTERVAL,
    }));
    Ok(vm)
}

/// Compiles rules as [`lint::check`] returns them. Runs isolated.
fn compile(bundle: &Bundle, modules: Vec<(String, String)>) -> Result<Compiled, Problem> {
    let refused = |message: String| Problem::new("policy.compile", "bundle", None, message.trim());
    let data = data(bundle)?;
    let program = program(modules, &entry(bundle), &data).map_err(|error| refused(format!("{error:#}")))?;
    // Both would mean a way around the checks: rules found by a computed name, and calls out of the machine.
    if program.needs_runtime_recursion_check {
        return Err(refused("a reference to data reaches several rules; name each rule in full".into()));
    }
    if program.has_host_await {
        return Err(refused("the rules call out of the engine".into()));
    }
    machine(&program, &data).map_err(|error| refused(error.to_string()))?;
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    Ok(Compiled {
        inner: Arc::new(Inner {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            program,
            data,
            digest: bundle.digest,
            not_after_ms: bundle.not_after_ms(),
        }),
    })
}

/// The data document of a bundle.
fn data(bundle: &Bundle) -> Result<Value, Problem> {
    let refused = |message: String| Problem::new("policy.compile", DATA, None, message);
    let Some(content) = bundle.files.get(DATA) else { return Ok(Value::new_object()) };
    let text = std::str::from_utf8(content).map_err(|error| refused(error.to_string()))?;
    Value::from_json_str(text).map_err(|error| refused(error.to_string()))
}

/// The rule that is asked.
fn entry(bundle: &Bundle) -> String {
    let root = bundle.manifest.roots.first().map(|root| root.replace('/', ".")).unwrap_or_default();
    format!("data.{root}.verdict")
}

fn program(
    modules: Vec<(String, String)>,
    entry: &str,
    data: &Value,
) -> Result<Arc<Program>, Box<dyn std::error::Error>> {
    let policy = interpreter(modules, data)?.compile_with_entrypoint(&entry.into())?;
    Ok(Compiler::compile_from_policy(&policy, &[entry])?)
}

fn interpreter(modules: Vec<(String, String)>, data: &Value) -> Result<Engine, Box<dyn std::error::Error>> {
    let mut engine = Engine::new();
    engine.set_policy_length_config(COMPILED_LENGTHS);
    engine.set_strict_builtin_errors(true);
    engine.add_data(data.clone())?;
    for (name, text) in modules {
        engine.add_policy(name, text)?;
    }
    Ok(engine)
}

/// A second opinion: the same rules, as they were written, in regorus' interpreter, which shares no evaluation code
/// with its machine.
///
/// The machine is young and does not mean everything as it is written; [`lint`] keeps policies away from what is
/// known. Publication asks both about every probe, tests about every case. Slow; never asked about a real act.
pub struct SecondOpinion {
    engine: Engine,
    entry: String,
}

impl SecondOpinion {
    /// Prepares the rules of a bundle.
    pub fn new(bundle: &Bundle) -> Result<SecondOpinion, Problem> {
        let refused = |message: String| Problem::new("policy.compile", "bundle", None, message.trim());
        let modules = bundle.files.iter().filter(|(name, _)| *name != DATA);
        let modules = modules
            .map(|(name, content)| Ok((name.clone(), String::from_utf8(content.clone())?)))
            .collect::<Result<_, std::string::FromUtf8Error>>()
            .map_err(|error| refused(error.to_string()))?;
        let mut engine =
            interpreter(modules, &data(bundle)?).map_err(|error| refused(format!("{error:#}")))?;
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: SECOND_OPINION,
            check_interval: CLOCK_INTERVAL,
        });
        Ok(SecondOpinion { engine, entry: entry(bundle) })
    }

    /// Says where the interpreter sees another verdict than the machine.
    pub fn objection(&mut self, input: &PreparedInput, verdict: &Result<Verdict, Refusal>) -> Option<String> {
        self.engine.set_input(input.value.clone());
        // An error here and a refusal there are the same opinion, in other words.
        let own = self.engine.eval_rule(self.entry.clone()).ok().and_then(|value| verdict_read(&value).ok());
        let other = verdict.as_ref().ok();
        (own.as_ref() != other).then(|| format!("the interpreter sees {own:?}, the machine {other:?}"))
    }
}

/// Reads a verdict: an object with `effect` and, where they mean something, `reasons`, `routes`,
/// `approver_tier`, `approvals` and `per_minute`. Anything else in it is refused.
fn verdict_read(value: &Value) -> Result<Verdict, Refusal> {
    let malformed = |what: &str| Refusal::new("policy.malformed", what);
    if *value == Value::Undefined {
        return Err(Refusal::new("policy.undefined", "the rule `verdict` has no value for this input"));
    }
    let members = value.as_object().map_err(|_| malformed("a verdict is an object"))?;
    let (mut effect, mut reasons, mut obligations) = (None, BTreeSet::new(), Obligations::default());
    let mut approvals = None;
    for (key, member) in members.iter() {
        let number = |most: u64| match member.as_u64() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(malformed("approver_tier, approvals and per_minute are small whole numbers")),
        };
        match key.as_string().map(AsRef::as_ref) {
            Ok("effect") => effect = effect_read(member),
            Ok("reasons") => {
                reasons = words(member, REASONS_MAX, reason_ok)
                    .ok_or_else(|| malformed("reasons are codes such as `connector.host_not_allowed`"))?;
            }
            Ok("routes") => {
                let routes = words(member, ROUTES_MAX, |_| true);
                obligations.routes = Some(routes.ok_or_else(|| malformed("routes are short names"))?);
            }
            Ok("approver_tier") => obligations.approver_tier = number(9)? as u8,
            Ok("approvals") => approvals = Some(number(9)? as u8),
            Ok("per_minute") => obligations.per_minute = Some(number(1_000_000)? as u32),
            _ => return Err(malformed("a verdict has no members but effect, reasons and the obligations")),
        }
    }
    let effect =
        effect.ok_or_else(|| malformed("effect is one of ALLOW, ROUTE, THROTTLE, HITL, STEP_UP, DENY"))?;
    match effect {
        Effect::Route if obligations.routes.as_ref().is_none_or(BTreeSet::is_empty) => {
            return Err(malformed("ROUTE names at least one route"));
        }
        Effect::Throttle if obligations.per_minute.is_none() => {
            return Err(malformed("THROTTLE names a rate"));
        }
        Effect::Hitl if approvals == Some(0) => return Err(malformed("HITL asks for at least one approval")),
        Effect::Hitl => obligations.approvals = approvals.unwrap_or(1),
        _ => obligations.approvals = approvals.unwrap_or(0),
    }
    if effect == Effect::Deny && reasons.is_empty() {
        reasons.insert("policy.denied".to_owned());
    }
    Ok(Verdict { effect, obligations, reasons })
}

fn effect_read(value: &Value) -> Option<Effect> {
    const ALL: [Effect; 6] =
        [Effect::Allow, Effect::Route, Effect::Throttle, Effect::Hitl, Effect::StepUp, Effect::Deny];
    let text = value.as_string().ok()?;
    ALL.into_iter().find(|effect| effect.as_str() == text.as_ref())
}

/// An array or a set of short texts.
fn words(value: &Value, most: usize, ok: impl Fn(&str) -> bool) -> Option<BTreeSet<String>> {
    let read = |word: &Value| {
        let word = word.as_string().ok()?;
        (!word.is_empty() && word.len() <= WORD_BYTES_MAX && ok(word)).then(|| word.as_ref().to_owned())
    };
    match value {
        Value::Array(items) if items.len() <= most => items.iter().map(read).collect(),
        Value::Set(items) if items.len() <= most => items.iter().map(read).collect(),
        _ => None,
    }
}

/// `area.reason`, in lower case.
fn reason_ok(reason: &str) -> bool {
    reason.contains('.')
        && reason
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_'))
}
