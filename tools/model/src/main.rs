use levee_model::*;
fn main() {
    let rule = std::env::args().nth(2);
    for s in SCENARIOS {
        if std::env::args().nth(1).is_some_and(|a| a != s.name && a != "all") || s.large {
            continue;
        }
        let rules = rule
            .as_ref()
            .and_then(|r| Rule::ALL.iter().find(|x| x.name() == r))
            .map_or(Rules::ALL, |r| Rules::without(*r));
        let setup = Setup { bounds: s.bounds, rules };
        let o = explore(&setup, 2);
        println!(
            "{} states {} depth {} {:?} cx {:?}",
            s.name,
            o.states,
            o.depth,
            o.took,
            o.counterexample.as_ref().map(|c| c.len())
        );
        if let Some(c) = o.counterexample {
            let (t, i) = tell(&c, &setup);
            if std::env::args().nth(3).is_some() {
                for (n, x) in t.iter().enumerate() {
                    println!("{n} {}", x.what);
                    for l in &x.nodes {
                        println!("        {l}");
                    }
                }
            }
            println!("{i:?}");
        }
    }
}
