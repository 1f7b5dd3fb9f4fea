//! The meta servers as the command line finds them: who answers, and what that means.

use crate::client::{ClientError, MetaClient, Survey, Surveyed};
use levee_proto::api::{Condition, ConditionWord, EventKind, Health, ProblemKind, Severity};
use levee_proto::units::show_time;

/// How the cluster does, as its leader says; if there is none, what can be said of the meta servers themselves.
pub async fn health(meta: &MetaClient) -> anyhow::Result<Health> {
    let survey = meta.survey().await;
    if survey.leader().is_some() {
        return Ok(told(meta).await?);
    }
    Ok(without_leader(meta, &survey)?)
}

/// What the leader says.
pub async fn told(meta: &MetaClient) -> crate::client::Result<Health> {
    match meta.health().await {
        Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::NotFound => {
            let what = "the meta servers are of an earlier version, which cannot say how the cluster does";
            let mut older = condition("cluster".into(), ConditionWord::Unfit, what.into());
            older.doing = vec!["upgrade them first".into()];
            Ok(Health { healthy: false, summary: "little is known".into(), conditions: vec![older] })
        }
        health => health,
    }
}

/// Every condition, with what is done about it.
pub fn describe(health: &Health) -> String {
    let mut text = String::new();
    for Condition { severity, text: what, doing, .. } in &health.conditions {
        let head = if *severity == Severity::Info { "Note" } else { "Problem" };
        text.push_str(&format!("{head:<9}{what}\n"));
        text.extend(doing.iter().map(|line| format!("         {line}\n")));
    }
    if health.healthy {
        text.push_str("All is well: ");
    }
    text.push_str(&format!("{}.\n", health.summary));
    text
}

/// What is wrong while nobody leads: within a moment, whatever does not answer. An error if nobody answers at all.
pub fn without_leader(meta: &MetaClient, survey: &Survey) -> crate::client::Result<Health> {
    let Some(best) = survey.best() else { return Err(meta.nobody_answers(survey)) };
    let answer = survey.members.iter().filter(|member| member.answer.is_ok()).count();
    let all = survey.members.len();
    let since = best.leaderless_ms.map(|ms| format!(" for {}", show_time(ms / 1000))).unwrap_or_default();
    let mut first =
        condition("cluster".into(), ConditionWord::Leaderless, format!("the meta servers have had no leader{since}"));
    first.doing =
        vec!["volumes that are served go on; nothing can be created, attached, moved or repaired meanwhile".into()];
    first.doing.push(match answer * 2 > all {
        true => "most of them answer: they choose one within seconds, unless they do not reach each other".into(),
        false => format!("{answer} of {all} answer, and most are needed: start the others; if they are lost for good, see `levee-metad recover --help`"),
    });
    let silent = survey.members.iter().filter_map(|member| silent(survey, member));
    let conditions: Vec<Condition> = [first].into_iter().chain(silent).collect();
    let summary =
        format!("{answer} of {all} meta servers answer, and none leads: nothing is known of nodes, disks and volumes");
    Ok(Health { healthy: false, summary, conditions })
}

/// A member that does not answer: since when, by the word of the others.
fn silent(survey: &Survey, member: &Surveyed) -> Option<Condition> {
    let why = member.answer.as_ref().err()?;
    let name = member.id.map_or_else(|| "?".into(), |id| id.to_string());
    let heard = |other: &Surveyed| {
        let told = other.answer.as_ref().ok()?.members.iter().find(|told| Some(told.id) == member.id)?;
        told.silent_ms
    };
    let since = survey.members.iter().filter_map(heard).min();
    let since = since.map(|ms| format!("; the others heard it {} ago", show_time(ms / 1000))).unwrap_or_default();
    let what = format!("meta server {name} at {} does not answer ({why}){since}", member.url);
    let mut silent = condition(name, ConditionWord::Silent, what);
    silent.doing = vec!["start it again".into()];
    Some(silent)
}

fn condition(subject: String, word: ConditionWord, text: String) -> Condition {
    let (kind, severity) = (EventKind::Member, Severity::Error);
    Condition { kind, subject, word, severity, since_ms: None, text, doing: Vec::new() }
}
