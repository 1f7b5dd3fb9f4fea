//! `levee doctor`: what is wrong, and what is being done about it.

mod diagnose;
mod view;

use crate::client::MetaClient;
use crate::errors::Found;
use crate::output::Output;
use diagnose::Diagnosis;
use view::View;

pub async fn doctor(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let view = View::of(meta).await?;
    let diagnosis = diagnose::diagnose(&view);
    out.result(&diagnosis, || describe(&diagnosis))?;
    match diagnosis.problems.len() {
        0 => Ok(()),
        1 => Err(Found("1 problem was found".into()).into()),
        count => Err(Found(format!("{count} problems were found")).into()),
    }
}

fn describe(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for finding in &diagnosis.problems {
        text.push_str(&format!("Problem  {}\n", finding.what));
        text.extend(finding.doing.iter().map(|line| format!("         {line}\n")));
    }
    for finding in &diagnosis.notes {
        text.push_str(&format!("Note     {}\n", finding.what));
        text.extend(finding.doing.iter().map(|line| format!("         {line}\n")));
    }
    if diagnosis.healthy {
        text.push_str(&format!("All is well: {}.\n", diagnosis.summary));
    } else {
        text.push_str(&format!("{}.\n", diagnosis.summary));
    }
    text
}
