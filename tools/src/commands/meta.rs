//! `levee meta`: the meta servers as a group.

use crate::cli::Meta;
use crate::client::{ClientError, MetaClient, wait_for};
use crate::output::{Output, measure};
use levee_proto::api::*;
use std::time::Duration;

pub async fn run(command: &Meta, meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    match command {
        Meta::List => {
            let survey = meta.survey().await;
            if survey.leader().is_none() {
                return super::status::leaderless(meta, &survey, out);
            }
            let members = meta.members().await?;
            out.result(&members, || describe(&members, out))
        }
        Meta::Add { url, waiting } => {
            let members = meta.add_member(&AddMember { id: None, url: url.clone() }).await?;
            let added = members.members.iter().find(|m| m.url == *url).map(|m| m.id);
            let id = added.ok_or_else(|| anyhow::anyhow!("the meta server at {url} is not in the group: try again"))?;
            wait_until_voter(meta, id, waiting.timeout, out).await
        }
        Meta::Remove { id, force } => {
            let members = meta.remove_member(*id, *force).await?;
            out.result(&members, || format!("Meta server {id} is not in the group any more; its folder is not needed."))
        }
        Meta::Lead { id } => {
            let members = meta.lead(*id).await?;
            out.result(&members, || format!("Meta server {id} leads."))
        }
        Meta::Replace { id, url, force, waiting } => {
            meta.replace_member(*id, &ReplaceMember { url: url.clone() }, *force).await?;
            wait_until_voter(meta, *id, waiting.timeout, out).await
        }
    }
}

/// Shows how far the new one is, until it counts.
async fn wait_until_voter(meta: &MetaClient, id: u64, timeout: Duration, out: &Output) -> anyhow::Result<()> {
    let bar = out.spinner(format!("Meta server {id} is given the log"));
    let look = async || {
        let members = match meta.members().await {
            Ok(members) => members,
            Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::Unavailable => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(one) = members.members.iter().find(|m| m.id == id) else { return Ok(None) };
        if let Some(matched) = one.matched {
            measure(&bar, members.last);
            bar.set_position(matched);
        }
        Ok((one.role == MemberRole::Voter && !members.changing).then_some(members))
    };
    let done = wait_for(timeout, look).await?;
    bar.finish_and_clear();
    let Some(members) = done else {
        let seconds = timeout.as_secs();
        anyhow::bail!(
            "meta server {id} does not count after {seconds} s: `levee meta list` shows what is wrong with it"
        );
    };
    out.result(&members, || format!("Meta server {id} is in the group and counts."))
}

fn describe(members: &Members, out: &Output) -> String {
    let rows = members.members.iter().map(|m| {
        let role = match m.role {
            _ if m.id == members.leader => "leader",
            MemberRole::Voter => "voter",
            MemberRole::Learner => "learner",
        };
        vec![
            m.id.to_string(),
            m.url.clone(),
            role.into(),
            if m.alive { "yes" } else { "no" }.into(),
            m.matched.map_or("unknown".into(), |matched| members.last.saturating_sub(matched).to_string()),
            m.level.map_or("unknown".into(), |level| level.to_string()),
        ]
    });
    let mut text = out.table(&["ID", "URL", "ROLE", "ANSWERS", "BEHIND", "LEVEL"], rows);
    for trouble in members.members.iter().filter_map(|m| m.trouble.as_ref()) {
        text.push_str(&format!("\n{trouble}"));
    }
    if members.members.iter().any(|m| m.level.is_some_and(|level| level > members.level)) {
        text.push_str(&format!(
            "\nThe group is at level {}: newer commands wait until all members are upgraded.",
            members.level
        ));
    }
    text
}
