//! `levee doctor`: what is wrong, and what is being done about it.

use super::group;
use crate::client::MetaClient;
use crate::errors::Found;
use crate::output::Output;
use levee_proto::api::{Condition, Severity};
use serde::Serialize;

/// A diagnosis, as programs get it.
#[derive(Serialize)]
struct Diagnosis<'h> {
    healthy: bool,
    summary: &'h str,
    problems: Vec<&'h Condition>,
    /// What is under way or worth knowing, and no problem.
    notes: Vec<&'h Condition>,
}

pub async fn doctor(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let health = group::health(meta).await?;
    let (notes, problems): (Vec<_>, Vec<_>) = health.conditions.iter().partition(|c| c.severity == Severity::Info);
    let diagnosis = Diagnosis { healthy: health.healthy, summary: &health.summary, problems, notes };
    out.result(&diagnosis, || group::describe(&health))?;
    match diagnosis.problems.len() {
        0 => Ok(()),
        1 => Err(Found("1 problem was found".into()).into()),
        count => Err(Found(format!("{count} problems were found")).into()),
    }
}
