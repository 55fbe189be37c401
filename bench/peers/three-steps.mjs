// What every peer runs: the three transforms of contracts/workflows/three-steps.yaml. `step(name, does)` is the peer's own
// way to do something once and keep what came of it.

export async function threeSteps(step, amount, run) {
  const one = await step("one", async () => ({ amount }));
  const two = await step("two", async () => ({ text: `amount ${one.amount}` }));
  return step("three", async () => ({ text: `${two.text}, run ${run}`, high: one.amount > 10 }));
}

// A run that ended with something else was not measured.
export function check(result) {
  if (!result?.text?.startsWith("amount 3, run ") || result.high !== false) {
    throw new Error(`a run ended with ${JSON.stringify(result)}`);
  }
}
