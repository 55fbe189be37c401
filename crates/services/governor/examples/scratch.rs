use regorus::*;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::RegoVM;
use std::time::Instant;
fn main() {
    let dir = "/work/main/contracts/policies/platform/";
    let mut e = Engine::new();
    e.set_strict_builtin_errors(true);
    let data = Value::from_json_file(format!("{dir}data.json")).unwrap();
    e.add_data(data.clone()).unwrap();
    for f in ["acts.rego","connectors.rego","writ.rego"] { e.add_policy_from_file(format!("{dir}{f}")).unwrap(); }
    let cases = Value::from_json_file(format!("{dir}cases.json")).unwrap();
    let cases: Vec<Value> = cases.as_array().unwrap().iter().cloned().collect();
    let inputs: Vec<Value> = cases.iter().map(|c| c["input"].clone()).collect();
    let mut e3 = e.clone();
    let p = e3.compile_with_entrypoint(&"data.writ.verdict".into()).unwrap();
    let prog = Compiler::compile_from_policy(&p, &["data.writ.verdict"]).unwrap();
    println!("instructions {}", prog.instructions.len());
    let mut vm = RegoVM::new();
    vm.load_program(prog); vm.set_data(data).unwrap(); vm.set_strict_builtin_errors(true);
    e.set_execution_timer_config(regorus::utils::limits::ExecutionTimerConfig{limit: std::time::Duration::from_millis(25), check_interval: std::num::NonZeroU32::new(16).unwrap()});
    let stat = |name: &str, mut f: Box<dyn FnMut(&Value)>| {
        let mut t = vec![];
        for _ in 0..300 { for i in &inputs { let s = Instant::now(); f(i); t.push(s.elapsed().as_nanos() as u64); } }
        t.sort();
        println!("{name}: mean {} p50 {} p99 {} p999 {}", t.iter().sum::<u64>()/t.len() as u64, t[t.len()/2], t[t.len()*99/100], t[t.len()*999/1000]);
    };
    stat("rvm   ", Box::new(move |i| { vm.set_input(i.clone()); vm.execute_entry_point_by_index(0).unwrap(); }));
    stat("interp", Box::new(move |i| { e.set_input(i.clone()); let _ = e.eval_rule("data.writ.verdict".into()); }));
}
