//! The typed form of a workflow. Unknown members are refused everywhere: a misspelt `on_denied` must not mean nothing.

use kernel::{Digest, json, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most steps of one workflow.
pub const STEPS_MAX: usize = 64;
/// Most ways of one branch.
pub const WAYS_MAX: usize = 16;
/// Longest name of a workflow, step, field or label, in bytes.
pub const NAME_BYTES_MAX: usize = 48;
/// Longest deadline of a step or run: a day. Waiting for people does not count.
pub const DEADLINE_MS_MAX: i64 = 86_400_000;
/// Longest wait for a time or a signal: thirty days.
pub const WAIT_MS_MAX: i64 = 30 * 86_400_000;
/// Most branches of a parallel step.
pub const BRANCHES_MAX: usize = 8;
/// How deep parallel steps may stand in one another.
pub const PARALLEL_DEPTH_MAX: usize = 2;
/// How deep runs may stand in one another, over branches and sub-workflows.
pub const STRAND_DEPTH_MAX: u32 = 4;
/// Most attempts of one kind.
pub const RETRY_MAX: u32 = 12;
/// Deadline of a step that says nothing.
pub const STEP_DEADLINE_MS: i64 = 120_000;
/// Deadline of a run that says nothing.
pub const RUN_DEADLINE_MS: i64 = 3_600_000;
/// Output tokens of a model step that says nothing.
pub const OUTPUT_TOKENS: u32 = 512;

/// The end of the workflow, as a successor.
pub const END: &str = "end";
/// The end of the workflow that leaves the rest to people, as a successor.
pub const NEEDS_HUMAN: &str = "needs_human";
/// The dead letter, as a successor on errors.
pub const DEAD: &str = "dead";

/// A workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    /// Its name, unique within the tenant.
    pub name: String,
    /// A label for people; the version that counts is the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What starts it; without one it is started by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// What it relies on.
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pub pins: Pins,
    /// Bounds on a whole run.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// Which events start it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The installed connector that the event comes from.
    pub connector: String,
    /// The event, as the connector's manifest names it.
    pub event: String,
    /// A condition over `event`; without one every such event matches.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}

/// What a workflow relies on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Models by the name that steps use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelPin>,
    /// Connectors by the name they are installed under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connectors: BTreeMap<String, ConnectorPin>,
}

impl Pins {
    fn is_empty(&self) -> bool {
        self.models.is_empty() && self.connectors.is_empty()
    }
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPin {
    /// `provider/model`.
    pub model: String,
    /// Further names under which it may report itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<String>,
}

/// A connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorPin {
    /// Name of the manifest that must be installed.
    pub manifest: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its canonical bytes, in hexadecimal, where the version alone is not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Bounds on a whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest duration without the time that people took, in milliseconds.
    #[serde(default = "run_deadline_ms")]
    pub deadline_ms: i64,
    /// Most that its model calls may cost, in micro-units; a run that has spent more takes no further step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<i64>,
}

fn run_deadline_ms() -> i64 {
    RUN_DEADLINE_MS
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { deadline_ms: RUN_DEADLINE_MS, cost_micros: None }
    }
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Limits::default()
    }
}

/// How often a step may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// After faults of systems outside.
    #[serde(default = "retry_external")]
    pub external: u32,
    /// After faults of this system.
    #[serde(default = "retry_engine")]
    pub engine: u32,
}

fn retry_external() -> u32 {
    4
}

fn retry_engine() -> u32 {
    5
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { external: retry_external(), engine: retry_engine() }
    }
}

impl Retry {
    fn is_default(&self) -> bool {
        *self == Retry::default()
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StepForm", into = "StepForm")]
pub struct Step {
    /// Its name; later steps refer to its output as `steps.<id>`.
    pub id: String,
    /// A condition; where it is false the step is passed over.
    pub when: Option<String>,
    /// What it does.
    pub kind: StepKind,
    /// The successor: a later step, `end` or `needs_human`. Without one the next in order.
    pub next: Option<String>,
    /// How often it is tried again.
    pub retry: Retry,
    /// Longest duration over all attempts, without the time that people took.
    pub deadline_ms: i64,
    /// The successor when it fails for good: a later step, `end`, `needs_human` or `dead`.
    pub on_error: String,
    /// The successor when policy or a person says no; without one the run ends as denied.
    pub on_denied: Option<String>,
    /// The successor when nobody decided in time; without one the run ends as expired.
    pub on_expired: Option<String>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum StepKind {
    /// Waits for a time, or for a signal.
    Wait(WaitStep),
    /// Takes several ways at once and goes on when all have ended.
    Parallel(ParallelStep),
    /// Runs another workflow and goes on when it has ended.
    Workflow(SubStep),
    /// Calls an action of a connector.
    Tool(ToolStep),
    /// Asks a model.
    Model(Box<ModelStep>),
    /// Waits for people.
    Approval(ApprovalStep),
    /// Makes values: fields of templates.
    Transform(Map<String, Value>),
    /// Chooses the successor: the first way whose condition holds.
    Branch(Vec<Way>),
}

impl StepKind {
    /// The word for it in facts and the API.
    pub fn name(&self) -> &'static str {
        match self {
            StepKind::Tool(_) => "tool",
            StepKind::Model(_) => "model",
            StepKind::Approval(_) => "approval",
            StepKind::Transform(_) => "transform",
            StepKind::Branch(_) => "branch",
            StepKind::Wait(_) => "wait",
            StepKind::Parallel(_) => "parallel",
            StepKind::Workflow(_) => "workflow",
        }
    }
}

/// A durable wait: exactly one of `for_ms`, `until_ms` and `signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitStep {
    /// So long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<i64>,
    /// Until this time, milliseconds UTC: a template that comes to a whole number. A time that has passed is no wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<String>,
    /// Until this signal is given to the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How long a signal is waited for, in milliseconds; then `on_expired` follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<i64>,
}

/// Ways that are taken at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelStep {
    /// What the end of one way that did not reach its own end means for the others.
    #[serde(default, skip_serializing_if = "OnFailure::is_default")]
    pub on_failure: OnFailure,
    /// Name of each way and its steps, in order.
    pub branches: BTreeMap<String, Vec<Step>>,
}

/// What becomes of the other branches when one was denied, expired, cancelled or left to people. A branch among the dead
/// letters has not ended: it waits for an operator, and so does the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They go on to their own ends.
    #[default]
    Wait,
    /// They are cancelled: those that wait at once, those that work at their next step, never in the middle of a call.
    Cancel,
}

impl OnFailure {
    fn is_default(&self) -> bool {
        *self == OnFailure::default()
    }
}

/// Another workflow as a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubStep {
    /// Its name. The version is pinned when the outermost run starts.
    pub name: String,
    /// What it is given as `event`: values, texts are templates.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub with: Map<String, Value>,
}

/// A call of a connector's action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolStep {
    /// The name it is installed under.
    pub connector: String,
    /// The action, as its manifest names it.
    pub action: String,
    /// Parameters: values, texts are templates. A parameter that comes to null is not given.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What policy is told besides the call itself.
    #[serde(default, skip_serializing_if = "PolicyHints::is_empty")]
    pub policy: PolicyHints,
    /// What an approver is shown besides the call itself: label and template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub preview: BTreeMap<String, String>,
    /// What has to be as it was seen, right before a write is made: name of a field and template of its value. The action's
    /// read-back says how it is looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unchanged: BTreeMap<String, String>,
}

/// What a workflow tells policy about a call. Templates over what the run knows; never over what a caller says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyHints {
    /// Whether the workflow asks for it to happen without a person.
    #[serde(default, skip_serializing_if = "is_false")]
    pub auto_approve: bool,
    /// How sure a model was, in thousandths: a template that comes to a whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence_milli: Option<String>,
    /// How urgent it is, 1 the most: a template that comes to a whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// How sensitive the content is: a template that comes to a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl PolicyHints {
    fn is_empty(&self) -> bool {
        *self == PolicyHints::default()
    }
}

/// A question to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelStep {
    /// The name of the pin.
    pub pin: String,
    /// What it is to do; a template over `run` and step outputs that the author trusts.
    pub system: String,
    /// The untrusted text; a template.
    pub user: String,
    /// JSON Schema of the answer.
    pub answer: Value,
    /// Fields that may only hold a value of a list: a list of texts, or a template that comes to one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allowed: BTreeMap<String, Value>,
    /// Most output tokens.
    #[serde(default = "output_tokens")]
    pub max_output_tokens: u32,
    /// How sensitive the text is: a template that comes to a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<String>,
}

fn output_tokens() -> u32 {
    OUTPUT_TOKENS
}

/// An explicit checkpoint: nothing goes on until people have agreed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalStep {
    /// Least tier of an approver.
    #[serde(default = "one_tier")]
    pub tier: u8,
    /// How many different people.
    #[serde(default = "one_tier")]
    pub approvals: u8,
    /// What they are shown: label and template.
    pub preview: BTreeMap<String, String>,
}

fn one_tier() -> u8 {
    1
}

/// A way out of a branch. The last one has no condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// The condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// A later step, `end` or `needs_human`.
    pub next: String,
}

/// The words for the kinds of steps.
pub const KINDS: [&str; 8] =
    ["tool", "model", "approval", "transform", "branch", "wait", "parallel", "workflow"];

/// A step as it is written: exactly one of the kinds is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepForm {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool: Option<ToolStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Box<ModelStep>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branch: Option<Vec<Way>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<WaitStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parallel: Option<ParallelStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workflow: Option<SubStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    retry: Retry,
    #[serde(default = "step_deadline_ms", skip_serializing_if = "is_step_deadline")]
    deadline_ms: i64,
    #[serde(default = "dead", skip_serializing_if = "is_dead")]
    on_error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_denied: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_expired: Option<String>,
}

fn step_deadline_ms() -> i64 {
    STEP_DEADLINE_MS
}

fn is_step_deadline(value: &i64) -> bool {
    *value == STEP_DEADLINE_MS
}

fn dead() -> String {
    DEAD.to_owned()
}

fn is_dead(target: &str) -> bool {
    target == DEAD
}

impl TryFrom<StepForm> for Step {
    type Error = String;

    fn try_from(form: StepForm) -> Result<Step, String> {
        let mut kinds = Vec::new();
        kinds.extend(form.tool.map(StepKind::Tool));
        kinds.extend(form.model.map(StepKind::Model));
        kinds.extend(form.approval.map(StepKind::Approval));
        kinds.extend(form.transform.map(StepKind::Transform));
        kinds.extend(form.branch.map(StepKind::Branch));
        kinds.extend(form.wait.map(StepKind::Wait));
        kinds.extend(form.parallel.map(StepKind::Parallel));
        kinds.extend(form.workflow.map(StepKind::Workflow));
        let kind = match (kinds.pop(), kinds.is_empty()) {
            (Some(kind), true) => kind,
            _ => return Err(format!("a step is exactly one of {}", KINDS.join(", "))),
        };
        Ok(Step {
            id: form.id,
            when: form.when,
            kind,
            next: form.next,
            retry: form.retry,
            deadline_ms: form.deadline_ms,
            on_error: form.on_error,
            on_denied: form.on_denied,
            on_expired: form.on_expired,
        })
    }
}

impl From<Step> for StepForm {
    fn from(step: Step) -> StepForm {
        let mut form = StepForm {
            id: step.id,
            when: step.when,
            tool: None,
            model: None,
            approval: None,
            transform: None,
            branch: None,
            wait: None,
            parallel: None,
            workflow: None,
            next: step.next,
            retry: step.retry,
            deadline_ms: step.deadline_ms,
            on_error: step.on_error,
            on_denied: step.on_denied,
            on_expired: step.on_expired,
        };
        match step.kind {
            StepKind::Tool(tool) => form.tool = Some(tool),
            StepKind::Model(model) => form.model = Some(model),
            StepKind::Approval(approval) => form.approval = Some(approval),
            StepKind::Transform(fields) => form.transform = Some(fields),
            StepKind::Branch(ways) => form.branch = Some(ways),
            StepKind::Wait(wait) => form.wait = Some(wait),
            StepKind::Parallel(parallel) => form.parallel = Some(parallel),
            StepKind::Workflow(sub) => form.workflow = Some(sub),
        }
        form
    }
}

impl Workflow {
    /// The canonical form: what the digest is taken of.
    pub fn canonical(&self) -> Result<Vec<u8>, json::JsonError> {
        // Plain data with text keys always becomes a value.
        json::canonical(&serde_json::to_value(self).unwrap_or_default())
    }

    /// The version: SHA-256 of the canonical form.
    pub fn digest(&self) -> Result<Digest, json::JsonError> {
        Ok(sha256(&self.canonical()?))
    }

    /// The step of that id, wherever it stands, with its place in its own list.
    pub fn step(&self, id: &str) -> Option<(usize, &Step)> {
        self.list_of(id).and_then(|list| find(list, id))
    }

    /// The list that the step of that id stands in: the workflow's own, or that of a branch.
    pub fn list_of(&self, id: &str) -> Option<&[Step]> {
        lists(&self.steps).find(|list| find(list, id).is_some())
    }

    /// The ordinary successor of a step: the next in its own list.
    pub fn successor(&self, id: &str) -> &str {
        match self.list_of(id).and_then(|list| Some((list, find(list, id)?))) {
            Some((_, (_, Step { next: Some(next), .. }))) => next,
            Some((list, (at, _))) => list.get(at + 1).map_or(END, |step| &step.id),
            None => END,
        }
    }

    /// All its steps, those of branches behind the step they belong to.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        lists(&self.steps).flatten()
    }

    /// Names of the connectors that its own steps call, each once.
    pub fn connectors(&self) -> Vec<&str> {
        let called = self.all_steps().filter_map(|step| match &step.kind {
            StepKind::Tool(tool) => Some(tool.connector.as_str()),
            _ => None,
        });
        let mut names: Vec<&str> = called.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The most strands that a run of it can have at one moment, over all depths, if the workflows that it runs are these.
    pub fn strands_most(&self, inner: &BTreeMap<String, Arc<Workflow>>) -> usize {
        strands_most(&self.steps, inner, 0, &mut BTreeMap::new())
    }

    /// Names of the workflows that its steps run, each once.
    pub fn workflows(&self) -> Vec<&str> {
        let run = self.all_steps().filter_map(|step| match &step.kind {
            StepKind::Workflow(sub) => Some(sub.name.as_str()),
            _ => None,
        });
        let mut names: Vec<&str> = run.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Steps follow one another, so the one with the most strands counts. `known` has what workflows come to at a depth.
fn strands_most<'w>(
    steps: &[Step],
    inner: &'w BTreeMap<String, Arc<Workflow>>,
    depth: u32,
    known: &mut BTreeMap<(&'w str, u32), usize>,
) -> usize {
    if depth >= STRAND_DEPTH_MAX {
        return 0;
    }
    let mut most = 0;
    for step in steps {
        let strands = match &step.kind {
            StepKind::Parallel(parallel) => parallel
                .branches
                .values()
                .map(|branch| strands_most(branch, inner, depth + 1, known).saturating_add(1))
                .fold(0, usize::saturating_add),
            StepKind::Workflow(sub) => match inner.get_key_value(&sub.name) {
                None => 1,
                Some((name, workflow)) => match known.get(&(name.as_str(), depth)) {
                    Some(strands) => *strands,
                    None => {
                        let strands =
                            strands_most(&workflow.steps, inner, depth + 1, known).saturating_add(1);
                        known.insert((name, depth), strands);
                        strands
                    }
                },
            },
            _ => 0,
        };
        most = most.max(strands);
    }
    most
}

fn find<'s>(list: &'s [Step], id: &str) -> Option<(usize, &'s Step)> {
    list.iter().enumerate().find(|(_, step)| step.id == id)
}

/// A list of steps, and those of the branches in it. As deep as the text that was read, which has a bound.
fn lists(steps: &[Step]) -> Box<dyn Iterator<Item = &[Step]> + '_> {
    let inner = steps.iter().filter_map(|step| match &step.kind {
        StepKind::Parallel(parallel) => Some(parallel.branches.values().flat_map(|branch| lists(branch))),
        _ => None,
    });
    Box::new(std::iter::once(steps).chain(inner.flatten()))
}
